"""One message of a conversation: who wrote it, its text, and what can be done with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import streamlit as st

from elysia.chat.message_tree import ChatMessage, Conversation, MessageState
from elysia.chat.settings import ConversationSettings
from elysia.web.safe_markdown import escape_markdown, sanitize_reply
from elysia.web.streamlit import audio_player, breakdown_view
from elysia.web.streamlit.breakdown_view import explain_reason
from elysia.web.streamlit.context import AVATAR_SIZE, PageContext, read_widget, show_errors

CITATION = re.compile(r"\[(\d{1,2})\]|【(\d{1,2})】")
MAX_CACHED_BREAKDOWNS = 200  # of one visitor, in memory


def show_message(
    page: PageContext, conversation: Conversation, message: ChatMessage, *, busy: bool
) -> None:
    """A message; without buttons while a reply is being written (`busy`)."""
    is_reply = message.role == "assistant"
    character = page.get_character(message.speaker) if is_reply else None
    avatar = page.get_picture(character, AVATAR_SIZE) if character else ":material/person:"
    with (
        st.container(key=f"said_{message.role}_{message.id}", gap=None),
        st.chat_message("assistant" if is_reply else "user", avatar=avatar),
    ):
        if is_reply and len(conversation.guests) > 1:
            name = character.name if character else page.t("gone", name=message.speaker or "")
            reason = explain_reason(page, message)
            why = f" :small[:gray[{reason}]]" if reason else ""
            st.markdown(f"**{escape_markdown(name, 60)}** {why}")
        if st.session_state.get("editing") == message.id and not busy:
            _show_editor(page, conversation, message)
            return
        _show_text(page, conversation, message)
        _show_state(page, conversation, message, busy)
        if not busy and message.state != MessageState.WRITING:
            _show_actions(page, conversation, message)


def _show_text(page: PageContext, conversation: Conversation, message: ChatMessage) -> None:
    if message.role == "user":
        st.text(message.text)
    elif message.state == MessageState.WRITING:
        st.markdown(sanitize_reply(message.text) + " ▍" if message.text else page.t("thinking"))
    elif message.text:
        st.markdown(sanitize_reply(message.text))
        _show_citations(page, conversation, message)


def _show_citations(page: PageContext, conversation: Conversation, message: ChatMessage) -> None:
    """A button for each passage that the reply cites, which opens it."""
    cited = {int(match[0] or match[1]) for match in CITATION.findall(message.text)}
    if not cited or message.parent is None:
        return
    documents = get_breakdown(page, conversation, message).get("documents", ())
    passages = [item for item in documents if item["number"] in cited]
    if not passages:
        return
    with st.container(horizontal=True, gap="small", key=f"cites_{message.id}"):
        for item in passages:
            heading = f" · {item['heading']}" if item["heading"] else ""
            if st.button(
                escape_markdown(f"[{item['number']}] {item['name']}{heading}", 60),
                key=f"cite_{message.id}_{item['number']}",
                icon=":material/format_quote:",
            ):
                breakdown_view.show_source(page, str(message.speaker), item)


def _show_state(
    page: PageContext, conversation: Conversation, message: ChatMessage, busy: bool
) -> None:
    t = page.t
    notes = []
    if message.details.get("edited"):
        notes.append(t("edited"))
    if message.state == MessageState.STOPPED:
        notes.append(t("was_stopped"))
    if message.details.get("finish") == "length":
        notes.append(t("at_limit"))
    if notes:
        st.caption(" · ".join(notes))
    if message.state in (MessageState.FAILED, MessageState.CUT):
        fault = message.render_fault(page.language) or t("was_cut")
        st.error(escape_markdown(fault), icon=":material/cloud_off:")
        if not busy:
            st.button(
                t("try_again"), key=f"try_{message.id}", icon=":material/refresh:",
                on_click=_regenerate, args=(page, conversation.id, message.id),
            )  # fmt: skip


def _show_actions(page: PageContext, conversation: Conversation, message: ChatMessage) -> None:
    """A row of small buttons."""

    def button(
        name: str, icon: str, action: Callable[..., None], *more: Any, disabled: bool = False
    ) -> None:
        st.button(
            "", key=f"{name}_{message.id}", icon=f":material/{icon}:", type="tertiary",
            help=page.t(name), disabled=disabled, on_click=action,
            args=(page, conversation.id, message.id, *more),
        )  # fmt: skip

    is_reply = message.role == "assistant" and message.parent is not None
    with st.container(
        horizontal=True, gap="small", key=f"acts_{message.id}", vertical_alignment="center"
    ):
        count = len(message.siblings)
        if count > 1:
            place = message.siblings.index(message.id)
            button("before", "chevron_left", _swipe, -1, disabled=place == 0)
            st.markdown(f"{place + 1}/{count}", width="content")
            button("after", "chevron_right", _swipe, 1, disabled=place == count - 1)
        if is_reply:
            button("again", "refresh", _regenerate)
        button("edit", "edit", _edit)
        if is_reply and st.button(
            "", key=f"receipt_{message.id}", icon=":material/receipt_long:", type="tertiary",
            help=page.t("prompt_breakdown"),
        ):  # fmt: skip
            breakdown = get_breakdown(page, conversation, message)
            breakdown_view.show_breakdown(page, message, breakdown)
        has_voice = ConversationSettings.load(conversation.settings).voice
        if message.role == "assistant" and message.text and has_voice:
            button("listen", "volume_up", _listen)
        button("delete", "delete", _delete)


def _show_editor(page: PageContext, conversation: Conversation, message: ChatMessage) -> None:
    t = page.t
    st.text_area(
        t("edit"), message.text, key=f"words_{message.id}", label_visibility="collapsed",
        height="content",
    )  # fmt: skip
    with st.container(horizontal=True, gap="small"):
        st.button(
            t("save"), key="save_edit", type="primary", on_click=_save,
            args=(page, conversation.id, message.id),
        )  # fmt: skip
        st.button(
            t("cancel"), key="cancel_edit", on_click=_edit, args=(page, conversation.id, None)
        )


def get_breakdown(
    page: PageContext, conversation: Conversation, message: ChatMessage
) -> dict[str, Any]:
    """A reply's prompt breakdown. Once stored it does not change any more, and is read once."""
    cache: dict[str, dict[str, Any]] = st.session_state.setdefault("receipts", {})
    if breakdown := cache.get(message.id):
        return breakdown
    breakdown = page.service.get_prompt_breakdown(page.user, conversation.id, message.id)
    if breakdown:
        while len(cache) >= MAX_CACHED_BREAKDOWNS:
            cache.pop(next(iter(cache)))
        cache[message.id] = breakdown
    return breakdown


def _regenerate(page: PageContext, id: str, message: str) -> None:
    with show_errors():
        audio_player.start_playing(id, page.service.regenerate(page.user, id, message))


def _swipe(page: PageContext, id: str, message: str, step: int) -> None:
    with show_errors():
        page.service.swipe(page.user, id, message, step)


def _delete(page: PageContext, id: str, message: str) -> None:
    with show_errors():
        page.service.delete_message(page.user, id, message)


def _listen(page: PageContext, id: str, message: str) -> None:
    audio_player.start_playing(id, message, alone=True)


def _edit(page: PageContext, id: str, message: str | None) -> None:
    st.session_state["editing"] = message


def _save(page: PageContext, id: str, message: str) -> None:
    text = str(read_widget(f"words_{message}") or "")
    with show_errors():
        reply = page.service.edit(page.user, id, message, text)
        if reply is not None:
            audio_player.start_playing(id, reply)
    st.session_state["editing"] = None
