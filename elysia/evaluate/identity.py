"""Verdicts on replies: does it say who it is, by its whole name, and does the persona leak
elsewhere?

Judges text alone, Chinese and English. Knows nothing of models, or of who asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from elysia.core.assistants import claimed
from elysia.core.persona import Persona

BROKEN = "\N{REPLACEMENT CHARACTER}"
NOT = r"(?:不是|不叫|并非|不算是|not|n't)\s*$"


@dataclass(frozen=True)
class Verdict:
    """Whether a reply is as wanted, and in a few words why (not)."""

    good: bool
    reason: str


@dataclass(frozen=True)
class Rates:
    """Shares, 0 to 1: identity questions answered rightly; ordinary ones into which the persona
    leaked.
    """

    identity_rate: float
    leak_rate: float
    identity_questions: int
    ordinary_questions: int

    def to_dict(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


def own_names(persona: Persona) -> tuple[str, ...]:
    """The whole names, one of which a reply about identity must say."""
    names = [persona.name, str(persona.ours.get("english_name") or "")]
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))


def all_names(persona: Persona) -> tuple[str, ...]:
    """Whole names and aliases; any of them in an ordinary answer is a leak."""
    aliases = persona.ours.get("aliases")
    longer = [str(a) for a in aliases if len(str(a)) > 1] if isinstance(aliases, list) else []
    return tuple(dict.fromkeys([*own_names(persona), *longer]))


def judge_identity(reply: str, persona: Persona) -> Verdict:
    """Good when the reply says a whole name, denies none, and claims no other assistant's."""
    found = [
        match for name in own_names(persona) for match in re.finditer(whole(name), reply, re.I)
    ]
    if not found:
        return Verdict(False, "its name is missing or garbled")
    if any(re.search(NOT, reply[: match.start()], re.I) for match in found):
        return Verdict(False, "it denies its name")
    if other := claimed(reply, ours=all_names(persona)):
        return Verdict(False, f"it claims to be {other}")
    return Verdict(True, f"says {found[0].group()}")


def judge_ordinary(reply: str, persona: Persona) -> Verdict:
    """Good when no name or alias of the persona appears in the answer to an ordinary question."""
    for name in all_names(persona):
        if re.search(whole(name) if name.isascii() else re.escape(name), reply, re.I):
            return Verdict(False, f"leaks {name}")
    return Verdict(True, "no leak")


def rates(identity: Sequence[Verdict], ordinary: Sequence[Verdict]) -> Rates:
    """Shares over two lists of verdicts; the rate of an empty list is 0."""
    right = sum(verdict.good for verdict in identity)
    leaked = sum(not verdict.good for verdict in ordinary)
    return Rates(
        right / len(identity) if identity else 0.0,
        leaked / len(ordinary) if ordinary else 0.0,
        len(identity),
        len(ordinary),
    )


def whole(name: str) -> str:
    """A pattern for `name` standing whole: no broken character beside it; a Latin name as a word;
    another name not followed by its own last character again (a stutter of small models).

    >>> [bool(re.search(whole("Elysia"), text)) for text in ("我是Elysia哦", "Elysian")]
    [True, False]
    """
    before, after = f"(?<!{BROKEN})", f"(?!{BROKEN})"
    if name.isascii():
        return rf"{before}(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_]){after}"
    return f"{before}{re.escape(name)}(?!{re.escape(name[-1])}){after}"
