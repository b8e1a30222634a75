"""The Streamlit page: who looks, then the gallery or a conversation. Run anew for every look.

Knows nothing of how a reply is made.
"""

from __future__ import annotations

from importlib import resources

import streamlit as st

from elysia.core.errors import ElysiaError
from elysia.web import site
from elysia.web.access import OPENID, PASSWORD, admitted, openid_name
from elysia.web.page import gallery, side, talk
from elysia.web.page.visit import HOST, LANGUAGE, TALK, Visit, show_notices
from elysia.web.sentences import in_language
from elysia.web.server import COOKIE
from elysia.web.site import Site
from elysia.web.text import plain
from elysia.web.words import LANGUAGES, speech

STYLE = resources.files("elysia.web.page").joinpath("style.css").read_text("utf-8")


def main() -> None:
    """The whole page."""
    language = _language()
    st.set_page_config(page_title=speech(language)("title"), page_icon=HOST, layout="centered")
    st.html(f"<style>{STYLE}</style>")
    try:
        here = site.current()
        who = _who(here, language)
    except ElysiaError as error:
        st.error(plain(in_language(str(error), language)))
        return
    if who is None:
        return
    visit = Visit(here, *who, language)
    side.show(visit)
    show_notices(language)
    try:
        if id := st.query_params.get(TALK):
            talk.show(visit, id)
        else:
            gallery.show(visit)
    except ElysiaError as error:
        st.error(plain(in_language(str(error), language)))


def _language() -> str:
    """As the URL says, else as the browser does."""
    asked = st.query_params.get(LANGUAGE)
    if asked in LANGUAGES:
        return str(asked)
    return "zh" if (st.context.locale or "").lower().startswith("zh") else "en"


def _who(here: Site, language: str) -> tuple[str, str] | None:
    """The id and the name of who looks; None when they are asked first."""
    say = speech(language)
    if here.access == PASSWORD:
        user = here.logins.user(st.context.cookies.get(COOKIE))
        if user is None:
            st.info(say("log_in_first"))
            return None
        return user.id, user.name
    if here.access != OPENID:
        return here.accounts.local().id, ""
    return _who_by_openid(here, language)


def _who_by_openid(here: Site, language: str) -> tuple[str, str] | None:
    say = speech(language)
    if not st.user.get("is_logged_in"):
        st.title(say("title"))
        if st.button(say("log_in"), type="primary", icon=":material/login:"):
            try:
                st.login()
            except Exception:  # its settings are missing; Streamlit's own words are long
                st.error(say("openid_missing"))
        return None
    vouched = st.user.to_dict()
    shown = str(vouched.get("name") or vouched.get("email") or "OpenID")
    if not admitted(here.allowed, vouched):
        st.error(plain(say("not_allowed", name=shown)))
        st.button(say("log_out"), on_click=st.logout)
        return None
    return here.accounts.of_name(openid_name(vouched)).id, shown
