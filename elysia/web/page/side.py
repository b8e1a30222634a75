"""The side: a new talk, the talks there are, the language, who is logged in.

Knows nothing of what is said in a talk.
"""

from __future__ import annotations

import streamlit as st

from elysia.web.access import OPENID, PASSWORD
from elysia.web.page.visit import HOST, LANGUAGE, TALK, Visit, go, held
from elysia.web.server import LOGOUT
from elysia.web.text import plain
from elysia.web.words import LANGUAGES

FIRST, MORE = 30, 100  # talks that are listed


def show(visit: Visit) -> None:
    """Everything beside the talk."""
    say = visit.say
    with st.sidebar:
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="brand"):
            st.image(HOST, width=44, alt="")
            st.markdown(f"**{say('title')}**  \n:small[:gray[{say('tagline')}]]")
        st.button(
            say("new_talk"), key="new_talk", icon=":material/add:", type="primary", width="stretch",
            on_click=go, args=(None,),
        )  # fmt: skip
        _talks(visit)
        st.divider()
        st.segmented_control(
            say("language"), list(LANGUAGES), default=visit.language, key="language",
            format_func=LANGUAGES.__getitem__, label_visibility="collapsed", required=True,
            on_change=_speak_language,
        )  # fmt: skip
        if visit.name:
            st.caption(plain(say("logged_in", name=visit.name)))
        if visit.site.access == PASSWORD:
            # Ours, and not a link of markdown: those open another window.
            st.html(f'<a class="log-out" href="{LOGOUT}" target="_self">{say("log_out")}</a>')
        elif visit.site.access == OPENID:
            st.button(say("log_out"), on_click=st.logout, type="tertiary")


def _talks(visit: Visit) -> None:
    say = visit.say
    wanted = st.text_input(
        say("search"), key="search", placeholder=say("search"), label_visibility="collapsed",
        icon=":material/search:", max_chars=200,
    )  # fmt: skip
    found = visit.service.store.all(visit.user, wanted)
    if not found:
        st.caption(say("nothing_found") if wanted else say("no_talks"))
    most = MORE if st.session_state.get("more_talks") else FIRST
    with st.container(key="talks", gap=None):
        for one in found[:most]:
            open_ = st.query_params.get(TALK) == one.id
            st.button(
                plain(one.title), key=f"talk_{one.id}", width="stretch",
                type="secondary" if open_ else "tertiary", on_click=go, args=(one.id,),
            )  # fmt: skip
    if len(found) > most:
        st.button(say("more_talks"), key="more_talks_button", type="tertiary", on_click=_more)


def _more() -> None:
    st.session_state["more_talks"] = True


def _speak_language() -> None:
    if chosen := held("language"):
        st.query_params[LANGUAGE] = chosen
