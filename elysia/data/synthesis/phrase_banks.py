"""Phrase banks: many ways to ask the same thing, spelt out of our own patterns, and the answers.

A bank maps a kind of question to `asks` (choices `[a|b|]`; fields `{0}`, `{1}` filled from the
list that `over` names; `{name}`, `{english}`, `{nick}` of a character), `take` and `replies`. No
question that comes out is near one of the given probes. Knows nothing of dialogues or of files
written.
"""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import Any

from elysia.core.errors import DataError
from elysia.data.everyday import expand

SEED = 11
FRONTED = 0.25  # share of questions that follow a greeting, where their bank allows it (`front`)
CASUAL = 0.25  # share of questions that lose their closing mark (and, in English, their capital)
NEAR = 0.9  # from this likeness on, a question counts as the probe itself

Bank = Mapping[str, Any]
_FIELD = re.compile(r"\{\d\}")


@dataclass(frozen=True)
class DialogueTurn:
    """One exchange; `kind` is the bank it came from, `identity` whether it asks who she is."""

    ask: str
    reply: str
    kind: str
    identity: bool

    @property
    def lang(self) -> str:
        """`en` for banks named `en_...`, else `zh`."""
        return "en" if self.kind.startswith("en_") else "zh"


class QuestionFilter:
    """Decides which questions are kept: far from every probe, and none twice."""

    def __init__(self, probes: Iterable[str] = ()) -> None:
        self.probes = tuple(probes)
        self.seen: set[str] = set()

    def far(self, ask: str) -> bool:
        """Whether no probe is near."""
        return not any(is_too_near(ask, probe) for probe in self.probes)

    def take(self, ask: str) -> bool:
        """Whether to keep `ask`; it is remembered as kept."""
        if normalize_question(ask) in self.seen or not self.far(ask):
            return False
        self.seen.add(normalize_question(ask))
        return True


@cache
def normalize_question(text: str) -> str:
    """`text` without marks, spaces, case or full-width forms: what two equal questions share.

    >>> normalize_question("Who are YOU?") == normalize_question("who are you")
    True
    """
    return "".join(ch for ch in unicodedata.normalize("NFKC", text).lower() if ch.isalnum())


def is_one_edit_apart(a: str, b: str) -> bool:
    """Whether one inserted, dropped or replaced character, or none, makes `a` into `b`.

    >>> is_one_edit_apart("你是谁", "你是谁呀"), is_one_edit_apart("你是谁", "你叫啥")
    (True, False)
    """
    if abs(len(a) - len(b)) > 1:
        return False
    short, long = sorted((a, b), key=len)
    same = next((i for i, ch in enumerate(short) if ch != long[i]), len(short))
    return long[same + 1 :] in (short[same:], short[same + 1 :])


def is_too_near(ask: str, probe: str) -> bool:
    """Whether a question gives a probe away: one edit apart, or alike from NEAR on (difflib)."""
    a, b = normalize_question(ask), normalize_question(probe)
    if is_one_edit_apart(a, b):
        return True
    if 2 * min(len(a), len(b)) < NEAR * (len(a) + len(b)):
        return False  # no two texts of these lengths are so alike; spares nearly all comparisons
    match = _build_matcher(b)
    match.set_seq1(a)
    return match.quick_ratio() >= NEAR and match.ratio() >= NEAR


@cache
def _build_matcher(text: str) -> SequenceMatcher[str]:
    """A matcher of `text`: difflib keeps what it learned of its second sequence."""
    return SequenceMatcher(None, "", text, autojunk=False)


def load_probe_texts(folder: Path) -> list[str]:
    """The questions of every `probes*.json` in `folder`: lists, or objects of lists, of {text}."""
    texts = []
    for file in sorted(folder.glob("probes*.json")):
        found = load_json(file)
        rows = (
            found if isinstance(found, list) else [row for part in found.values() for row in part]
        )
        texts += [row if isinstance(row, str) else str(row["text"]) for row in rows]
    return texts


def load_json(file: Path) -> Any:
    """What a JSON file holds. DataError when it is missing or is not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"There is no file {file}; the checkout is not whole.") from None
    except ValueError as fault:
        raise DataError(f"{file} is not JSON: {fault}.") from fault


def load_banks(file: Path) -> dict[str, Any]:
    """The banks of a file. DataError when it is missing, not JSON or not an object."""
    banks = load_json(file)
    if not isinstance(banks, dict):
        raise DataError(
            f"{file} must hold an object, kind to bank; it is a {type(banks).__name__}."
        )
    return banks


def generate_turns(
    file: Path,
    kept: QuestionFilter,
    names: Mapping[str, str],
    *,
    identity: bool,
    replies: str = "replies",
) -> dict[str, list[DialogueTurn]]:
    """Of each bank of `file`, up to `take` turns, patterns and items used evenly; `kept` grows.

    `names` fills {name}, {english} and {nick}; `replies` is the key of the answers to draw from.
    The same file, names and `kept` give the same turns, and asked again, the next. DataError names
    a damaged bank.
    """
    banks = load_banks(file)
    made: dict[str, list[DialogueTurn]] = {}
    for kind, bank in banks.items():
        if kind.startswith("_"):
            continue
        # Seeded by kind: a change in one bank leaves the others alone.
        rng, answers = random.Random(f"{SEED} {kind}"), random.Random(f"{SEED} {kind} replies")
        made[kind] = []
        try:
            for ask in _generate_asks(bank, banks, names, rng):
                if len(made[kind]) == bank["take"]:
                    break
                if kept.take(ask):
                    reply = answers.choice(bank[replies]).format(**names)
                    made[kind].append(DialogueTurn(ask, reply.strip(), kind, identity))
        except (KeyError, IndexError, TypeError, AttributeError) as fault:
            raise DataError(f"{file}: the bank '{kind}' is damaged: {fault!r}.") from fault
    return made


def _generate_asks(
    bank: Bank, banks: Bank, names: Mapping[str, str], rng: random.Random
) -> Iterator[str]:
    items = banks[bank["over"]] if "over" in bank else []
    items = [[item] if isinstance(item, str) else item for item in items]
    own = {
        normalize_question(name) for name in names.values()
    }  # a character may bear the name of an assistant
    others = [item for item in items if normalize_question(item[0]) not in own]
    fronts = banks["_fronts"] if bank.get("front") else []
    for ask in _order_evenly(bank["asks"], others, names, rng):
        yield _as_typed(ask, fronts, rng)


def _order_evenly(
    asks: Sequence[str],
    items: Sequence[Sequence[str]],
    names: Mapping[str, str],
    rng: random.Random,
) -> list[str]:
    """Every reading of `asks`, in an order of which any first n use patterns and items evenly."""
    readings = [
        (pattern, item, reading.format(*item, **names))
        for pattern in asks
        for reading in expand(pattern)
        for item in (items if items and _FIELD.search(reading) else [()])
    ]
    rng.shuffle(readings)
    patterns: Counter[str] = Counter()
    named: Counter[tuple[str, ...]] = Counter()
    ranked = []
    for pattern, item, text in readings:
        patterns[pattern] += 1
        named[tuple(item)] += bool(item)
        ranked.append((max(patterns[pattern], named[tuple(item)]), text))
    return [text for _, text in sorted(ranked, key=lambda pair: pair[0])]


def _as_typed(ask: str, fronts: Sequence[str], rng: random.Random) -> str:
    """A question as people type it: some after a greeting, some without the closing mark."""
    casual, front = rng.random() < CASUAL, rng.random() < FRONTED
    text = (ask.rstrip("。.？?！!") or ask) if casual else ask
    if fronts and front:
        return str(rng.choice(fronts)) + text
    return text if casual else text[:1].upper() + text[1:]
