"""One look at the page: who looks, in which language, and what they are told.

Knows nothing of what is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from elysia.chat.characters import CharacterEntry
from elysia.chat.service import ChatService
from elysia.core.errors import ElysiaError, PersonaError
from elysia.web.app_state import AppState
from elysia.web.avatars import PortraitStyle, draw_portrait, get_avatar_url
from elysia.web.i18n import get_translator, in_language
from elysia.web.safe_markdown import escape_markdown

TALK_PARAMETER, LANGUAGE_PARAMETER = "talk", "lang"  # in the page's URL
PICTURE_SIZE, AVATAR_SIZE = 480, 96  # pixels
HOST_PORTRAIT = draw_portrait(
    PortraitStyle("#f3a6bf", "#b0567e", "#fde4ec", "#ffffff", "long", "flower")
)


@dataclass(frozen=True)
class PageContext:
    """Who looks, and in which language."""

    site: AppState
    user: str
    name: str  # to show; "" for the local user
    language: str
    _met: dict[str, CharacterEntry | None] = field(default_factory=dict, compare=False, repr=False)

    @property
    def service(self) -> ChatService:
        """The chat service."""
        return self.site.service

    @property
    def say(self) -> Callable[..., str]:
        """From a key of `words` to words."""
        return get_translator(self.language)

    def member(self, key: str | None) -> CharacterEntry | None:
        """A character, or None when she is gone."""
        key = key or ""
        if key not in self._met:  # a card is read once a look, not once a line
            try:
                self._met[key] = self.service.characters.get(self.user, key)
            except PersonaError:
                self._met[key] = None
        return self._met[key]

    def picture(self, member: CharacterEntry, side: int = PICTURE_SIZE) -> str:
        """Her picture as a data URL; made once."""
        return _load_picture(member.key, member.owner, side, member)


@st.cache_data(max_entries=500, show_spinner=False)
def _load_picture(key: str, owner: str | None, side: int, _member: CharacterEntry) -> str:
    return get_avatar_url(_member, side)


@contextmanager
def show_errors() -> Iterator[None]:
    """What goes wrong inside is a sentence at the top of the page, and nothing more."""
    try:
        yield
    except ElysiaError as error:
        st.session_state["fault"] = str(error)


def read_widget(key: str) -> Any:
    """What a widget holds, for a callback to read; None when there is none.

    `st.session_state[key]` is a place where Streamlit ends a run for the sake of the next click: a
    callback that read so could end there, and what was pressed or typed would be lost. A copy of the
    whole is no such place.
    """
    return st.session_state.to_dict().get(key)


def set_notice(text: str) -> None:
    """Something to tell at the next look."""
    st.session_state["notice"] = text


def show_notices(language: str) -> None:
    """Tell what there is to tell, once."""
    if text := st.session_state.pop("fault", ""):
        st.error(escape_markdown(in_language(text, language)), icon=":material/error:")
    if text := st.session_state.pop("notice", ""):
        st.toast(escape_markdown(text, 200))


def open_conversation(talk: str | None) -> None:
    """To a conversation, or to the gallery."""
    if talk is None:
        st.query_params.pop(TALK_PARAMETER, None)
    else:
        st.query_params[TALK_PARAMETER] = talk
    for key in ("editing", "view", "more_lines", "speaking", "whose"):
        st.session_state.pop(key, None)
