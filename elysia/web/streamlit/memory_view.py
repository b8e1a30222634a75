"""What a character remembers of the user: to see, correct and forget.

Knows nothing of how it is remembered or found.
"""

from __future__ import annotations

import time

import streamlit as st

from elysia.chat.message_tree import Conversation
from elysia.memory.base import Memory, MemoryScope, MemoryStore
from elysia.web.safe_markdown import escape_markdown
from elysia.web.streamlit.context import PageContext, read_widget, set_notice, show_errors

MAX_MEMORIES = 60  # of each kind


def show_memories(visit: PageContext, talk: Conversation) -> None:
    """The memories of one guest."""
    say, store = visit.say, visit.service.providers.memory
    if store is None:
        st.info(say("no_memory"))
        return
    character = choose_character(visit, talk)
    member = visit.member(character)
    name = member.name if member else character
    scope = MemoryScope(visit.user, character)
    st.markdown(f"**{escape_markdown(say('remembers', name=name))}**")
    facts = store.list_memories(scope, kind="fact", limit=MAX_MEMORIES)
    turns = store.list_memories(scope, kind="turn", limit=MAX_MEMORIES)
    if not facts and not turns:
        st.caption(say("remembers_nothing"))
        return
    for title, found in ((say("facts"), facts), (say("turns"), turns)):
        if found:
            st.markdown(f"##### {title}")
        for one in found:
            _show_memory(visit, store, scope, one)
    with st.popover(say("forget_all"), icon=":material/delete_forever:", key="forget_all"):
        st.caption(say("really"))
        st.button(
            say("forget_all"), key="yes_forget_all", type="primary",
            on_click=_forget_all, args=(visit, store, scope),
        )  # fmt: skip


def choose_character(visit: PageContext, talk: Conversation) -> str:
    """The guest whose things are shown; chosen where there are several."""
    if len(talk.guests) == 1:
        return talk.guests[0]
    names = {key: (m.name if (m := visit.member(key)) else key) for key in talk.guests}
    chosen = st.segmented_control(
        visit.say("whose"), list(names), default=talk.guests[0],
        format_func=lambda key: escape_markdown(names[key], 40), key=f"whose_{talk.id}", required=True,
        label_visibility="collapsed",
    )  # fmt: skip
    return str(chosen or talk.guests[0])


def _show_memory(visit: PageContext, store: MemoryStore, scope: MemoryScope, one: Memory) -> None:
    say = visit.say
    notes = [time.strftime("%Y-%m-%d %H:%M", time.localtime(one.at))]
    notes += [say("corrected")] * one.corrected + [say("replaced")] * (not one.current)
    with st.container(border=True, key=f"memory_{one.id}", gap=None):
        if st.session_state.get("correcting") == one.id:
            st.text_area(say("correct"), one.text, key=f"right_{one.id}", height="content")
            with st.container(horizontal=True, gap="small"):
                st.button(
                    say("save"),
                    key="save_memory",
                    type="primary",
                    on_click=_correct,
                    args=(store, scope, one.id),
                )
                st.button(
                    say("cancel"), key="cancel_memory", on_click=_start_correcting, args=(None,)
                )
            return
        st.text(one.text)
        with st.container(
            horizontal=True, vertical_alignment="center", key=f"acts_memory_{one.id}"
        ):
            st.caption(" · ".join(notes), width="stretch")
            st.button(
                "", key=f"correct_{one.id}", icon=":material/edit:", type="tertiary", help=say("correct"),
                on_click=_start_correcting, args=(one.id,), disabled=not one.current,
            )  # fmt: skip
            st.button(
                "", key=f"forget_{one.id}", icon=":material/delete:", type="tertiary", help=say("forget"),
                on_click=_forget, args=(visit, store, scope, one.id),
            )  # fmt: skip


def _start_correcting(id: str | None) -> None:
    st.session_state["correcting"] = id


def _correct(store: MemoryStore, scope: MemoryScope, id: str) -> None:
    with show_errors():
        store.correct(scope, id, str(read_widget(f"right_{id}") or ""))
    st.session_state["correcting"] = None


def _forget(visit: PageContext, store: MemoryStore, scope: MemoryScope, id: str) -> None:
    with show_errors():
        store.forget(scope, id)
        set_notice(visit.say("forgotten"))


def _forget_all(visit: PageContext, store: MemoryStore, scope: MemoryScope) -> None:
    with show_errors():
        store.forget_all(scope)
        set_notice(visit.say("forgotten"))
