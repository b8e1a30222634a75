"""Judging replies, Chinese and English: does one give the character's whole name when asked who it is,
and does the character leak into ordinary answers?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from elysia.core.i18n import Text
from elysia.core.identity_claims import find_claimed_assistant
from elysia.core.persona import Persona

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
NEGATION = r"(?:不是|不叫|并非|不算是|not|n't)\s*$"


@dataclass(frozen=True)
class ReplyVerdict:
    """Whether a reply is right, and a few words on why (not)."""

    good: bool
    reason: Text


@dataclass(frozen=True)
class IdentityRates:
    """Shares, 0 to 1: identity questions answered correctly; ordinary ones in which a name leaked."""

    identity_rate: float
    leak_rate: float
    identity_questions: int
    ordinary_questions: int

    def to_dict(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


def get_own_names(persona: Persona) -> tuple[str, ...]:
    """The whole names, one of which a reply about identity must contain."""
    names = [persona.name, str(persona.elysia_extensions.get("english_name") or "")]
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))


def get_all_names(persona: Persona) -> tuple[str, ...]:
    """Whole names and aliases; any of them in an ordinary answer is a leak."""
    aliases = persona.elysia_extensions.get("aliases")
    # Aliases of one character are also ordinary words.
    longer = [str(a) for a in aliases if len(str(a)) > 1] if isinstance(aliases, list) else []
    return tuple(dict.fromkeys([*get_own_names(persona), *longer]))


def judge_identity(reply: str, persona: Persona) -> ReplyVerdict:
    """Good when the reply gives a whole name, denies none, and claims no other assistant's."""
    matches = [
        match
        for name in get_own_names(persona)
        for match in re.finditer(build_name_pattern(name), reply, re.I)
    ]
    if not matches:
        return ReplyVerdict(False, Text("evaluate.name_missing"))
    if any(re.search(NEGATION, reply[: match.start()], re.I) for match in matches):
        return ReplyVerdict(False, Text("evaluate.name_denied"))
    if other := find_claimed_assistant(reply, own_names=get_all_names(persona)):
        return ReplyVerdict(False, Text("evaluate.claims_other", {"name": other}))
    return ReplyVerdict(True, Text("evaluate.says_name", {"name": matches[0].group()}))


def judge_ordinary(reply: str, persona: Persona) -> ReplyVerdict:
    """Good when no name or alias of the character appears in the answer to an ordinary question."""
    for name in get_all_names(persona):
        if re.search(build_name_pattern(name) if name.isascii() else re.escape(name), reply, re.I):
            return ReplyVerdict(False, Text("evaluate.leaks_name", {"name": name}))
    return ReplyVerdict(True, Text("evaluate.no_leak"))


def compute_rates(
    identity: Sequence[ReplyVerdict], ordinary: Sequence[ReplyVerdict]
) -> IdentityRates:
    """Shares over two lists of verdicts; the rate of an empty list is 0."""
    right = sum(verdict.good for verdict in identity)
    leaked = sum(not verdict.good for verdict in ordinary)
    return IdentityRates(
        right / len(identity) if identity else 0.0,
        leaked / len(ordinary) if ordinary else 0.0,
        len(identity),
        len(ordinary),
    )


def build_name_pattern(name: str) -> str:
    """A pattern for `name` as a whole: with no broken character next to it; a Latin name as a word; any
    other name not followed by its own last character again (small models stutter).

    >>> [bool(re.search(build_name_pattern("Elysia"), text)) for text in ("我是Elysia哦", "Elysian")]
    [True, False]
    """
    before, after = f"(?<!{REPLACEMENT})", f"(?!{REPLACEMENT})"
    if name.isascii():
        return rf"{before}(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_]){after}"
    return f"{before}{re.escape(name)}(?!{re.escape(name[-1])}){after}"
