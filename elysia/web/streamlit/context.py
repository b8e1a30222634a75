"""What every part of the page needs: who looks, in which language, and ways to report errors and notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import streamlit as st

from elysia.chat.characters import CharacterEntry
from elysia.chat.service import ChatService
from elysia.core.errors import ElysiaError, PersonaError
from elysia.web.app_state import AppState
from elysia.web.avatars import PortraitStyle, draw_portrait, get_avatar_url
from elysia.web.i18n import get_translator
from elysia.web.safe_markdown import escape_markdown

TALK_PARAMETER, LANGUAGE_PARAMETER = "talk", "lang"  # in the page's URL
PICTURE_SIZE, AVATAR_SIZE = 480, 96  # pixels
HOST_PORTRAIT = draw_portrait(
    PortraitStyle("#f3a6bf", "#b0567e", "#fde4ec", "#ffffff", "long", "flower")
)


@dataclass(frozen=True)
class PageContext:
    """Who looks, and in which language; made anew for every run of the page's script."""

    state: AppState
    user: str
    name: str  # to show; "" for the local user
    language: str
    _characters: dict[str, CharacterEntry | None] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def service(self) -> ChatService:
        """The chat service."""
        return self.state.service

    @property
    def t(self) -> Callable[..., str]:
        """A function from a key of `web.toml` to words."""
        return get_translator(self.language)

    def get_character(self, key: str | None) -> CharacterEntry | None:
        """A character; None when it has been removed."""
        key = key or ""
        if key not in self._characters:  # a card is read once a run, not once a message
            try:
                self._characters[key] = self.service.characters.get(self.user, key)
            except PersonaError:
                self._characters[key] = None
        return self._characters[key]

    def get_picture(self, character: CharacterEntry, side: int = PICTURE_SIZE) -> str:
        """The character's picture as a data URL, `side` pixels wide."""
        return _load_picture(character.key, character.owner, side, character)


@st.cache_data(max_entries=500, show_spinner=False)
def _load_picture(key: str, owner: str | None, side: int, _character: CharacterEntry) -> str:
    # Streamlit leaves arguments with an underscore out of the cache's key.
    return get_avatar_url(_character, side)


@cache
def read_asset(name: str) -> str:
    """A style sheet or script that lies beside this file."""
    return resources.files("elysia.web.streamlit").joinpath(name).read_text("utf-8")


@contextmanager
def show_errors() -> Iterator[None]:
    """Keep an ElysiaError of the block for `show_notices`, which shows it at the top of the page."""
    try:
        yield
    except ElysiaError as error:
        st.session_state["fault"] = error


def read_widget(key: str) -> Any:
    """The value of a widget, for a callback to read; None when there is none.

    `st.session_state[key]` is a point where Streamlit ends a run in favour of the next click: a callback
    that read it so could end there, and what was pressed or typed would be lost. Copying the whole state
    is no such point.
    """
    return st.session_state.to_dict().get(key)


def set_notice(text: str) -> None:
    """Show a text at the next run."""
    st.session_state["notice"] = text


def show_notices(language: str) -> None:
    """Show the error and the notice that were kept, once."""
    error = st.session_state.pop("fault", None)
    if error is not None:
        st.error(escape_markdown(error.render(language)), icon=":material/error:")
    if text := st.session_state.pop("notice", ""):
        st.toast(escape_markdown(text, 200))


def open_conversation(conversation: str | None) -> None:
    """Go to a conversation; None for the gallery."""
    if conversation is None:
        st.query_params.pop(TALK_PARAMETER, None)
    else:
        st.query_params[TALK_PARAMETER] = conversation
    for key in ("editing", "view", "more_lines", "speaking", "whose"):
        st.session_state.pop(key, None)
