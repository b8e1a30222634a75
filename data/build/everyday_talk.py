"""Build the bundled everyday conversations, `data/chat.json`, from the phrase banks in `data/source/`.

A bank file (`everyday_*.json`) maps an intent to a bank: `asks` and `replies`, or whole `talks` (ask,
reply, ask, reply, ...). Asks hold choices, `[a|b|]`, and fields `{0}`, `{1}` that are filled from
`items` (or from the computed list that `make` names). `each` limits the rows of an item, `take` those
of the intent; `near` marks questions that resemble identity questions but are none.
`python data/build/everyday_talk.py` writes the file; the same banks give the same bytes.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # runs in a checkout, installed or not

from elysia.core.errors import DataError
from elysia.data.synthesis.phrase_banks import expand_choices

SEED = 20
CHAINS = {"zh": 80, "en": 20}  # conversations joined of unrelated single rows
CASUAL = 0.2  # share of asks that lose their closing mark, as people type

_MARKS = re.compile(r"[\s，。！？,.!?]")
_CLOSING = "？。！?.!"
_DIGITS = "零一二三四五六七八九十"


@dataclass(frozen=True)
class EverydayRow:
    """One conversation: `turns` alternates ask and reply; `near` as in the module's docstring."""

    intent: str
    turns: tuple[str, ...]
    near: bool = False

    @property
    def lang(self) -> str:
        """`en` for intents named `en_...`, else `zh`."""
        return "en" if self.intent.startswith("en_") else "zh"

    def to_json(self) -> dict[str, list[dict[str, str]]]:
        """The row in XTuner's own format."""
        pairs = zip(self.turns[::2], self.turns[1::2], strict=True)
        return {"conversation": [{"input": ask, "output": reply} for ask, reply in pairs]}


def chinese_number(value: int) -> str:
    """A number of 0 to 99 in Chinese characters.

    >>> [chinese_number(n) for n in (0, 10, 12, 20, 45)]
    ['零', '十', '十二', '二十', '四十五']
    """
    if value <= 10:
        return _DIGITS[value]
    tens, ones = divmod(value, 10)
    return (_DIGITS[tens] if tens > 1 else "") + "十" + (_DIGITS[ones] if ones else "")


def _sum_like(left: int, right: int, result: int) -> list[str]:
    return [chinese_number(left), chinese_number(right), str(left), str(right), chinese_number(result), str(result)]


def computed_items(name: str) -> list[list[str]]:
    """The items of a bank that are computed rather than written down (small whole numbers).

    Raises:
        DataError: no computed list has that name.
    """
    digits = range(1, 10)
    if name == "sums":
        return [_sum_like(a, b, a + b) for a in digits for b in digits]
    if name == "differences":
        return [_sum_like(a, b, a - b) for a in range(2, 13) for b in digits if b <= a]
    if name == "products":
        return [_sum_like(a, b, a * b) for a in digits for b in digits]
    if name == "successors":
        return [[chinese_number(n), chinese_number(n + 1)] for n in range(1, 20)]
    if name == "pairs":
        return [[chinese_number(a), chinese_number(b), chinese_number(max(a, b))] for a in digits for b in digits if a != b]
    if name == "counts":
        return [[chinese_number(n), "、".join(chinese_number(i) for i in range(1, n + 1))] for n in range(3, 11)]
    raise DataError(f"No computed list is called {name!r} (key `make` of an everyday bank).")


def _casual(ask: str, rng: random.Random) -> str:
    if rng.random() >= CASUAL or len(ask) < 3:
        return ask
    bare = ask.rstrip(_CLOSING)
    return bare.lower() if bare.isascii() else bare


def _bank_rows(intent: str, bank: dict[str, Any], rng: random.Random) -> Iterator[EverydayRow]:
    """The rows of one intent, before `take`; asks are unique within an item."""
    near = bool(bank.get("near", False))
    make = bank.get("make")
    for item in computed_items(make) if make else bank.get("items", [[]]):
        if "talks" in bank:
            talks = [t for talk in bank["talks"] for t in product(*map(expand_choices, talk))]
        else:
            asks = list(dict.fromkeys(a for ask in bank["asks"] for a in expand_choices(ask)))
            talks = [(ask, rng.choice(bank["replies"])) for ask in asks]
        for talk in rng.sample(talks, min(len(talks), bank.get("each", len(talks)))):
            turns = [text.format(*item) for text in talk]
            turns[::2] = [_casual(ask, rng) for ask in turns[::2]]
            yield EverydayRow(intent, tuple(turns), near)


def _key(row: EverydayRow) -> tuple[str, ...]:
    return tuple(_MARKS.sub("", ask).lower() for ask in row.turns[::2])


def _chains(rows: list[EverydayRow]) -> Iterator[EverydayRow]:
    """Conversations of two or three unrelated turns, so that a new question gets its own answer."""
    for lang, count in CHAINS.items():
        rng = random.Random(f"{SEED} chains {lang}")
        single = [row for row in rows if row.lang == lang and len(row.turns) == 2]
        for _ in range(count):
            parts = rng.sample(single, rng.choice((2, 2, 3)))
            name = "en_chain" if lang == "en" else "chain"
            yield EverydayRow(name, tuple(text for row in parts for text in row.turns))


def _read_banks(file: Path) -> dict[str, Any]:
    try:
        banks = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise DataError(f"{file} is not JSON: {fault}.") from fault
    if not isinstance(banks, dict):
        raise DataError(f"{file} must map intents to banks; it holds a {type(banks).__name__}.")
    return banks


def compose(source: Path) -> list[EverydayRow]:
    """All rows of the banks in the folder `source`, no two with the same asks, in a mixed order.

    Asks that differ in marks, spaces or case alone count as the same; the first stays.

    Raises:
        DataError: the folder holds no `everyday_*.json`, or a bank is damaged.
    """
    files = sorted(source.glob("everyday_*.json"))
    if not files:
        raise DataError(f"{source} holds no everyday_*.json; give the folder of the phrase banks.")
    rows: dict[tuple[str, ...], EverydayRow] = {}
    for file in files:
        for intent, bank in _read_banks(file).items():
            rng = random.Random(f"{SEED} {intent}")  # a change in one bank leaves the others alone
            try:
                candidates = list(_bank_rows(intent, bank, rng))
            except (KeyError, IndexError, TypeError, AttributeError) as fault:
                raise DataError(f"{file}: the bank {intent!r} is damaged: {fault!r}.") from fault
            for row in rng.sample(candidates, min(len(candidates), bank.get("take", len(candidates)))):
                rows.setdefault(_key(row), row)
    for row in _chains(list(rows.values())):
        rows.setdefault(_key(row), row)
    ordered = list(rows.values())
    random.Random(SEED).shuffle(ordered)  # the first n rows are a fair sample
    return ordered


def dump(rows: list[EverydayRow]) -> str:
    """The text of `data/chat.json`: a JSON list, one conversation on a line."""
    lines = [json.dumps(row.to_json(), ensure_ascii=False) for row in rows]
    return "[\n" + ",\n".join(lines) + "\n]\n"


if __name__ == "__main__":
    _data = Path(__file__).resolve().parents[1]
    (_data / "chat.json").write_text(dump(compose(_data / "source")), encoding="utf-8")
