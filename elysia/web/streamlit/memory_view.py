"""What a character remembers of the user: to look through, correct and forget."""

from __future__ import annotations

import time

import streamlit as st

from elysia.chat.message_tree import Conversation
from elysia.memory.base import Memory, MemoryScope, MemoryStore
from elysia.web.safe_markdown import escape_markdown
from elysia.web.streamlit.context import PageContext, read_widget, set_notice, show_errors

MAX_MEMORIES = 60  # of each kind


def show_memories(page: PageContext, conversation: Conversation) -> None:
    """The memories of one character."""
    t, store = page.t, page.service.providers.memory
    if store is None:
        st.info(t("no_memory"))
        return
    key = choose_character(page, conversation)
    character = page.get_character(key)
    name = character.name if character else key
    scope = MemoryScope(page.user, key)
    st.markdown(f"**{escape_markdown(t('remembers', name=name))}**")
    facts = store.list_memories(scope, kind="fact", limit=MAX_MEMORIES)
    turns = store.list_memories(scope, kind="turn", limit=MAX_MEMORIES)
    if not facts and not turns:
        st.caption(t("remembers_nothing"))
        return
    for title, memories in ((t("facts"), facts), (t("turns"), turns)):
        if memories:
            st.markdown(f"##### {title}")
        for memory in memories:
            _show_memory(page, store, scope, memory)
    with st.popover(t("forget_all"), icon=":material/delete_forever:", key="forget_all"):
        st.caption(t("really"))
        st.button(
            t("forget_all"), key="yes_forget_all", type="primary",
            on_click=_forget_all, args=(page, store, scope),
        )  # fmt: skip


def choose_character(page: PageContext, conversation: Conversation) -> str:
    """The key of the character whose memories or documents are shown; in a group it is chosen."""
    if len(conversation.guests) == 1:
        return conversation.guests[0]
    names = {}
    for key in conversation.guests:
        character = page.get_character(key)
        names[key] = character.name if character else key
    key = st.segmented_control(
        page.t("whose"), list(names), default=conversation.guests[0],
        format_func=lambda key: escape_markdown(names[key], 40), key=f"whose_{conversation.id}",
        required=True, label_visibility="collapsed",
    )  # fmt: skip
    return str(key or conversation.guests[0])


def _show_memory(page: PageContext, store: MemoryStore, scope: MemoryScope, memory: Memory) -> None:
    t = page.t
    notes = [time.strftime("%Y-%m-%d %H:%M", time.localtime(memory.at))]
    notes += [t("corrected")] * memory.corrected + [t("replaced")] * (not memory.current)
    with st.container(border=True, key=f"memory_{memory.id}", gap=None):
        if st.session_state.get("correcting") == memory.id:
            st.text_area(t("correct"), memory.text, key=f"right_{memory.id}", height="content")
            with st.container(horizontal=True, gap="small"):
                st.button(
                    t("save"), key="save_memory", type="primary", on_click=_correct,
                    args=(store, scope, memory.id),
                )  # fmt: skip
                st.button(
                    t("cancel"), key="cancel_memory", on_click=_start_correcting, args=(None,)
                )
            return
        st.text(memory.text)
        with st.container(
            horizontal=True, vertical_alignment="center", key=f"acts_memory_{memory.id}"
        ):
            st.caption(" · ".join(notes), width="stretch")
            st.button(
                "", key=f"correct_{memory.id}", icon=":material/edit:", type="tertiary", help=t("correct"),
                on_click=_start_correcting, args=(memory.id,), disabled=not memory.current,
            )  # fmt: skip
            st.button(
                "", key=f"forget_{memory.id}", icon=":material/delete:", type="tertiary", help=t("forget"),
                on_click=_forget, args=(page, store, scope, memory.id),
            )  # fmt: skip


def _start_correcting(id: str | None) -> None:
    st.session_state["correcting"] = id


def _correct(store: MemoryStore, scope: MemoryScope, id: str) -> None:
    with show_errors():
        store.correct(scope, id, str(read_widget(f"right_{id}") or ""))
    st.session_state["correcting"] = None


def _forget(page: PageContext, store: MemoryStore, scope: MemoryScope, id: str) -> None:
    with show_errors():
        store.forget(scope, id)
        set_notice(page.t("forgotten"))


def _forget_all(page: PageContext, store: MemoryStore, scope: MemoryScope) -> None:
    with show_errors():
        store.forget_all(scope)
        set_notice(page.t("forgotten"))
