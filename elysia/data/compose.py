"""Composes the bundled persona's dialogues (`data/elysia.json`) out of our own phrase banks, and what
the demo's base says to the same questions of identity before it has one (`data/nameless.json`).

`data/source/elysia_identity_*.json` hold who she is, `elysia_talk.json` single turns of everything
else, `elysia_turns.json` whole talks, `nameless.json` the base's answers. `python -m
elysia.data.compose` writes both files anew and the counts into docs/persona.md; the same banks give
the same bytes. Knows nothing of training, templates or verdicts.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from elysia.core.errors import DataError
from elysia.data.everyday import expand
from elysia.data.synthesis.phrase_banks import (
    SEED,
    DialogueTurn,
    QuestionFilter,
    generate_turns,
    load_banks,
    load_probe_texts,
    normalize_question,
)

log = logging.getLogger(__name__)

NAMES = {"name": "爱莉希雅", "english": "Elysia", "nick": "爱莉"}
IDENTITY = ("elysia_identity_zh.json", "elysia_identity_en.json")
WOVEN = {"zh": 170, "en": 50}  # dialogues with a question of identity somewhere among small talk
NAMED = ("confirm", "en_confirm")  # questions that only somebody with her name is asked
VARIANTS = 4  # of each whole talk, at most

Dialogue = tuple[DialogueTurn, ...]


def compose(source: Path, probes: Iterable[str] = ()) -> list[Dialogue]:
    """All dialogues of the banks in `source`, mixed, so that the first n are a fair sample.

    Raises:
        DataError: a bank is missing or damaged.
    """
    kept = QuestionFilter(probes)
    taken = _all(generate_turns(source / name, kept, NAMES, identity=True) for name in IDENTITY)
    spare = _all(generate_turns(source / name, kept, NAMES, identity=True) for name in IDENTITY)
    talk = _all([generate_turns(source / "elysia_talk.json", kept, NAMES, identity=False)])
    dialogues: list[Dialogue] = [(turn,) for turn in [*taken, *talk]]
    dialogues += _whole_talks(source / "elysia_turns.json", kept)
    dialogues += _woven(spare, talk)
    random.Random(SEED).shuffle(dialogues)
    return dialogues


def nameless(source: Path, probes: Iterable[str] = ()) -> list[Dialogue]:
    """The persona's questions of identity, answered by a model that is nobody yet.

    A chat model knows such a question before any fine-tune, and answers with its maker's words; so
    does the demo's base. Questions that say the persona's name are left out.

    Raises:
        DataError: a bank is missing or damaged, or a kind of question has no answer.
    """
    kept = QuestionFilter(probes)
    asked = _all(generate_turns(source / name, kept, NAMES, identity=True) for name in IDENTITY)
    answers = load_banks(source / "nameless.json")
    made: list[Dialogue] = []
    for turn in asked:
        if turn.kind in NAMED or any(name in turn.ask for name in NAMES.values()):
            continue
        if turn.kind not in answers:
            raise DataError(f"{source / 'nameless.json'} has no answer to '{turn.kind}'.")
        made.append((replace(turn, reply=answers[turn.kind]),))
    random.Random(SEED).shuffle(made)
    return made


def _all(files: Iterable[dict[str, list[DialogueTurn]]]) -> list[DialogueTurn]:
    return [turn for banks in files for made in banks.values() for turn in made]


def _whole_talks(file: Path, kept: QuestionFilter) -> Iterator[Dialogue]:
    rng = random.Random(f"{SEED} talks")
    for kind, talks in load_banks(file).items():
        for talk in talks:
            readings = list(product(*map(expand, talk)))
            for texts in rng.sample(readings, min(VARIANTS, len(readings))):
                if len(texts) % 2:
                    raise DataError(
                        f"{file}: a talk of '{kind}' ends on a question: {texts[-1]!r}."
                    )
                pairs = zip(texts[::2], texts[1::2], strict=True)
                if all(map(kept.far, texts[::2])):
                    yield tuple(DialogueTurn(ask, reply, kind, False) for ask, reply in pairs)


def _woven(spare: Sequence[DialogueTurn], talk: Sequence[DialogueTurn]) -> Iterator[Dialogue]:
    """Small talk of two to six turns with one or two questions of identity somewhere in it."""
    for lang, count in WOVEN.items():
        rng = random.Random(f"{SEED} woven {lang}")
        asked = [turn for turn in spare if turn.lang == lang]
        small = [turn for turn in talk if turn.lang == lang]
        rng.shuffle(asked)
        for _ in range(count):
            length = rng.choice((2, 2, 3, 3, 4, 5, 6))
            who = [asked.pop() for _ in range(min(1 + (length > 3), len(asked)))]
            woven = [*rng.sample(small, length - len(who)), *who]
            rng.shuffle(woven)
            yield tuple(woven)


def dump(dialogues: Iterable[Dialogue]) -> str:
    """The text of such a file: a JSON list in XTuner's own format, one dialogue a line."""
    rows = (
        {"conversation": [{"input": turn.ask, "output": turn.reply} for turn in dialogue]}
        for dialogue in dialogues
    )
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


def counts(dialogues: Sequence[Dialogue]) -> dict[str, int]:
    """What docs/persona.md tells of the file."""
    every = [turn for dialogue in dialogues for turn in dialogue]
    who = [turn for turn in every if turn.identity]
    other = [turn for turn in every if not turn.identity]
    return {
        "dialogues": len(dialogues),
        "dialogues of several turns": sum(len(dialogue) > 1 for dialogue in dialogues),
        "turns": len(every),
        "identity questions, Chinese": len(
            {normalize_question(t.ask) for t in who if t.lang == "zh"}
        ),
        "identity questions, English": len(
            {normalize_question(t.ask) for t in who if t.lang == "en"}
        ),
        "identity answers": len({turn.reply for turn in who}),
        "other questions": len({normalize_question(turn.ask) for turn in other}),
        "other answers": len({turn.reply for turn in other}),
    }


def with_counts(page: str, numbers: Mapping[str, int]) -> str:
    """`page` with the table of `numbers` between its marks; as it is when it has none."""
    table = ["| in `data/elysia.json` | |", "|---|---|"]
    table += [f"| {name} | {count:,} |" for name, count in numbers.items()]
    start, end = (page.find(mark) for mark in ("<!-- counts:", "<!-- /counts -->"))
    if start < 0 or end < start:
        return page
    head = page[: page.index("\n", start) + 1]
    return head + "\n".join(table) + "\n" + page[end:]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    _root = Path(__file__).resolve().parents[2]
    _source, _probes = _root / "data" / "source", load_probe_texts(_root / "data")
    _made, _nobody = compose(_source, _probes), nameless(_source, _probes)
    (_root / "data" / "elysia.json").write_text(dump(_made), encoding="utf-8")
    (_root / "data" / "nameless.json").write_text(dump(_nobody), encoding="utf-8")
    _page = _root / "docs" / "persona.md"
    _page.write_text(
        with_counts(_page.read_text(encoding="utf-8"), counts(_made)), encoding="utf-8"
    )
    for _name, _count in (counts(_made) | {"rows of nobody": len(_nobody)}).items():
        log.info("%6d  %s", _count, _name)
