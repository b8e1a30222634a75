"""Who speaks next in a group of several characters, and why.

Names are recognised in unspaced Chinese as well as between spaces; the longest name that fits wins, so
that 小棠 is not taken for named in another's 小棠花.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from elysia.core.i18n import Text

EVERYONE_PATTERN = re.compile(
    r"大家|各位|你们(?:都|几个|仨|俩|怎么|觉得|呢)|所有人"
    r"|\b(?:everyone|everybody|you all|all of you|you guys)\b",
    re.I,
)
MAX_REPLIES = 6  # to one message, whatever is asked for
MAX_FOLLOW_UP = (
    12  # characters of a message that continues what was said: an answer, an echo, a 'why?'
)


class SelectionReason(StrEnum):
    """Why a character was chosen to speak; the values are codes of the table of sentences."""

    REGENERATE = "chat.selected_to_regenerate"
    ONLY_ONE = "chat.selected_as_only_one"
    NAMED_BY_USER = "chat.selected_by_user"  # params: name
    EVERYONE_ASKED = "chat.selected_with_everyone"
    NAMED_BY_CHARACTER = "chat.selected_by_character"  # params: name, of who named
    LAST_SPEAKER = "chat.selected_as_last_speaker"
    LONGEST_SILENT = "chat.selected_as_longest_silent"


@dataclass(frozen=True)
class GroupMember:
    """A character of the group: its key, and every name it goes by, the displayed one first."""

    key: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class SpeakerChoice:
    """Who speaks, and why."""

    key: str
    reason: SelectionReason
    params: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> Text:
        """The reason as a sentence, before a language is chosen."""
        return Text(self.reason, self.params)


@dataclass(frozen=True)
class GroupMessage:
    """A message of the conversation: who wrote it (None: the user), and what."""

    speaker: str | None
    text: str


def find_named_members(text: str, guests: Sequence[GroupMember]) -> list[str]:
    """The keys of the characters that a text names, in the order in which they are first named.

    >>> table = [GroupMember("e", ("爱莉希雅", "爱莉", "Elysia")), GroupMember("d", ("Eden",))]
    >>> find_named_members("爱莉你好，Eden在吗？", table)
    ['e', 'd']
    >>> find_named_members("the garden", table)
    []
    """
    owners: dict[str, str] = {}
    for guest in guests:
        for name in guest.names:
            # A single sign is part of too many words to be taken for a name.
            if len(name.strip()) > 1:
                owners.setdefault(name.strip().casefold(), guest.key)
    if not owners:
        return []
    pattern = "|".join(_build_name_pattern(name) for name in sorted(owners, key=len, reverse=True))
    keys = (owners[match.group().casefold()] for match in re.finditer(pattern, text, re.I))
    return list(dict.fromkeys(keys))


def select_speaker(
    messages: Sequence[GroupMessage],
    guests: Sequence[GroupMember],
    spoken: Sequence[str],
    budget: int,
) -> SpeakerChoice | None:
    """Who answers the newest message; None when nobody does any more.

    `spoken` are the keys of those who spoke since the user's message, in order; nobody speaks twice, and
    no more than `budget` speak.
    """
    if not guests or len(spoken) >= min(budget, MAX_REPLIES, len(guests)):
        return None
    silent = [guest for guest in guests if guest.key not in spoken]
    user_text = next((m.text for m in reversed(messages) if m.speaker is None), "")
    named = [key for key in find_named_members(user_text, guests) if key not in spoken]
    if named:
        name = _get_display_name(guests, named[0])
        return SpeakerChoice(named[0], SelectionReason.NAMED_BY_USER, {"name": name})
    if EVERYONE_PATTERN.search(user_text):
        key = _find_longest_silent(messages, silent).key
        return SpeakerChoice(key, SelectionReason.EVERYONE_ASKED)
    if spoken:
        newest = messages[-1]
        others = [guest for guest in silent if guest.key != newest.speaker]
        if named := find_named_members(newest.text, others):
            name = _get_display_name(guests, newest.speaker or "")
            return SpeakerChoice(named[0], SelectionReason.NAMED_BY_CHARACTER, {"name": name})
        return None
    last = next((m.speaker for m in reversed(messages[:-1]) if m.speaker is not None), None)
    if last in {guest.key for guest in guests} and len(user_text.strip()) <= MAX_FOLLOW_UP:
        return SpeakerChoice(str(last), SelectionReason.LAST_SPEAKER)
    key = _find_longest_silent(messages, silent).key
    return SpeakerChoice(key, SelectionReason.LONGEST_SILENT)


def build_name_stops(guests: Sequence[GroupMember], key: str, user: str) -> tuple[str, ...]:
    """Texts that end a reply: the beginnings of lines that would be somebody else's words."""
    names = [user, *(name for guest in guests if guest.key != key for name in guest.names)]
    return tuple(f"\n{name}{mark}" for name in names if name.strip() for mark in ("：", ":"))


def _build_name_pattern(name: str) -> str:
    """A name as a pattern: no Latin letters may touch one that begins or ends with some, others may."""
    before = r"(?<![a-z0-9_])" if name[0].isascii() and name[0].isalnum() else ""
    behind = r"(?![a-z0-9_])" if name[-1].isascii() and name[-1].isalnum() else ""
    return before + re.escape(name) + behind


def _get_display_name(guests: Sequence[GroupMember], key: str) -> str:
    return next((guest.names[0] for guest in guests if guest.key == key), key)


def _find_longest_silent(
    messages: Sequence[GroupMessage], guests: Sequence[GroupMember]
) -> GroupMember:
    last = {message.speaker: number for number, message in enumerate(messages)}
    return min(guests, key=lambda guest: last.get(guest.key, -1))
