"""One line of a conversation: who said it, what, and what can be done with it.

Knows nothing of how a reply is made.
"""

from __future__ import annotations

import re
from typing import Any

import streamlit as st

from elysia.chat.message_tree import CUT, FAILED, STOPPED, WRITING, ChatMessage, Conversation
from elysia.chat.settings import ConversationSettings
from elysia.web.i18n import in_language
from elysia.web.safe_markdown import escape_markdown, sanitize_reply
from elysia.web.streamlit import audio_player, breakdown_view
from elysia.web.streamlit.breakdown_view import explain_reason
from elysia.web.streamlit.context import AVATAR_SIZE, PageContext, read_widget, show_errors

CITATION = re.compile(r"\[(\d{1,2})\]|【(\d{1,2})】")
MAX_CACHED_BREAKDOWNS = 200  # of one visitor, in memory


def show_message(
    visit: PageContext, talk: Conversation, line: ChatMessage, *, newest: bool, busy: bool
) -> None:
    """A line; without buttons while somebody writes."""
    member = visit.member(line.speaker) if line.role == "assistant" else None
    avatar = visit.picture(member, AVATAR_SIZE) if member else ":material/person:"
    with (
        st.container(key=f"said_{line.role}_{line.id}", gap=None),
        st.chat_message("user" if line.role == "user" else "assistant", avatar=avatar),
    ):
        if line.role == "assistant" and len(talk.guests) > 1:
            name = member.name if member else visit.say("gone", name=line.speaker or "")
            why = (
                f" :small[:gray[{explain_reason(visit, line)}]]"
                if line.details.get("reason")
                else ""
            )
            st.markdown(f"**{escape_markdown(name, 60)}** {why}")
        if st.session_state.get("editing") == line.id and not busy:
            _show_editor(visit, talk, line)
            return
        _show_text(visit, talk, line)
        _show_state(visit, talk, line, busy)
        if not busy and line.state != WRITING:
            _show_actions(visit, talk, line, newest)


def _show_text(visit: PageContext, talk: Conversation, line: ChatMessage) -> None:
    if line.role == "user":
        st.text(line.text)
    elif line.state == WRITING:
        st.markdown(sanitize_reply(line.text) + " ▍" if line.text else visit.say("thinking"))
    elif line.text:
        st.markdown(sanitize_reply(line.text))
        _show_citations(visit, talk, line)


def _show_citations(visit: PageContext, talk: Conversation, line: ChatMessage) -> None:
    """The sources that the reply cites, each a way to its words."""
    cited = {int(hit[0] or hit[1]) for hit in CITATION.findall(line.text)}
    if not cited or line.parent is None:
        return
    found = [
        one
        for one in get_breakdown(visit, talk, line).get("documents", ())
        if one["number"] in cited
    ]
    if not found:
        return
    with st.container(horizontal=True, gap="small", key=f"cites_{line.id}"):
        for one in found:
            label = f"[{one['number']}] {one['name']}" + (
                f" · {one['heading']}" if one["heading"] else ""
            )
            if st.button(
                escape_markdown(label, 60),
                key=f"cite_{line.id}_{one['number']}",
                icon=":material/format_quote:",
            ):
                breakdown_view.show_source(visit, str(line.speaker), one)


def _show_state(visit: PageContext, talk: Conversation, line: ChatMessage, busy: bool) -> None:
    say = visit.say
    notes = []
    if line.details.get("edited"):
        notes.append(say("edited"))
    if line.state == STOPPED:
        notes.append(say("was_stopped"))
    if line.details.get("finish") == "length":
        notes.append(say("at_limit"))
    if notes:
        st.caption(" · ".join(notes))
    if line.state in (FAILED, CUT):
        fault = in_language(line.fault or say("was_cut"), visit.language)
        st.error(escape_markdown(fault), icon=":material/cloud_off:")
        if not busy:
            st.button(
                say("try_again"), key=f"try_{line.id}", icon=":material/refresh:",
                on_click=_regenerate, args=(visit, talk.id, line.id),
            )  # fmt: skip


def _show_actions(visit: PageContext, talk: Conversation, line: ChatMessage, newest: bool) -> None:
    """A row of small buttons."""
    say, reply = visit.say, line.role == "assistant" and line.parent is not None
    with st.container(
        horizontal=True, gap="small", key=f"acts_{line.id}", vertical_alignment="center"
    ):
        if len(line.siblings) > 1:
            place = line.siblings.index(line.id)
            _action_button(
                "before", "chevron_left", visit, talk, line, _swipe, -1, disabled=place == 0
            )
            st.markdown(f"{place + 1}/{len(line.siblings)}", width="content")
            last = place == len(line.siblings) - 1
            _action_button("after", "chevron_right", visit, talk, line, _swipe, 1, disabled=last)
        if reply:
            _action_button("again", "refresh", visit, talk, line, _regenerate)
        _action_button("edit", "edit", visit, talk, line, _edit)
        if reply and st.button(
            "",
            key=f"receipt_{line.id}",
            icon=":material/receipt_long:",
            type="tertiary",
            help=say("receipt"),
        ):
            breakdown_view.show_breakdown(visit, talk, line, get_breakdown(visit, talk, line))
        if line.role == "assistant" and line.text and ConversationSettings.of(talk.settings).voice:
            _action_button("listen", "volume_up", visit, talk, line, _listen)
        _action_button("delete", "delete", visit, talk, line, _delete)


def _action_button(
    name: str,
    icon: str,
    visit: PageContext,
    talk: Conversation,
    line: ChatMessage,
    act: Any,
    *more: Any,
    disabled: bool = False,
) -> None:
    st.button(
        "", key=f"{name}_{line.id}", icon=f":material/{icon}:", type="tertiary",
        help=visit.say(name), disabled=disabled, on_click=act, args=(visit, talk.id, line.id, *more),
    )  # fmt: skip


def _show_editor(visit: PageContext, talk: Conversation, line: ChatMessage) -> None:
    say = visit.say
    st.text_area(
        say("edit"),
        line.text,
        key=f"words_{line.id}",
        label_visibility="collapsed",
        height="content",
    )
    with st.container(horizontal=True, gap="small"):
        st.button(
            say("save"),
            key="save_edit",
            type="primary",
            on_click=_save,
            args=(visit, talk.id, line.id),
        )
        st.button(say("cancel"), key="cancel_edit", on_click=_edit, args=(visit, talk.id, None))


def get_breakdown(visit: PageContext, talk: Conversation, line: ChatMessage) -> dict[str, Any]:
    """A reply's receipt; once it is there it does not change any more, and is read once."""
    kept: dict[str, dict[str, Any]] = st.session_state.setdefault("receipts", {})
    if found := kept.get(line.id):
        return found
    found = visit.service.get_prompt_breakdown(visit.user, talk.id, line.id)
    if found:
        while len(kept) >= MAX_CACHED_BREAKDOWNS:
            kept.pop(next(iter(kept)))
        kept[line.id] = found
    return found


def _regenerate(visit: PageContext, id: str, line: str) -> None:
    with show_errors():
        audio_player.start_playing(id, visit.service.regenerate(visit.user, id, line))


def _swipe(visit: PageContext, id: str, line: str, step: int) -> None:
    with show_errors():
        visit.service.swipe(visit.user, id, line, step)


def _delete(visit: PageContext, id: str, line: str) -> None:
    with show_errors():
        visit.service.delete(visit.user, id, line)


def _listen(visit: PageContext, id: str, line: str) -> None:
    audio_player.start_playing(id, line, alone=True)


def _edit(visit: PageContext, id: str, line: str | None) -> None:
    st.session_state["editing"] = line


def _save(visit: PageContext, id: str, line: str) -> None:
    text = str(read_widget(f"words_{line}") or "")
    with show_errors():
        reply = visit.service.edit(visit.user, id, line, text)
        if reply is not None:
            audio_player.start_playing(id, reply)
    st.session_state["editing"] = None
