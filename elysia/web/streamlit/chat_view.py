"""A conversation on the page: its lines, what is being written, the place to write.

Replies belong to the service: the page only looks at them, and a look that ends harms none. Knows
nothing of how a line is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from elysia.chat.message_tree import ChatMessage, Conversation
from elysia.chat.settings import ConversationSettings
from elysia.chat.transcript import export_conversation
from elysia.core.errors import ElysiaError, StoreError
from elysia.web.reply_audio import preload_voices
from elysia.web.safe_markdown import escape_markdown
from elysia.web.streamlit import (
    audio_player,
    documents_view,
    memory_view,
    message_view,
    settings_view,
)
from elysia.web.streamlit.context import (
    AVATAR_SIZE,
    PageContext,
    open_conversation,
    read_widget,
    set_notice,
    show_errors,
)

REFRESH_INTERVAL = 0.2  # seconds between looks at a reply that grows
SHOWN_MESSAGES, MORE_MESSAGES = (
    24,
    60,
)  # newest lines; each has buttons, and a page of hundreds is slow
MAX_INPUT_LENGTH = 20_000  # characters in the place to write
MAX_TITLE_LENGTH = 36
VIEWS = ("talk", "memory", "documents", "settings")
ICONS = {
    "talk": ":material/chat_bubble:", "memory": ":material/psychology:",
    "documents": ":material/menu_book:", "settings": ":material/tune:",
}  # fmt: skip


def show_conversation(visit: PageContext, id: str) -> None:
    """The conversation, or what else is to be seen of it."""
    try:
        talk = visit.service.store.get(visit.user, id)
    except StoreError:
        st.info(visit.say("gone_talk"))
        return
    view = _show_header(visit, talk)
    if view == "memory":
        memory_view.show_memories(visit, talk)
    elif view == "documents":
        documents_view.show_documents(visit, talk)
    elif view == "settings":
        settings_view.show_settings(visit, talk)
    else:
        _show_messages(visit, talk)


def _show_header(visit: PageContext, talk: Conversation) -> str:
    say = visit.say
    members = [member for key in talk.guests if (member := visit.member(key))]
    with st.container(horizontal=True, vertical_alignment="center", key="head", gap="small"):
        for member in members[:4]:
            st.image(visit.picture(member, AVATAR_SIZE), width=44, alt=member.name)
        st.markdown(f"#### {escape_markdown(talk.title, MAX_TITLE_LENGTH)}")
    with st.container(
        horizontal=True,
        vertical_alignment="center",
        key="head_views",
        horizontal_alignment="distribute",
    ):
        view = st.segmented_control(
            say("view_talk"), VIEWS, default="talk", key=f"view_{talk.id}", required=True,
            format_func=lambda name: f"{ICONS[name]} {say('view_' + name)}",
            label_visibility="collapsed",
        )  # fmt: skip
        with st.popover(
            "", icon=":material/more_horiz:", type="tertiary", help=say("more"), key="menu"
        ):
            _show_menu(visit, talk)
    return str(view or "talk")


def _show_menu(visit: PageContext, talk: Conversation) -> None:
    say = visit.say
    key = f"title_{talk.id}"
    st.session_state[key] = talk.title  # it changes by itself, too: with the first message
    st.text_input(
        say("name_of_talk"), key=key, max_chars=60, on_change=_rename, args=(visit, talk.id)
    )
    st.button(
        say("undo"),
        key="undo",
        icon=":material/undo:",
        type="tertiary",
        on_click=_undo,
        args=(visit, talk.id),
    )
    st.download_button(
        say("export"), lambda: export_conversation(visit.service, visit.user, talk.id), f"{talk.id}.jsonl",
        "application/jsonl", icon=":material/download:", type="tertiary", key="export", on_click="ignore",
    )  # fmt: skip
    st.divider()
    st.caption(say("delete_talk_help"))
    st.button(
        say("delete_talk"), key="delete_talk", icon=":material/delete_forever:",
        on_click=_delete_conversation, args=(visit, talk.id),
    )  # fmt: skip


def _show_messages(visit: PageContext, talk: Conversation) -> None:
    say, service = visit.say, visit.service
    busy = service.is_busy(visit.user, talk.id)  # first: what is idle now has whole lines
    shown = service.get_messages(visit.user, talk.id)
    tail = len(shown) if not busy else _find_first_new(shown)
    most = st.session_state.get("more_lines", SHOWN_MESSAGES)
    if tail > most:
        st.button(
            say("earlier", count=min(MORE_MESSAGES, tail - most)), key="earlier", type="tertiary",
            icon=":material/expand_less:", on_click=_show_earlier, args=(most + MORE_MESSAGES,),
        )  # fmt: skip
    for number, line in enumerate(shown[max(0, tail - most) : tail], max(0, tail - most)):
        message_view.show_message(visit, talk, line, newest=number == len(shown) - 1, busy=busy)
    if busy:
        st.fragment(_show_growing_reply, run_every=REFRESH_INTERVAL)(visit, talk, tail, len(shown))
    with st.bottom:
        if busy:
            st.button(
                say("stop"),
                key="stop",
                icon=":material/stop_circle:",
                on_click=_stop,
                args=(visit, talk.id),
            )
        st.chat_input(
            say("say"),
            key=f"say_{talk.id}",
            max_chars=MAX_INPUT_LENGTH,
            on_submit=_send,
            args=(visit, talk.id),
        )
    follow_newest(f"{talk.id} {len(shown)}", busy)
    chosen = ConversationSettings.of(talk.settings)
    if chosen.voice:
        preload_voices(visit.site, visit.user, talk.guests, chosen)
        audio_player.show_player(visit, talk.id, shown)


def _find_first_new(shown: Sequence[ChatMessage]) -> int:
    """Where the lines begin that the round adds: behind the user's newest message."""
    said = [number for number, line in enumerate(shown) if line.role == "user"]
    return said[-1] + 1 if said else 0


def _show_growing_reply(visit: PageContext, talk: Conversation, tail: int, count: int) -> None:
    """What is being written. Looked at again and again; when it has ended, the page is drawn anew."""
    try:
        busy = visit.service.is_busy(visit.user, talk.id)
        shown = visit.service.get_messages(visit.user, talk.id)
    except ElysiaError:  # deleted meanwhile, in another window
        st.rerun()
    for line in shown[tail:]:
        message_view.show_message(visit, talk, line, newest=False, busy=True)
    if not busy or len(shown) != count:
        st.rerun()


def _show_earlier(count: int) -> None:
    st.session_state["more_lines"] = count


def _send(visit: PageContext, id: str) -> None:
    # Here and not at the end of a run, which the next click would end before it came so far.
    if text := read_widget(f"say_{id}"):
        with show_errors():
            audio_player.start_playing(id, visit.service.send(visit.user, id, str(text)))


def _stop(visit: PageContext, id: str) -> None:
    with show_errors():
        visit.service.stop(visit.user, id)
    audio_player.stop_playing()


def _undo(visit: PageContext, id: str) -> None:
    with show_errors():
        set_notice(visit.say("undone", text=visit.service.undo(visit.user, id)))
    audio_player.stop_playing()


def _rename(visit: PageContext, id: str) -> None:
    with show_errors():
        title = str(read_widget(f"title_{id}") or "")
        visit.service.store.change(visit.user, id, title=title)


def _delete_conversation(visit: PageContext, id: str) -> None:
    with show_errors():
        visit.service.remove(visit.user, id)
        open_conversation(None)
    audio_player.stop_playing()


_SCROLL_SCRIPT = """
export default function ({ data, parentElement }) {
  const last = () => [...document.querySelectorAll('[data-testid="stChatMessage"]')].at(-1);
  const show = () => last()?.scrollIntoView({ block: "end" });
  const near = () => (last()?.getBoundingClientRect().bottom ?? 0) < window.innerHeight + 260;
  if (parentElement.elysia !== data.seen) {
    parentElement.elysia = data.seen;
    for (const wait of [0, 200, 600]) setTimeout(show, wait);
  }
  if (!data.busy) return;
  const watch = setInterval(() => near() && show(), 250);
  return () => clearInterval(watch);
}
"""


def follow_newest(seen: str, busy: bool) -> None:
    """Go to the end when `seen` is another than before; stay there while somebody writes."""
    component = st.components.v2.component("elysia_scroll", html="<span></span>", js=_SCROLL_SCRIPT)
    with st.container(key="scroll"):
        component(data={"seen": seen, "busy": busy}, key="scroller", height=1)
