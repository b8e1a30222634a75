"""The sidebar: a new conversation, the conversations there are, the language, who is logged in."""

from __future__ import annotations

import streamlit as st

from elysia.web.auth import AccessMode
from elysia.web.i18n import LANGUAGES
from elysia.web.middleware import LOGOUT_PATH
from elysia.web.safe_markdown import escape_markdown
from elysia.web.streamlit.context import (
    HOST_PORTRAIT,
    LANGUAGE_PARAMETER,
    TALK_PARAMETER,
    PageContext,
    open_conversation,
    read_widget,
)

SHOWN_CONVERSATIONS, MAX_CONVERSATIONS = 30, 100  # listed at first, and at most


def show_sidebar(page: PageContext) -> None:
    """Everything beside the conversation."""
    t = page.t
    with st.sidebar:
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="brand"):
            st.image(HOST_PORTRAIT, width=44, alt="")
            st.markdown(f"**{t('title')}**  \n:small[:gray[{t('tagline')}]]")
        st.button(
            t("new_talk"), key="new_talk", icon=":material/add:", type="primary", width="stretch",
            on_click=open_conversation, args=(None,),
        )  # fmt: skip
        _show_conversations(page)
        st.divider()
        st.segmented_control(
            t("language"), list(LANGUAGES), default=page.language, key="language",
            format_func=LANGUAGES.__getitem__, label_visibility="collapsed", required=True,
            on_change=_set_language,
        )  # fmt: skip
        if page.name:
            st.caption(escape_markdown(t("logged_in", name=page.name)))
        if page.state.access == AccessMode.PASSWORD:
            # HTML, because a link of markdown opens another window.
            st.html(f'<a class="log-out" href="{LOGOUT_PATH}" target="_self">{t("log_out")}</a>')
        elif page.state.access == AccessMode.OPENID:
            st.button(t("log_out"), on_click=st.logout, type="tertiary")


def _show_conversations(page: PageContext) -> None:
    t = page.t
    search = st.text_input(
        t("search"), key="search", placeholder=t("search"), label_visibility="collapsed",
        icon=":material/search:", max_chars=200,
    )  # fmt: skip
    conversations = page.service.store.all(page.user, search)
    if not conversations:
        st.caption(t("nothing_found") if search else t("no_talks"))
    most = MAX_CONVERSATIONS if st.session_state.get("more_talks") else SHOWN_CONVERSATIONS
    with st.container(key="talks", gap=None):
        for conversation in conversations[:most]:
            open_ = st.query_params.get(TALK_PARAMETER) == conversation.id
            st.button(
                escape_markdown(conversation.title), key=f"talk_{conversation.id}", width="stretch",
                type="secondary" if open_ else "tertiary", on_click=open_conversation,
                args=(conversation.id,),
            )  # fmt: skip
    if len(conversations) > most:
        st.button(t("more_talks"), key="more_talks_button", type="tertiary", on_click=_show_more)


def _show_more() -> None:
    st.session_state["more_talks"] = True


def _set_language() -> None:
    if chosen := read_widget("language"):
        st.query_params[LANGUAGE_PARAMETER] = chosen
