"""One line of a conversation: who said it, what, and what can be done with it.

Knows nothing of how a reply is made.
"""

from __future__ import annotations

import re
from typing import Any

import streamlit as st

from elysia.chat.talk_settings import TalkSettings
from elysia.chat.tree import CUT, FAILED, STOPPED, WRITING, Conversation, Line
from elysia.web.page import player, receipts
from elysia.web.page.reasons import because
from elysia.web.page.visit import AVATAR, Visit, held, told
from elysia.web.sentences import in_language
from elysia.web.text import plain, reply_markdown

CITATION = re.compile(r"\[(\d{1,2})\]|【(\d{1,2})】")
KEPT_RECEIPTS = 200  # of one visitor, in memory


def show(visit: Visit, talk: Conversation, line: Line, *, newest: bool, busy: bool) -> None:
    """A line; without buttons while somebody writes."""
    member = visit.member(line.speaker) if line.role == "assistant" else None
    avatar = visit.picture(member, AVATAR) if member else ":material/person:"
    with (
        st.container(key=f"said_{line.role}_{line.id}", gap=None),
        st.chat_message("user" if line.role == "user" else "assistant", avatar=avatar),
    ):
        if line.role == "assistant" and len(talk.guests) > 1:
            name = member.name if member else visit.say("gone", name=line.speaker or "")
            why = f" :small[:gray[{because(visit, line)}]]" if line.details.get("reason") else ""
            st.markdown(f"**{plain(name, 60)}** {why}")
        if st.session_state.get("editing") == line.id and not busy:
            _editing(visit, talk, line)
            return
        _text(visit, talk, line)
        _end(visit, talk, line, busy)
        if not busy and line.state != WRITING:
            _acts(visit, talk, line, newest)


def _text(visit: Visit, talk: Conversation, line: Line) -> None:
    if line.role == "user":
        st.text(line.text)
    elif line.state == WRITING:
        st.markdown(reply_markdown(line.text) + " ▍" if line.text else visit.say("thinking"))
    elif line.text:
        st.markdown(reply_markdown(line.text))
        _citations(visit, talk, line)


def _citations(visit: Visit, talk: Conversation, line: Line) -> None:
    """The sources that the reply cites, each a way to its words."""
    cited = {int(hit[0] or hit[1]) for hit in CITATION.findall(line.text)}
    if not cited or line.parent is None:
        return
    found = [
        one
        for one in kept_receipt(visit, talk, line).get("documents", ())
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
                plain(label, 60),
                key=f"cite_{line.id}_{one['number']}",
                icon=":material/format_quote:",
            ):
                receipts.source(visit, str(line.speaker), one)


def _end(visit: Visit, talk: Conversation, line: Line, busy: bool) -> None:
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
        st.error(plain(fault), icon=":material/cloud_off:")
        if not busy:
            st.button(
                say("try_again"), key=f"try_{line.id}", icon=":material/refresh:",
                on_click=_again, args=(visit, talk.id, line.id),
            )  # fmt: skip


def _acts(visit: Visit, talk: Conversation, line: Line, newest: bool) -> None:
    """A row of small buttons."""
    say, reply = visit.say, line.role == "assistant" and line.parent is not None
    with st.container(
        horizontal=True, gap="small", key=f"acts_{line.id}", vertical_alignment="center"
    ):
        if len(line.siblings) > 1:
            place = line.siblings.index(line.id)
            _act("before", "chevron_left", visit, talk, line, _swipe, -1, disabled=place == 0)
            st.markdown(f"{place + 1}/{len(line.siblings)}", width="content")
            last = place == len(line.siblings) - 1
            _act("after", "chevron_right", visit, talk, line, _swipe, 1, disabled=last)
        if reply:
            _act("again", "refresh", visit, talk, line, _again)
        _act("edit", "edit", visit, talk, line, _edit)
        if reply and st.button(
            "",
            key=f"receipt_{line.id}",
            icon=":material/receipt_long:",
            type="tertiary",
            help=say("receipt"),
        ):
            receipts.show(visit, talk, line, kept_receipt(visit, talk, line))
        if line.role == "assistant" and line.text and TalkSettings.of(talk.settings).voice:
            _act("listen", "volume_up", visit, talk, line, _listen)
        _act("delete", "delete", visit, talk, line, _delete)


def _act(
    name: str,
    icon: str,
    visit: Visit,
    talk: Conversation,
    line: Line,
    act: Any,
    *more: Any,
    disabled: bool = False,
) -> None:
    st.button(
        "", key=f"{name}_{line.id}", icon=f":material/{icon}:", type="tertiary",
        help=visit.say(name), disabled=disabled, on_click=act, args=(visit, talk.id, line.id, *more),
    )  # fmt: skip


def _editing(visit: Visit, talk: Conversation, line: Line) -> None:
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


def kept_receipt(visit: Visit, talk: Conversation, line: Line) -> dict[str, Any]:
    """A reply's receipt; once it is there it does not change any more, and is read once."""
    kept: dict[str, dict[str, Any]] = st.session_state.setdefault("receipts", {})
    if found := kept.get(line.id):
        return found
    found = visit.service.receipt(visit.user, talk.id, line.id)
    if found:
        while len(kept) >= KEPT_RECEIPTS:
            kept.pop(next(iter(kept)))
        kept[line.id] = found
    return found


def _again(visit: Visit, id: str, line: str) -> None:
    with told():
        player.begin(id, visit.service.regenerate(visit.user, id, line))


def _swipe(visit: Visit, id: str, line: str, step: int) -> None:
    with told():
        visit.service.swipe(visit.user, id, line, step)


def _delete(visit: Visit, id: str, line: str) -> None:
    with told():
        visit.service.delete(visit.user, id, line)


def _listen(visit: Visit, id: str, line: str) -> None:
    player.begin(id, line, alone=True)


def _edit(visit: Visit, id: str, line: str | None) -> None:
    st.session_state["editing"] = line


def _save(visit: Visit, id: str, line: str) -> None:
    text = str(held(f"words_{line}") or "")
    with told():
        reply = visit.service.edit(visit.user, id, line, text)
        if reply is not None:
            player.begin(id, reply)
    st.session_state["editing"] = None
