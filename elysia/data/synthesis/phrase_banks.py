"""Phrase banks: many ways to ask the same thing, spelt out from patterns, with their answers.

A bank maps a kind of question to `asks` (patterns with choices `[a|b|]`, fields `{0}`, `{1}` filled
from the list that `over` names, and `{name}`, `{english}`, `{nick}` of a character), `take` (how many
to make) and `replies`. No generated question is close to one of the given probes, so that the probes
stay unseen in training.
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
from itertools import product
from pathlib import Path
from typing import Any

from elysia.core.errors import DataError

IDENTITY_BANKS = ("elysia_identity_zh.json", "elysia_identity_en.json")
SEED = 11
FRONTED = 0.25  # share of questions that follow a greeting, where their bank allows it (`front`)
CASUAL = 0.25  # share of questions that lose their closing mark (and, in English, their capital)
NEAR = 0.9  # a question at least this similar to a probe (difflib's ratio) counts as the probe

Bank = Mapping[str, Any]
_FIELD = re.compile(r"\{\d\}")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True)
class DialogueTurn:
    """One exchange; `kind` is the bank it came from, `identity` whether it asks who the character is."""

    ask: str
    reply: str
    kind: str
    identity: bool

    @property
    def lang(self) -> str:
        """`en` for banks named `en_...`, else `zh`."""
        return "en" if self.kind.startswith("en_") else "zh"


Dialogue = tuple[DialogueTurn, ...]


def render_dialogues(dialogues: Iterable[Dialogue]) -> str:
    """Dialogues as a JSON array in XTuner's own format, one dialogue per line."""
    rows = (
        {"conversation": [{"input": turn.ask, "output": turn.reply} for turn in dialogue]}
        for dialogue in dialogues
    )
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


def expand_choices(text: str) -> list[str]:
    """Every reading of a text with choices.

    >>> expand_choices("[早|晚]安[！|]")
    ['早安！', '早安', '晚安！', '晚安']
    """
    parts = _CHOICE.split(text)
    options = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(choice) for choice in product(*options)]


class QuestionFilter:
    """Accepts questions that are far from every probe, each of them once."""

    def __init__(self, probes: Iterable[str] = ()) -> None:
        self.probes = tuple(probes)
        self._accepted: set[str] = set()

    def is_far_from_probes(self, ask: str) -> bool:
        """Whether no probe is close to `ask`."""
        return not any(is_too_near(ask, probe) for probe in self.probes)

    def accept(self, ask: str) -> bool:
        """Whether `ask` may be used; it is then remembered and refused the next time."""
        if normalize_question(ask) in self._accepted or not self.is_far_from_probes(ask):
            return False
        self._accepted.add(normalize_question(ask))
        return True


@cache
def normalize_question(text: str) -> str:
    """`text` without punctuation, spaces, case and full-width forms, to compare questions by.

    >>> normalize_question("Who are YOU?") == normalize_question("who are you")
    True
    """
    return "".join(ch for ch in unicodedata.normalize("NFKC", text).lower() if ch.isalnum())


def is_one_edit_apart(a: str, b: str) -> bool:
    """Whether `a` and `b` are equal or one inserted, deleted or replaced character apart.

    >>> is_one_edit_apart("你是谁", "你是谁呀"), is_one_edit_apart("你是谁", "你叫啥")
    (True, False)
    """
    if abs(len(a) - len(b)) > 1:
        return False
    short, long = sorted((a, b), key=len)
    same = next((i for i, ch in enumerate(short) if ch != long[i]), len(short))
    return long[same + 1 :] in (short[same:], short[same + 1 :])


def is_too_near(ask: str, probe: str) -> bool:
    """Whether a question gives a probe away: one edit apart, or similar by NEAR or more."""
    a, b = normalize_question(ask), normalize_question(probe)
    if is_one_edit_apart(a, b):
        return True
    if 2 * min(len(a), len(b)) < NEAR * (len(a) + len(b)):
        return False  # texts of such lengths cannot be so similar; saves nearly all comparisons
    match = _build_matcher(b)
    match.set_seq1(a)
    return match.quick_ratio() >= NEAR and match.ratio() >= NEAR


@cache
def _build_matcher(text: str) -> SequenceMatcher[str]:
    """A matcher against `text`, cached because difflib analyses its second sequence once."""
    return SequenceMatcher(None, "", text, autojunk=False)


def load_probe_texts(folder: Path) -> list[str]:
    """The questions of every `probes*.json` in `folder`: lists of {text}, or objects of such lists."""
    texts = []
    for file in sorted(folder.glob("probes*.json")):
        content = load_json(file)
        rows = (
            content
            if isinstance(content, list)
            else [row for part in content.values() for row in part]
        )
        texts += [row if isinstance(row, str) else str(row["text"]) for row in rows]
    return texts


def load_json(file: Path) -> Any:
    """The content of a JSON file. DataError when it is missing or not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("data.bank_missing", path=file) from None
    except ValueError as error:
        raise DataError("data.file_not_json", path=file, detail=str(error)) from error


def load_banks(file: Path) -> dict[str, Any]:
    """The banks of a file. DataError when it is missing, not JSON or not an object."""
    banks = load_json(file)
    if not isinstance(banks, dict):
        raise DataError("data.banks_not_object", path=file, type=type(banks).__name__)
    return banks


def generate_turns(
    file: Path,
    questions: QuestionFilter,
    names: Mapping[str, str],
    *,
    identity: bool,
    replies: str = "replies",
) -> dict[str, list[DialogueTurn]]:
    """Up to `take` turns of each bank of `file`, patterns and items used evenly.

    `names` fills {name}, {english} and {nick}; `replies` is the key of the answers to draw from.
    `questions` remembers what was used: the same file, names and filter give the same turns, and a
    second call gives the next ones. DataError names a damaged bank.
    """
    banks = load_banks(file)
    turns: dict[str, list[DialogueTurn]] = {}
    for kind, bank in banks.items():
        if kind.startswith("_"):
            continue
        # Seeded by kind: a change in one bank leaves the others alone.
        rng, answers = random.Random(f"{SEED} {kind}"), random.Random(f"{SEED} {kind} replies")
        turns[kind] = []
        try:
            for ask in _generate_asks(bank, banks, names, rng):
                if len(turns[kind]) == bank["take"]:
                    break
                if questions.accept(ask):
                    reply = answers.choice(bank[replies]).format(**names)
                    turns[kind].append(DialogueTurn(ask, reply.strip(), kind, identity))
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise DataError(
                "data.bank_damaged", path=file, kind=kind, detail=repr(error)
            ) from error
    return turns


def _generate_asks(
    bank: Bank, banks: Bank, names: Mapping[str, str], rng: random.Random
) -> Iterator[str]:
    items = banks[bank["over"]] if "over" in bank else []
    items = [[item] if isinstance(item, str) else item for item in items]
    # The banks ask "are you X?" of other assistants; a character may have the name of one.
    own = {normalize_question(name) for name in names.values()}
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
    """Every reading of `asks`, ordered so that the first n use patterns and items evenly for any n."""
    readings = [
        (pattern, item, reading.format(*item, **names))
        for pattern in asks
        for reading in expand_choices(pattern)
        for item in (items if items and _FIELD.search(reading) else [()])
    ]
    rng.shuffle(readings)
    patterns: Counter[str] = Counter()
    uses: Counter[tuple[str, ...]] = Counter()
    ranked = []
    for pattern, item, text in readings:
        patterns[pattern] += 1
        uses[tuple(item)] += bool(item)
        ranked.append((max(patterns[pattern], uses[tuple(item)]), text))
    return [text for _, text in sorted(ranked, key=lambda pair: pair[0])]


def _as_typed(ask: str, fronts: Sequence[str], rng: random.Random) -> str:
    """A question as people type it: some follow a greeting, some lack the closing mark."""
    casual, front = rng.random() < CASUAL, rng.random() < FRONTED
    text = (ask.rstrip("。.？?！!") or ask) if casual else ask
    if fronts and front:
        return str(rng.choice(fronts)) + text
    return text if casual else text[:1].upper() + text[1:]
