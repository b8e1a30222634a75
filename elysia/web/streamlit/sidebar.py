"""The side: a new talk, the talks there are, the language, who is logged in.

Knows nothing of what is said in a talk.
"""

from __future__ import annotations

import streamlit as st

from elysia.web.auth import OPENID, PASSWORD
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

SHOWN_CONVERSATIONS, MAX_CONVERSATIONS = 30, 100  # talks that are listed


def show_sidebar(visit: PageContext) -> None:
    """Everything beside the talk."""
    say = visit.say
    with st.sidebar:
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="brand"):
            st.image(HOST_PORTRAIT, width=44, alt="")
            st.markdown(f"**{say('title')}**  \n:small[:gray[{say('tagline')}]]")
        st.button(
            say("new_talk"), key="new_talk", icon=":material/add:", type="primary", width="stretch",
            on_click=open_conversation, args=(None,),
        )  # fmt: skip
        _show_conversations(visit)
        st.divider()
        st.segmented_control(
            say("language"), list(LANGUAGES), default=visit.language, key="language",
            format_func=LANGUAGES.__getitem__, label_visibility="collapsed", required=True,
            on_change=_set_language,
        )  # fmt: skip
        if visit.name:
            st.caption(escape_markdown(say("logged_in", name=visit.name)))
        if visit.site.access == PASSWORD:
            # Ours, and not a link of markdown: those open another window.
            st.html(f'<a class="log-out" href="{LOGOUT_PATH}" target="_self">{say("log_out")}</a>')
        elif visit.site.access == OPENID:
            st.button(say("log_out"), on_click=st.logout, type="tertiary")


def _show_conversations(visit: PageContext) -> None:
    say = visit.say
    wanted = st.text_input(
        say("search"), key="search", placeholder=say("search"), label_visibility="collapsed",
        icon=":material/search:", max_chars=200,
    )  # fmt: skip
    found = visit.service.store.all(visit.user, wanted)
    if not found:
        st.caption(say("nothing_found") if wanted else say("no_talks"))
    most = MAX_CONVERSATIONS if st.session_state.get("more_talks") else SHOWN_CONVERSATIONS
    with st.container(key="talks", gap=None):
        for one in found[:most]:
            open_ = st.query_params.get(TALK_PARAMETER) == one.id
            st.button(
                escape_markdown(one.title), key=f"talk_{one.id}", width="stretch",
                type="secondary" if open_ else "tertiary", on_click=open_conversation, args=(one.id,),
            )  # fmt: skip
    if len(found) > most:
        st.button(say("more_talks"), key="more_talks_button", type="tertiary", on_click=_show_more)


def _show_more() -> None:
    st.session_state["more_talks"] = True


def _set_language() -> None:
    if chosen := read_widget("language"):
        st.query_params[LANGUAGE_PARAMETER] = chosen
