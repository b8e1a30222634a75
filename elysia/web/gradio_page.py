"""The Gradio page over the same chat service: one character at a time, retry, undo, clear, sliders.

A conversation belongs to its session of the page; replies are still written by the service when the page
is closed.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
import numpy as np

from elysia.chat.message_tree import MessageState
from elysia.chat.settings import PRESETS
from elysia.core.errors import ElysiaError, UsageError
from elysia.web.app_state import AppState
from elysia.web.auth import AccessMode, refuse_open_access
from elysia.web.i18n import get_translator
from elysia.web.reply_audio import SILENCE_TIMEOUT, start_speaking
from elysia.web.safe_markdown import sanitize_reply

ChatHistory = list[dict[str, str]]
HOST, PORT = "127.0.0.1", 7860
NO_ANALYTICS = "GRADIO_ANALYTICS_ENABLED"


def launch(state: AppState, *, wait: bool = True) -> str:
    """Serve the page at GRADIO_SERVER_NAME and GRADIO_SERVER_PORT; its URL. UsageError when it would
    be open to strangers by accident.
    """
    host = os.environ.get("GRADIO_SERVER_NAME", HOST)
    refuse_open_access(state.access, host)
    if state.access == AccessMode.OPENID:
        raise UsageError("web.no_openid_in_gradio")
    _, url, _ = build_page(state).launch(
        server_name=host, server_port=int(os.environ.get("GRADIO_SERVER_PORT", PORT)), share=False,
        auth=_build_auth(state) if state.access == AccessMode.PASSWORD else None,
        prevent_thread_lock=not wait, footer_links=[], quiet=not wait, max_file_size="1mb",
        ssr_mode=False, theme=gr.themes.Soft(primary_hue="pink", secondary_hue="pink"),
    )  # fmt: skip
    return str(url)


def build_page(state: AppState, language: str | None = None) -> gr.Blocks:
    """The page. `language` is zh or en; by default that of LANG."""
    os.environ.setdefault(NO_ANALYTICS, "False")
    default = "zh" if os.environ.get("LANG", "").startswith("zh") else "en"
    return _GradioPage(state, language or default).build()


def _build_auth(state: AppState) -> Any:
    """Gradio's own login, with the same limit to guessing."""

    def is_allowed(name: str, password: str) -> bool:
        try:
            return state.auth.log_in(name, password) is not None
        except UsageError:
            return False

    return is_allowed


class _GradioPage:
    """The page's components and their functions; a session's conversation id is the only state."""

    def __init__(self, state: AppState, language: str) -> None:
        self.state, self.service = state, state.service
        self.language, self.t = language, get_translator(language)

    def build(self) -> gr.Blocks:
        page: gr.Blocks
        with gr.Blocks(
            title=self.t("title"), analytics_enabled=False, fill_height=True,
            delete_cache=(600, 3600),
        ) as page:  # fmt: skip
            conversation = gr.State("")
            with gr.Row():
                with gr.Column(scale=1, min_width=220):
                    character, *sliders, voice, speed = self._add_settings()
                with gr.Column(scale=4):
                    chat, text, audio, *buttons = self._add_chat()
            stop, again, undo, clear = buttons
            # Not part of the public API: every call needs a session of the page.
            options: dict[str, Any] = {"api_visibility": "private"}
            page.load(self.open, None, [character, conversation, chat], **options)
            character.input(self.begin, character, [conversation, chat], **options)
            clear.click(self.begin, character, [conversation, chat], **options)
            answered = text.submit(
                self.answer, [conversation, text, *sliders], [text, chat], **options
            )
            retried = again.click(self.retry, [conversation, *sliders], chat, **options)
            for event in (answered, retried):
                event.then(self.speak, [conversation, voice, speed], audio, **options)
            undo.click(self.undo, conversation, [text, chat], **options)
            stop.click(self.stop, conversation, audio, queue=False, **options)
        return page

    def _add_settings(self) -> list[Any]:
        """The character, three sliders of the sampling, the voice and its speed."""
        t, preset = self.t, PRESETS["balanced"]
        return [
            gr.Dropdown([], label=t("table"), interactive=True),
            gr.Slider(8, 4096, preset["max_new_tokens"], step=8, label=t("max_length")),
            gr.Slider(0.01, 1, preset["top_p"], step=0.01, label=t("top_p")),
            gr.Slider(0, 2, preset["temperature"], step=0.01, label=t("temperature")),
            gr.Checkbox(False, label=t("voice_on")),
            gr.Slider(0.5, 2, 1, step=0.05, label=t("speed")),
        ]

    def _add_chat(self) -> list[Any]:
        """The history, the input, the audio, and the buttons stop, again, undo, clear."""
        chat = gr.Chatbot(
            show_label=False, height="70vh", latex_delimiters=[], allow_tags=False,
            feedback_options=None, buttons=["copy"], layout="bubble",
        )  # fmt: skip
        text = gr.Textbox(
            placeholder=self.t("say"), show_label=False, lines=1, max_lines=6, submit_btn=True,
            max_length=20_000, autofocus=True,
        )  # fmt: skip
        audio = gr.Audio(
            autoplay=True, visible=False, show_label=False, interactive=False, buttons=[]
        )
        with gr.Row():
            buttons = [gr.Button(self.t(key)) for key in ("stop", "again", "undo", "new_talk")]
        return [chat, text, audio, *buttons]

    def get_user(self, request: gr.Request) -> str:
        """The id of who is logged in; the local user's without a login."""
        if self.state.access == AccessMode.PASSWORD:
            return self.state.accounts.get_or_create(str(request.username)).id
        return self.state.accounts.local().id

    def open(self, request: gr.Request) -> tuple[Any, str, ChatHistory]:
        """A new session: all characters to choose from, and a conversation with the first."""
        characters = self.service.characters.all(self.get_user(request))
        first = next((entry for entry in characters if entry.key == "elysia"), characters[0])
        choices = [(entry.name, entry.key) for entry in characters]
        return gr.Dropdown(choices=choices, value=first.key), *self.begin(first.key, request)

    def begin(self, character: str, request: gr.Request) -> tuple[str, ChatHistory]:
        """A new conversation. The previous one stays, and the Streamlit page lists it."""
        user = self.get_user(request)
        with _show_errors(self.language):
            id = self.service.create(user, [character]).id
        return id, self.build_history(user, id)

    def answer(
        self,
        id: str,
        text: str,
        max_length: float,
        top_p: float,
        temperature: float,
        request: gr.Request,
    ) -> Iterator[tuple[str, ChatHistory]]:
        """Send a message, and show the reply as it grows."""
        user = self.get_user(request)
        with _show_errors(self.language):
            self.save_sampling(user, id, max_length, top_p, temperature)
            reply = self.service.send(user, id, text)
        for history in self.follow(user, id, reply):
            yield "", history

    def retry(
        self, id: str, max_length: float, top_p: float, temperature: float, request: gr.Request
    ) -> Iterator[ChatHistory]:
        """Regenerate the last reply; the previous one stays as a branch."""
        user = self.get_user(request)
        with _show_errors(self.language):
            self.save_sampling(user, id, max_length, top_p, temperature)
            newest = self.service.get_messages(user, id)[-1]
            reply = self.service.regenerate(user, id, newest.id)
        yield from self.follow(user, id, reply)

    def undo(self, id: str, request: gr.Request) -> tuple[str, ChatHistory]:
        """Take the last message back, into the input."""
        user = self.get_user(request)
        with _show_errors(self.language):
            text = self.service.undo(user, id)
        return text, self.build_history(user, id)

    def stop(self, id: str, request: gr.Request) -> Any:
        """Stop the reply and its audio."""
        with _show_errors(self.language):
            self.service.stop(self.get_user(request), id)
        return gr.Audio(value=None, visible=False)

    def speak(self, id: str, voice: bool, speed: float, request: gr.Request) -> Any:
        """The newest reply as audio, where the voice is on; nothing for one that was stopped."""
        user = self.get_user(request)
        chunks = []
        with _show_errors(self.language):
            newest = self.service.get_messages(user, id)[-1]
            is_complete = newest.role == "assistant" and newest.state == MessageState.COMPLETE
            if voice and is_complete:
                self.service.update_settings(user, id, speed=speed)
                speech = start_speaking(self.state, user, id, newest.id)
                chunks = [spoken.audio for spoken in speech.sound(SILENCE_TIMEOUT)]
        if not chunks:
            return gr.Audio(value=None, visible=False)
        samples = np.frombuffer(b"".join(chunk.data for chunk in chunks), "<i2")
        return gr.Audio(value=(chunks[0].rate, samples), visible=True)

    def save_sampling(
        self, user: str, id: str, max_length: float, top_p: float, temperature: float
    ) -> None:
        """Store the sliders' values."""
        values = {"max_new_tokens": int(max_length), "top_p": top_p, "temperature": temperature}
        self.service.update_settings(user, id, **values)

    def follow(self, user: str, id: str, reply: str) -> Iterator[ChatHistory]:
        """The history, again and again, until the reply has ended."""
        for _ in self.service.follow(user, id, reply):
            yield self.build_history(user, id)
        yield self.build_history(user, id)

    def build_history(self, user: str, id: str) -> ChatHistory:
        """Every message as Gradio takes it: HTML escaped, markdown that loads nothing."""
        history = []
        for message in self.service.get_messages(user, id):
            text = html.escape(sanitize_reply(message.text), quote=False)
            if message.state in (MessageState.FAILED, MessageState.CUT):
                fault = f"⚠ {message.render_fault(self.language)}"
                text += "\n\n" + html.escape(sanitize_reply(fault), quote=False)
            history.append({"role": message.role, "content": text})
        return history


@contextmanager
def _show_errors(language: str) -> Iterator[None]:
    """Show an ElysiaError of the block on the page."""
    try:
        yield
    except ElysiaError as error:
        text = html.escape(error.render(language))
        raise gr.Error(text, print_exception=False) from None
