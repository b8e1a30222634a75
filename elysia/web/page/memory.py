"""What a character remembers of the user: to see, correct and forget.

Knows nothing of how it is remembered or found.
"""

from __future__ import annotations

import time

import streamlit as st

from elysia.chat.tree import Conversation
from elysia.memory.base import Memory, MemoryStore, Scope
from elysia.web.page.visit import Visit, held, notice, told
from elysia.web.text import plain

MOST = 60  # of each kind


def show(visit: Visit, talk: Conversation) -> None:
    """The memories of one guest."""
    say, store = visit.say, visit.service.surroundings.memory
    if store is None:
        st.info(say("no_memory"))
        return
    character = whose(visit, talk)
    member = visit.member(character)
    name = member.name if member else character
    scope = Scope(visit.user, character)
    st.markdown(f"**{plain(say('remembers', name=name))}**")
    facts = store.known(scope, kind="fact", limit=MOST)
    turns = store.known(scope, kind="turn", limit=MOST)
    if not facts and not turns:
        st.caption(say("remembers_nothing"))
        return
    for title, found in ((say("facts"), facts), (say("turns"), turns)):
        if found:
            st.markdown(f"##### {title}")
        for one in found:
            _memory(visit, store, scope, one)
    with st.popover(say("forget_all"), icon=":material/delete_forever:", key="forget_all"):
        st.caption(say("really"))
        st.button(
            say("forget_all"), key="yes_forget_all", type="primary",
            on_click=_forget_all, args=(visit, store, scope),
        )  # fmt: skip


def whose(visit: Visit, talk: Conversation) -> str:
    """The guest whose things are shown; chosen where there are several."""
    if len(talk.guests) == 1:
        return talk.guests[0]
    names = {key: (m.name if (m := visit.member(key)) else key) for key in talk.guests}
    chosen = st.segmented_control(
        visit.say("whose"), list(names), default=talk.guests[0],
        format_func=lambda key: plain(names[key], 40), key=f"whose_{talk.id}", required=True,
        label_visibility="collapsed",
    )  # fmt: skip
    return str(chosen or talk.guests[0])


def _memory(visit: Visit, store: MemoryStore, scope: Scope, one: Memory) -> None:
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
                st.button(say("cancel"), key="cancel_memory", on_click=_choose, args=(None,))
            return
        st.text(one.text)
        with st.container(
            horizontal=True, vertical_alignment="center", key=f"acts_memory_{one.id}"
        ):
            st.caption(" · ".join(notes), width="stretch")
            st.button(
                "", key=f"correct_{one.id}", icon=":material/edit:", type="tertiary", help=say("correct"),
                on_click=_choose, args=(one.id,), disabled=not one.current,
            )  # fmt: skip
            st.button(
                "", key=f"forget_{one.id}", icon=":material/delete:", type="tertiary", help=say("forget"),
                on_click=_forget, args=(visit, store, scope, one.id),
            )  # fmt: skip


def _choose(id: str | None) -> None:
    st.session_state["correcting"] = id


def _correct(store: MemoryStore, scope: Scope, id: str) -> None:
    with told():
        store.correct(scope, id, str(held(f"right_{id}") or ""))
    st.session_state["correcting"] = None


def _forget(visit: Visit, store: MemoryStore, scope: Scope, id: str) -> None:
    with told():
        store.forget(scope, id)
        notice(visit.say("forgotten"))


def _forget_all(visit: Visit, store: MemoryStore, scope: Scope) -> None:
    with told():
        store.forget_all(scope)
        notice(visit.say("forgotten"))
