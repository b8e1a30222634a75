"""Facts about the user and their slots: what both languages' patterns give."""

from __future__ import annotations

import re
from dataclasses import dataclass

from elysia.retrieval.analyzer import stem

_ARTICLES = {"the", "a", "an", "of", "my", "so", "too", "very", "much", "really"}


@dataclass(frozen=True)
class UserFact:
    """A fact about the user, in the user's words. Importance is from 0 to 1.

    With `against`, it only matters where a fact of the slot with that word is known, which it ends; a
    slot that ends in `*` then stands for every slot that begins so.
    """

    slot: str
    text: str
    importance: float = 0.7
    against: str | None = None


def build_slot_name(thing: str) -> str:
    """What a slot calls a thing: "Playing pianos" and "play piano" give the same name.

    >>> build_slot_name("playing the piano") == build_slot_name("play pianos")
    True
    """
    thing = re.sub(r"^(?:the|a|an|to|some|any|my|more|much)\s+", "", thing.strip().casefold())
    words = [stem(word) for word in re.findall(r"[^\W_]+", thing) if word not in _ARTICLES]
    return " ".join(words)[:60]
