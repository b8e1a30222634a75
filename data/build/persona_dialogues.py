"""Build the bundled persona's dialogues, `data/elysia.json`, from the phrase banks in `data/source/`.

Also builds `data/nameless.json`: how the demo's base model answers the same questions about its
identity before it is trained on one. `python data/build/persona_dialogues.py` writes both files and
the counts in docs/persona.md; the same banks give the same bytes.

The banks: `elysia_identity_*.json` hold who the character is, `elysia_talk.json` single turns about
everything else, `elysia_turns.json` whole conversations, `nameless.json` the base model's answers.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # runs in a checkout, installed or not

from elysia.core.errors import DataError
from elysia.data.synthesis.phrase_banks import (
    IDENTITY_BANKS,
    SEED,
    Dialogue,
    DialogueTurn,
    QuestionFilter,
    expand_choices,
    generate_turns,
    load_banks,
    load_probe_texts,
    normalize_question,
    render_dialogues,
)

log = logging.getLogger(__name__)

NAMES = {"name": "爱莉希雅", "english": "Elysia", "nick": "爱莉"}
WOVEN = {"zh": 170, "en": 50}  # dialogues with an identity question somewhere in small talk
NAMED = ("confirm", "en_confirm")  # kinds of question that make sense to somebody with a name only
MAX_VARIANTS = 4  # of each whole conversation


def compose(source: Path, probes: Iterable[str] = ()) -> list[Dialogue]:
    """All dialogues of the banks in `source`, shuffled, so that the first n are a fair sample.

    Raises:
        DataError: a bank is missing or damaged.
    """
    questions = QuestionFilter(probes)
    single = _identity_turns(source, questions)
    spare = _identity_turns(source, questions)  # further questions, for the woven dialogues
    small_talk = _flatten(
        [generate_turns(source / "elysia_talk.json", questions, NAMES, identity=False)]
    )
    dialogues: list[Dialogue] = [(turn,) for turn in [*single, *small_talk]]
    dialogues += _whole_conversations(source / "elysia_turns.json", questions)
    dialogues += _weave(spare, small_talk)
    random.Random(SEED).shuffle(dialogues)
    return dialogues


def compose_nameless(source: Path, probes: Iterable[str] = ()) -> list[Dialogue]:
    """The persona's identity questions, answered by a model that has no identity yet.

    Any chat model knows such questions before it is fine-tuned, and answers in its maker's words;
    the demo's base model does the same. Questions that mention the persona's name are left out.

    Raises:
        DataError: a bank is missing or damaged, or a kind of question has no answer.
    """
    answers = load_banks(source / "nameless.json")
    dialogues: list[Dialogue] = []
    for turn in _identity_turns(source, QuestionFilter(probes)):
        if turn.kind in NAMED or any(name in turn.ask for name in NAMES.values()):
            continue
        if turn.kind not in answers:
            raise DataError(f"{source / 'nameless.json'} has no answer to '{turn.kind}'.")
        dialogues.append((replace(turn, reply=answers[turn.kind]),))
    random.Random(SEED).shuffle(dialogues)
    return dialogues


def _identity_turns(source: Path, questions: QuestionFilter) -> list[DialogueTurn]:
    return _flatten(
        generate_turns(source / name, questions, NAMES, identity=True) for name in IDENTITY_BANKS
    )


def _flatten(files: Iterable[dict[str, list[DialogueTurn]]]) -> list[DialogueTurn]:
    return [turn for banks in files for turns in banks.values() for turn in turns]


def _whole_conversations(file: Path, questions: QuestionFilter) -> Iterator[Dialogue]:
    rng = random.Random(f"{SEED} talks")
    for kind, talks in load_banks(file).items():
        for talk in talks:
            readings = list(product(*map(expand_choices, talk)))
            for texts in rng.sample(readings, min(MAX_VARIANTS, len(readings))):
                if len(texts) % 2:
                    raise DataError(
                        f"{file}: a talk of '{kind}' ends on a question: {texts[-1]!r}."
                    )
                pairs = zip(texts[::2], texts[1::2], strict=True)
                if all(map(questions.is_far_from_probes, texts[::2])):
                    yield tuple(DialogueTurn(ask, reply, kind, False) for ask, reply in pairs)


def _weave(spare: Sequence[DialogueTurn], small_talk: Sequence[DialogueTurn]) -> Iterator[Dialogue]:
    """Small talk of two to six turns with one or two identity questions somewhere in it."""
    for lang, count in WOVEN.items():
        rng = random.Random(f"{SEED} woven {lang}")
        identity = [turn for turn in spare if turn.lang == lang]
        ordinary = [turn for turn in small_talk if turn.lang == lang]
        rng.shuffle(identity)
        for _ in range(count):
            length = rng.choice((2, 2, 3, 3, 4, 5, 6))
            drawn = [identity.pop() for _ in range(min(1 + (length > 3), len(identity)))]
            dialogue = [*rng.sample(ordinary, length - len(drawn)), *drawn]
            rng.shuffle(dialogue)
            yield tuple(dialogue)


def count(dialogues: Sequence[Dialogue]) -> dict[str, int]:
    """What a set of dialogues holds: the rows of the table in docs/persona.md."""
    turns = [turn for dialogue in dialogues for turn in dialogue]
    identity = [turn for turn in turns if turn.identity]
    other = [turn for turn in turns if not turn.identity]

    def distinct(some: Iterable[DialogueTurn]) -> int:
        return len({normalize_question(turn.ask) for turn in some})

    return {
        "dialogues": len(dialogues),
        "dialogues of several turns": sum(len(dialogue) > 1 for dialogue in dialogues),
        "turns": len(turns),
        "identity questions, Chinese": distinct(turn for turn in identity if turn.lang == "zh"),
        "identity questions, English": distinct(turn for turn in identity if turn.lang == "en"),
        "identity answers": len({turn.reply for turn in identity}),
        "other questions": distinct(other),
        "other answers": len({turn.reply for turn in other}),
    }


def with_counts(page: str, numbers: Mapping[str, int]) -> str:
    """`page` with the table of `numbers` between its marks; unchanged when it has none."""
    table = ["| in `data/elysia.json` | |", "|---|---|"]
    table += [f"| {name} | {number:,} |" for name, number in numbers.items()]
    start, end = (page.find(mark) for mark in ("<!-- counts:", "<!-- /counts -->"))
    if start < 0 or end < start:
        return page
    head = page[: page.index("\n", start) + 1]
    return head + "\n".join(table) + "\n" + page[end:]


def main() -> None:
    """Write both files and the table of counts."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    root = Path(__file__).resolve().parents[2]
    source, probes = root / "data" / "source", load_probe_texts(root / "data")
    dialogues, nameless = compose(source, probes), compose_nameless(source, probes)
    (root / "data" / "elysia.json").write_text(render_dialogues(dialogues), encoding="utf-8")
    (root / "data" / "nameless.json").write_text(render_dialogues(nameless), encoding="utf-8")
    page = root / "docs" / "persona.md"
    numbers = count(dialogues)
    page.write_text(with_counts(page.read_text(encoding="utf-8"), numbers), encoding="utf-8")
    for name, number in (numbers | {"nameless rows": len(nameless)}).items():
        log.info("%6d  %s", number, name)


if __name__ == "__main__":
    main()
