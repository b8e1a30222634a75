"""The Gradio page over the same chat service: one character at a time, retry, undo, clear, sliders.

A conversation belongs to its session of the page; replies go on in the service when the page leaves.
Knows nothing of how a reply is made.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterator
from typing import Any

import gradio as gr
import numpy as np

from elysia.chat.message_tree import CUT, FAILED, WHOLE
from elysia.chat.settings import PRESETS
from elysia.core.errors import ElysiaError, UsageError
from elysia.web.app_state import AppState
from elysia.web.auth import OPENID, PASSWORD, explain_refusal
from elysia.web.i18n import get_translator, in_language
from elysia.web.reply_audio import SILENCE_TIMEOUT, start_speaking
from elysia.web.safe_markdown import sanitize_reply

ChatHistory = list[dict[str, str]]
HOST, PORT = "127.0.0.1", 7860
NO_ANALYTICS = "GRADIO_ANALYTICS_ENABLED"


def launch(site: AppState, *, wait: bool = True) -> str:
    """Serve the page at GRADIO_SERVER_NAME and GRADIO_SERVER_PORT; its URL. UsageError when it would
    be open to strangers by accident.
    """
    name = os.environ.get("GRADIO_SERVER_NAME", HOST)
    if said := explain_refusal(site.access, name):
        raise UsageError(said)
    if site.access == OPENID:
        raise UsageError("The Gradio page knows passwords only; use web_demo/app.py for OpenID.")
    _, url, _ = build(site).launch(
        server_name=name, server_port=int(os.environ.get("GRADIO_SERVER_PORT", PORT)), share=False,
        auth=_build_auth(site) if site.access == PASSWORD else None, prevent_thread_lock=not wait,
        footer_links=[], quiet=not wait, max_file_size="1mb", ssr_mode=False,
        theme=gr.themes.Soft(primary_hue="pink", secondary_hue="pink"),
    )  # fmt: skip
    return str(url)


def build(site: AppState, language: str | None = None) -> gr.Blocks:
    """The page. `language` zh or en; by default as LANG says."""
    os.environ.setdefault(NO_ANALYTICS, "False")
    chosen = language or ("zh" if os.environ.get("LANG", "").startswith("zh") else "en")
    return _GradioPage(site, chosen).blocks()


def _build_auth(site: AppState) -> Any:
    """Gradio's own login, with the same limit to guessing."""

    def may_enter(name: str, password: str) -> bool:
        try:
            return site.logins.enter(name, password) is not None
        except UsageError:
            return False

    return may_enter


class _GradioPage:
    """The components' functions; a session's conversation id is the only state."""

    def __init__(self, site: AppState, language: str) -> None:
        self.site, self.service = site, site.service
        self.language, self.say = language, get_translator(language)

    def blocks(self) -> gr.Blocks:
        say, start = self.say, PRESETS["balanced"]
        page: gr.Blocks
        with gr.Blocks(
            title=say("title"), analytics_enabled=False, fill_height=True, delete_cache=(600, 3600)
        ) as page:
            talk = gr.State("")
            with gr.Row():
                with gr.Column(scale=1, min_width=220):
                    who = gr.Dropdown([], label=say("table"), interactive=True)
                    length = gr.Slider(
                        8, 4096, start["max_new_tokens"], step=8, label=say("max_length")
                    )
                    top_p = gr.Slider(0.01, 1, start["top_p"], step=0.01, label=say("top_p"))
                    heat = gr.Slider(
                        0, 2, start["temperature"], step=0.01, label=say("temperature")
                    )
                    voice = gr.Checkbox(False, label=say("voice_on"))
                    speed = gr.Slider(0.5, 2, 1, step=0.05, label=say("speed"))
                with gr.Column(scale=4):
                    chat = gr.Chatbot(
                        show_label=False, height="70vh", latex_delimiters=[], allow_tags=False,
                        feedback_options=None, buttons=["copy"], layout="bubble",
                    )  # fmt: skip
                    text = gr.Textbox(
                        placeholder=say("say"), show_label=False, lines=1, max_lines=6, submit_btn=True,
                        max_length=20_000, autofocus=True,
                    )  # fmt: skip
                    sound = gr.Audio(
                        autoplay=True,
                        visible=False,
                        show_label=False,
                        interactive=False,
                        buttons=[],
                    )
                    with gr.Row():
                        stop = gr.Button(say("stop"))
                        again = gr.Button(say("again"))
                        undo = gr.Button(say("undo"))
                        clear = gr.Button(say("new_talk"))
            knobs = [length, top_p, heat]
            quiet: dict[str, Any] = {"api_visibility": "private"}
            page.load(self.enter, None, [who, talk, chat], **quiet)
            who.input(self.begin, who, [talk, chat], **quiet)
            clear.click(self.begin, who, [talk, chat], **quiet)
            said = text.submit(self.answer, [talk, text, *knobs], [text, chat], **quiet)
            anew = again.click(self.retry, [talk, *knobs], chat, **quiet)
            for answered in (said, anew):
                answered.then(self.speak, [talk, voice, speed], sound, **quiet)
            undo.click(self.undo, talk, [text, chat], **quiet)
            stop.click(self.stop, talk, sound, queue=False, **quiet)
        return page

    def user(self, request: gr.Request) -> str:
        """The id of who is logged in; the local user where nobody is asked."""
        if self.site.access == PASSWORD:
            return self.site.accounts.get_or_create(str(request.username)).id
        return self.site.accounts.local().id

    def enter(self, request: gr.Request) -> tuple[Any, str, ChatHistory]:
        """A new session: everybody to choose from, the first one at the table."""
        cast = self.service.characters.all(self.user(request))
        first = next((member for member in cast if member.key == "elysia"), cast[0])
        choices = [(member.name, member.key) for member in cast]
        return gr.Dropdown(choices=choices, value=first.key), *self.begin(first.key, request)

    def begin(self, who: str, request: gr.Request) -> tuple[str, ChatHistory]:
        """A new conversation. The one before stays, and the Streamlit page lists it."""
        user = self.user(request)
        with _show_errors(self.language):
            id = self.service.new(user, [who]).id
        return id, self.shown(user, id)

    def answer(
        self, id: str, text: str, length: float, top_p: float, heat: float, request: gr.Request
    ) -> Iterator[tuple[str, ChatHistory]]:
        """Send, and show the answer as it grows."""
        user = self.user(request)
        with _show_errors(self.language):
            self.set(user, id, length, top_p, heat)
            reply = self.service.send(user, id, text)
        for shown in self.growing(user, id, reply):
            yield "", shown

    def retry(
        self, id: str, length: float, top_p: float, heat: float, request: gr.Request
    ) -> Iterator[ChatHistory]:
        """The last reply anew; the one before stays a branch."""
        user = self.user(request)
        with _show_errors(self.language):
            self.set(user, id, length, top_p, heat)
            newest = self.service.get_messages(user, id)[-1]
            reply = self.service.regenerate(user, id, newest.id)
        yield from self.growing(user, id, reply)

    def undo(self, id: str, request: gr.Request) -> tuple[str, ChatHistory]:
        """Take the last message back, into the place to write."""
        user = self.user(request)
        with _show_errors(self.language):
            text = self.service.undo(user, id)
        return text, self.shown(user, id)

    def stop(self, id: str, request: gr.Request) -> Any:
        """She ends where she is, and falls silent."""
        with _show_errors(self.language):
            self.service.stop(self.user(request), id)
        return gr.Audio(value=None, visible=False)

    def speak(self, id: str, wanted: bool, speed: float, request: gr.Request) -> Any:
        """The newest reply as sound, when it is wanted; nothing when it was stopped."""
        user = self.user(request)
        with _show_errors(self.language):
            newest = self.service.get_messages(user, id)[-1]
            if not wanted or newest.role != "assistant" or newest.state != WHOLE:
                return gr.Audio(value=None, visible=False)
            self.service.set(user, id, speed=speed)
            pieces = [
                one.audio
                for one in start_speaking(self.site, user, id, newest.id).sound(SILENCE_TIMEOUT)
            ]
        if not pieces:
            return gr.Audio(value=None, visible=False)
        samples = np.frombuffer(b"".join(pcm.data for pcm in pieces), "<i2")
        return gr.Audio(value=(pieces[0].rate, samples), visible=True)

    def set(self, user: str, id: str, length: float, top_p: float, heat: float) -> None:
        """The sliders' values."""
        self.service.set(user, id, max_new_tokens=int(length), top_p=top_p, temperature=heat)

    def growing(self, user: str, id: str, reply: str) -> Iterator[ChatHistory]:
        """The conversation, again and again, until the reply has ended."""
        for _ in self.service.follow(user, id, reply):
            yield self.shown(user, id)
        yield self.shown(user, id)

    def shown(self, user: str, id: str) -> ChatHistory:
        """Every line as Gradio takes it: HTML escaped, markdown that loads nothing."""
        found = []
        for line in self.service.get_messages(user, id):
            text = html.escape(sanitize_reply(line.text), quote=False)
            if line.state in (FAILED, CUT):
                fault = in_language(line.fault or "", self.language)
                text += "\n\n" + html.escape(sanitize_reply(f"⚠ {fault}"), quote=False)
            found.append({"role": line.role, "content": text})
        return found


class _show_errors:
    """A fault inside is shown as a sentence."""

    def __init__(self, language: str) -> None:
        self.language = language

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ElysiaError):
            said = in_language(str(error), self.language)
            raise gr.Error(html.escape(said), print_exception=False) from None
