"""Who speaks next at a table of several characters, and why.

Names are found in unspaced Chinese as well as between spaces; the longest name that fits wins, so
that 小棠 is not heard in another's 小棠花. Knows nothing of prompts or engines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

EVERYONE_PATTERN = re.compile(
    r"大家|各位|你们(?:都|几个|仨|俩|怎么|觉得|呢)|所有人"
    r"|\b(?:everyone|everybody|you all|all of you|you guys)\b",
    re.I,
)
MAX_REPLIES = 6  # of one round, whatever is asked for


@dataclass(frozen=True)
class GroupMember:
    """A character at the table: its key, and every name it goes by, the shown one first."""

    key: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class SpeakerChoice:
    """Who speaks, and the reason, in words for the receipt."""

    key: str
    reason: str


@dataclass(frozen=True)
class GroupMessage:
    """A message at the table: who said it (None: the user), and what."""

    speaker: str | None
    text: str


def find_named_members(text: str, guests: Sequence[GroupMember]) -> list[str]:
    """The keys of the guests that a text names, in the order in which they are first named.

    >>> table = [GroupMember("e", ("爱莉希雅", "爱莉", "Elysia")), GroupMember("d", ("Eden",))]
    >>> find_named_members("爱莉你好，Eden在吗？", table)
    ['e', 'd']
    >>> find_named_members("the garden", table)
    []
    """
    owners: dict[str, str] = {}
    for guest in guests:
        for name in guest.names:
            # A single sign is in too many words to be taken for a name.
            if len(name.strip()) > 1:
                owners.setdefault(name.strip().casefold(), guest.key)
    if not owners:
        return []
    pattern = "|".join(_build_name_pattern(name) for name in sorted(owners, key=len, reverse=True))
    found = (owners[hit.group().casefold()] for hit in re.finditer(pattern, text, re.I))
    return list(dict.fromkeys(found))


def select_speaker(
    talk: Sequence[GroupMessage], guests: Sequence[GroupMember], spoken: Sequence[str], budget: int
) -> SpeakerChoice | None:
    """Who answers the newest message; None when the round is over.

    `spoken` are the keys of those who spoke since the user's message, in order; nobody speaks twice in
    a round, and no more than `budget` speak.
    """
    if not guests or len(spoken) >= min(budget, MAX_REPLIES, len(guests)):
        return None
    silent = [guest for guest in guests if guest.key not in spoken]
    asked = _get_user_text(talk)
    by_name = [key for key in find_named_members(asked, guests) if key not in spoken]
    if by_name:
        return SpeakerChoice(
            by_name[0], f"named by the user: {_get_display_name(guests, by_name[0])}"
        )
    if EVERYONE_PATTERN.search(asked):
        chosen = _find_longest_silent(talk, silent)
        return SpeakerChoice(chosen.key, "everyone was asked")
    if spoken:
        newest = talk[-1]
        others = [g for g in silent if g.key != newest.speaker]
        if called := find_named_members(newest.text, others):
            return SpeakerChoice(
                called[0], f"named by {_get_display_name(guests, newest.speaker or '')}"
            )
        return None
    before = next((one.speaker for one in reversed(talk[:-1]) if one.speaker is not None), None)
    if before in {guest.key for guest in guests} and _is_follow_up(asked):
        return SpeakerChoice(str(before), "spoke last, and the user goes on with it")
    return SpeakerChoice(_find_longest_silent(talk, silent).key, "was silent longest")


def build_name_stops(guests: Sequence[GroupMember], key: str, user: str) -> tuple[str, ...]:
    """The beginnings of lines that would be somebody else's words: texts that end a reply."""
    names = [user, *(name for guest in guests if guest.key != key for name in guest.names)]
    return tuple(f"\n{name}{mark}" for name in names if name.strip() for mark in ("：", ":"))


def _build_name_pattern(name: str) -> str:
    """A name as a pattern: Latin letters must not go on before or behind it, other signs may."""
    before = r"(?<![a-z0-9_])" if name[0].isascii() and name[0].isalnum() else ""
    behind = r"(?![a-z0-9_])" if name[-1].isascii() and name[-1].isalnum() else ""
    return before + re.escape(name) + behind


def _get_user_text(talk: Sequence[GroupMessage]) -> str:
    return next((one.text for one in reversed(talk) if one.speaker is None), "")


def _get_display_name(guests: Sequence[GroupMember], key: str) -> str:
    return next((guest.names[0] for guest in guests if guest.key == key), key)


def _is_follow_up(text: str) -> bool:
    """Whether a short message goes on with what was said: an answer, an echo, a 'why?'."""
    return len(text.strip()) <= 12


def _find_longest_silent(
    talk: Sequence[GroupMessage], guests: Sequence[GroupMember]
) -> GroupMember:
    last: Mapping[str | None, int] = {one.speaker: number for number, one in enumerate(talk)}
    return min(guests, key=lambda guest: last.get(guest.key, -1))
