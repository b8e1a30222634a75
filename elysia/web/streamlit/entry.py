"""The Streamlit page: who looks, then the gallery or a conversation. Run anew for every look.

Knows nothing of how a reply is made.
"""

from __future__ import annotations

from importlib import resources

import streamlit as st

from elysia.core.errors import ElysiaError
from elysia.web import app_state
from elysia.web.app_state import AppState
from elysia.web.auth import OPENID, PASSWORD, build_openid_name, is_admitted
from elysia.web.i18n import LANGUAGES, get_translator, in_language
from elysia.web.middleware import COOKIE
from elysia.web.safe_markdown import escape_markdown
from elysia.web.streamlit import chat_view, gallery, sidebar
from elysia.web.streamlit.context import (
    HOST_PORTRAIT,
    LANGUAGE_PARAMETER,
    TALK_PARAMETER,
    PageContext,
    show_notices,
)

STYLE = resources.files("elysia.web.streamlit").joinpath("style.css").read_text("utf-8")


def main() -> None:
    """The whole page."""
    language = _get_language()
    st.set_page_config(
        page_title=get_translator(language)("title"), page_icon=HOST_PORTRAIT, layout="centered"
    )
    st.html(f"<style>{STYLE}</style>")
    try:
        here = app_state.get_app_state()
        who = _get_user(here, language)
    except ElysiaError as error:
        st.error(escape_markdown(in_language(str(error), language)))
        return
    if who is None:
        return
    visit = PageContext(here, *who, language)
    sidebar.show_sidebar(visit)
    show_notices(language)
    try:
        if id := st.query_params.get(TALK_PARAMETER):
            chat_view.show_conversation(visit, id)
        else:
            gallery.show_gallery(visit)
    except ElysiaError as error:
        st.error(escape_markdown(in_language(str(error), language)))


def _get_language() -> str:
    """As the URL says, else as the browser does."""
    asked = st.query_params.get(LANGUAGE_PARAMETER)
    if asked in LANGUAGES:
        return str(asked)
    return "zh" if (st.context.locale or "").lower().startswith("zh") else "en"


def _get_user(here: AppState, language: str) -> tuple[str, str] | None:
    """The id and the name of who looks; None when they are asked first."""
    say = get_translator(language)
    if here.access == PASSWORD:
        user = here.logins.user(st.context.cookies.get(COOKIE))
        if user is None:
            st.info(say("log_in_first"))
            return None
        return user.id, user.name
    if here.access != OPENID:
        return here.accounts.local().id, ""
    return _get_openid_user(here, language)


def _get_openid_user(here: AppState, language: str) -> tuple[str, str] | None:
    say = get_translator(language)
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
    if not is_admitted(here.allowed, vouched):
        st.error(escape_markdown(say("not_allowed", name=shown)))
        st.button(say("log_out"), on_click=st.logout)
        return None
    return here.accounts.get_or_create(build_openid_name(vouched)).id, shown


if __name__ == "__main__":  # as Streamlit names what it runs
    main()
