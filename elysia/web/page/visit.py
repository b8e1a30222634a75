"""One look at the page: who looks, in which language, and what they are told.

Knows nothing of what is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from elysia.chat.cast import Member
from elysia.chat.service import ChatService
from elysia.core.errors import ElysiaError, PersonaError
from elysia.web.pictures import picture_of
from elysia.web.portrait import Look, portrait
from elysia.web.sentences import in_language
from elysia.web.site import Site
from elysia.web.text import plain
from elysia.web.words import speech

TALK, LANGUAGE = "talk", "lang"  # in the page's URL
SIDE, AVATAR = 480, 96  # pixels
HOST = portrait(Look("#f3a6bf", "#b0567e", "#fde4ec", "#ffffff", "long", "flower"))


@dataclass(frozen=True)
class Visit:
    """Who looks, and in which language."""

    site: Site
    user: str
    name: str  # to show; "" for the local user
    language: str
    _met: dict[str, Member | None] = field(default_factory=dict, compare=False, repr=False)

    @property
    def service(self) -> ChatService:
        """The chat service."""
        return self.site.service

    @property
    def say(self) -> Callable[..., str]:
        """From a key of `words` to words."""
        return speech(self.language)

    def member(self, key: str | None) -> Member | None:
        """A character, or None when she is gone."""
        key = key or ""
        if key not in self._met:  # a card is read once a look, not once a line
            try:
                self._met[key] = self.service.cast.get(self.user, key)
            except PersonaError:
                self._met[key] = None
        return self._met[key]

    def picture(self, member: Member, side: int = SIDE) -> str:
        """Her picture as a data URL; made once."""
        return _picture(member.key, member.owner, side, member)


@st.cache_data(max_entries=500, show_spinner=False)
def _picture(key: str, owner: str | None, side: int, _member: Member) -> str:
    return picture_of(_member, side)


@contextmanager
def told() -> Iterator[None]:
    """What goes wrong inside is a sentence at the top of the page, and nothing more."""
    try:
        yield
    except ElysiaError as error:
        st.session_state["fault"] = str(error)


def held(key: str) -> Any:
    """What a widget holds, for a callback to read; None when there is none.

    `st.session_state[key]` is a place where Streamlit ends a run for the sake of the next click: a
    callback that read so could end there, and what was pressed or typed would be lost. A copy of the
    whole is no such place.
    """
    return st.session_state.to_dict().get(key)


def notice(text: str) -> None:
    """Something to tell at the next look."""
    st.session_state["notice"] = text


def show_notices(language: str) -> None:
    """Tell what there is to tell, once."""
    if text := st.session_state.pop("fault", ""):
        st.error(plain(in_language(text, language)), icon=":material/error:")
    if text := st.session_state.pop("notice", ""):
        st.toast(plain(text, 200))


def go(talk: str | None) -> None:
    """To a conversation, or to the gallery."""
    if talk is None:
        st.query_params.pop(TALK, None)
    else:
        st.query_params[TALK] = talk
    for key in ("editing", "view", "more_lines", "speaking", "whose"):
        st.session_state.pop(key, None)
