"""The Streamlit page: who looks, then the gallery or a conversation. Streamlit runs it for every look."""

from __future__ import annotations

import streamlit as st

from elysia.core.errors import ElysiaError
from elysia.web import app_state
from elysia.web.app_state import AppState
from elysia.web.auth import AccessMode, build_openid_name, is_admitted
from elysia.web.i18n import LANGUAGES, get_translator, negotiate_language
from elysia.web.middleware import COOKIE
from elysia.web.safe_markdown import escape_markdown
from elysia.web.streamlit import chat_view, gallery, sidebar
from elysia.web.streamlit.context import (
    HOST_PORTRAIT,
    LANGUAGE_PARAMETER,
    TALK_PARAMETER,
    PageContext,
    read_asset,
    show_notices,
)


def main() -> None:
    """The whole page."""
    language = _get_language()
    st.set_page_config(
        page_title=get_translator(language)("title"), page_icon=HOST_PORTRAIT, layout="centered"
    )
    st.html(f"<style>{read_asset('style.css')}</style>")
    try:
        state = app_state.get_app_state()
        user = _get_user(state, language)
        if user is None:
            return
        page = PageContext(state, *user, language)
        sidebar.show_sidebar(page)
        show_notices(language)
        if id := st.query_params.get(TALK_PARAMETER):
            chat_view.show_conversation(page, id)
        else:
            gallery.show_gallery(page)
    except ElysiaError as error:
        st.error(escape_markdown(error.render(language)))


def _get_language() -> str:
    """The URL's language, else the browser's."""
    chosen = st.query_params.get(LANGUAGE_PARAMETER)
    return str(chosen) if chosen in LANGUAGES else negotiate_language(st.context.locale or "")


def _get_user(state: AppState, language: str) -> tuple[str, str] | None:
    """The id of who looks and a name to show; None when a login is shown first."""
    if state.access == AccessMode.PASSWORD:
        user = state.auth.get_user(st.context.cookies.get(COOKIE))
        if user is None:
            st.info(get_translator(language)("log_in_first"))
            return None
        return user.id, user.name
    if state.access != AccessMode.OPENID:
        return state.accounts.local().id, ""
    return _get_openid_user(state, language)


def _get_openid_user(state: AppState, language: str) -> tuple[str, str] | None:
    t = get_translator(language)
    if not st.user.get("is_logged_in"):
        st.title(t("title"))
        if st.button(t("log_in"), type="primary", icon=":material/login:"):
            try:
                st.login()
            except Exception:  # the settings are missing; Streamlit's own message is long
                st.error(t("openid_missing"))
        return None
    claims = st.user.to_dict()
    name = str(claims.get("name") or claims.get("email") or "OpenID")
    if not is_admitted(state.allow_list, claims):
        st.error(escape_markdown(t("not_allowed", name=name)))
        st.button(t("log_out"), on_click=st.logout)
        return None
    return state.accounts.get_or_create(build_openid_name(claims)).id, name


if __name__ == "__main__":  # the name under which Streamlit runs a script
    main()
