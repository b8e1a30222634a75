"""A conversation on the page: its messages, what is being written, and the input.

Replies belong to the service: the page only looks at them, and closing it harms none.
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
    read_asset,
    read_widget,
    set_notice,
    show_errors,
)

REFRESH_INTERVAL = 0.2  # seconds between looks at a reply that grows
# Newest messages that are shown: each has buttons, and a page of hundreds is slow.
SHOWN_MESSAGES, MORE_MESSAGES = 24, 60
MAX_INPUT_LENGTH = 20_000  # characters
MAX_TITLE_LENGTH = 36
VIEWS = {  # name: (key of its label, icon)
    "talk": ("view_talk", ":material/chat_bubble:"),
    "memory": ("view_memory", ":material/psychology:"),
    "documents": ("view_documents", ":material/menu_book:"),
    "settings": ("view_settings", ":material/tune:"),
}


def show_conversation(page: PageContext, id: str) -> None:
    """The conversation, in the view that is chosen at its head."""
    try:
        conversation = page.service.store.get(page.user, id)
    except StoreError:
        st.info(page.t("gone_talk"))
        return
    view = _show_header(page, conversation)
    if view == "memory":
        memory_view.show_memories(page, conversation)
    elif view == "documents":
        documents_view.show_documents(page, conversation)
    elif view == "settings":
        settings_view.show_settings(page, conversation)
    else:
        _show_messages(page, conversation)


def _show_header(page: PageContext, conversation: Conversation) -> str:
    t = page.t
    entries = (page.get_character(key) for key in conversation.guests)
    characters = [character for character in entries if character]
    with st.container(horizontal=True, vertical_alignment="center", key="head", gap="small"):
        for character in characters[:4]:
            st.image(page.get_picture(character, AVATAR_SIZE), width=44, alt=character.name)
        st.markdown(f"#### {escape_markdown(conversation.title, MAX_TITLE_LENGTH)}")
    with st.container(
        horizontal=True, vertical_alignment="center", key="head_views",
        horizontal_alignment="distribute",
    ):  # fmt: skip
        view = st.segmented_control(
            t("view_talk"), list(VIEWS), default="talk", key=f"view_{conversation.id}",
            required=True, label_visibility="collapsed",
            format_func=lambda name: f"{VIEWS[name][1]} {t(VIEWS[name][0])}",
        )  # fmt: skip
        with st.popover(
            "", icon=":material/more_horiz:", type="tertiary", help=t("more"), key="menu"
        ):
            _show_menu(page, conversation)
    return str(view or "talk")


def _show_menu(page: PageContext, conversation: Conversation) -> None:
    t, id = page.t, conversation.id
    key = f"title_{id}"
    st.session_state[key] = (
        conversation.title
    )  # the first message of a conversation changes it, too
    st.text_input(t("name_of_talk"), key=key, max_chars=60, on_change=_rename, args=(page, id))
    st.button(
        t("undo"), key="undo", icon=":material/undo:", type="tertiary", on_click=_undo,
        args=(page, id),
    )  # fmt: skip
    st.download_button(
        t("export"), lambda: export_conversation(page.service, page.user, id), f"{id}.jsonl",
        "application/jsonl", icon=":material/download:", type="tertiary", key="export",
        on_click="ignore",
    )  # fmt: skip
    st.divider()
    st.caption(t("delete_talk_help"))
    st.button(
        t("delete_talk"), key="delete_talk", icon=":material/delete_forever:",
        on_click=_delete_conversation, args=(page, id),
    )  # fmt: skip


def _show_messages(page: PageContext, conversation: Conversation) -> None:
    t, service, id = page.t, page.service, conversation.id
    busy = service.is_busy(page.user, id)  # first: then what is idle has whole messages
    messages = service.get_messages(page.user, id)
    end = len(messages) if not busy else _find_first_new(messages)
    limit = st.session_state.get("more_lines", SHOWN_MESSAGES)
    if end > limit:
        st.button(
            t("earlier", count=min(MORE_MESSAGES, end - limit)), key="earlier", type="tertiary",
            icon=":material/expand_less:", on_click=_show_earlier, args=(limit + MORE_MESSAGES,),
        )  # fmt: skip
    for message in messages[max(0, end - limit) : end]:
        message_view.show_message(page, conversation, message, busy=busy)
    if busy:
        show_growing = st.fragment(_show_growing_replies, run_every=REFRESH_INTERVAL)
        show_growing(page, conversation, end, len(messages))
    with st.bottom:
        if busy:
            st.button(
                t("stop"),
                key="stop",
                icon=":material/stop_circle:",
                on_click=_stop,
                args=(page, id),
            )
        st.chat_input(
            t("say"), key=f"say_{id}", max_chars=MAX_INPUT_LENGTH, on_submit=_send, args=(page, id)
        )
    follow_newest(f"{id} {len(messages)}", busy)
    settings = ConversationSettings.load(conversation.settings)
    if settings.voice:
        preload_voices(page.state, page.user, conversation.guests, settings)
        audio_player.show_player(page, id, messages)


def _find_first_new(messages: Sequence[ChatMessage]) -> int:
    """Where the replies of the turn under way begin: behind the user's newest message."""
    numbers = [number for number, message in enumerate(messages) if message.role == "user"]
    return numbers[-1] + 1 if numbers else 0


def _show_growing_replies(
    page: PageContext, conversation: Conversation, first: int, count: int
) -> None:
    """The replies being written, from message `first` on. Streamlit calls this again and again; when they
    have ended, or there are others than `count` messages, the whole page is drawn anew.
    """
    try:
        busy = page.service.is_busy(page.user, conversation.id)
        messages = page.service.get_messages(page.user, conversation.id)
    except ElysiaError:  # deleted meanwhile, in another window
        st.rerun()
    for message in messages[first:]:
        message_view.show_message(page, conversation, message, busy=True)
    if not busy or len(messages) != count:
        st.rerun()


def _show_earlier(count: int) -> None:
    st.session_state["more_lines"] = count


def _send(page: PageContext, id: str) -> None:
    # In the callback and not at the end of a run, which the next click would end before that.
    if text := read_widget(f"say_{id}"):
        with show_errors():
            audio_player.start_playing(id, page.service.send(page.user, id, str(text)))


def _stop(page: PageContext, id: str) -> None:
    with show_errors():
        page.service.stop(page.user, id)
    audio_player.stop_playing()


def _undo(page: PageContext, id: str) -> None:
    with show_errors():
        set_notice(page.t("undone", text=page.service.undo(page.user, id)))
    audio_player.stop_playing()


def _rename(page: PageContext, id: str) -> None:
    with show_errors():
        title = str(read_widget(f"title_{id}") or "")
        page.service.store.update(page.user, id, title=title)


def _delete_conversation(page: PageContext, id: str) -> None:
    with show_errors():
        page.service.delete_conversation(page.user, id)
        open_conversation(None)
    audio_player.stop_playing()


def follow_newest(version: str, busy: bool) -> None:
    """Scroll to the end when `version` is another than before, and stay there while a reply grows, unless
    the user has scrolled up to read.
    """
    component = st.components.v2.component(
        "elysia_scroll", html="<span></span>", js=read_asset("scroll.js")
    )
    with st.container(key="scroll"):
        component(data={"version": version, "busy": busy}, key="scroller", height=1)
