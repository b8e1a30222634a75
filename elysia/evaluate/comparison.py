"""Scorecards side by side: as a table of text and as a page with plots. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from elysia.core.page import bars, heading, page, paragraph, table
from elysia.evaluate.scorecard import MEASURES, against

SHOWN = 60  # answers of a model on the page
Card = Mapping[str, Any]  # what Scorecard.to_dict gives
GAINS = {
    "voice_gain": ("bits per character gained on the base", 1),
    "forgetting": ("growth of general perplexity on the base", -1),
    "general_lost": ("bits per character lost on general replies", -1),
    "choice_lost": ("loss of general choice on the base", -1),
}


def derived(cards: Sequence[Card]) -> dict[str, list[float | None]]:
    """What only a comparison shows, a value a card: against the last one, which is the base."""
    found = [against(cards[-1]["measures"], card["measures"]) for card in cards]
    return {name: [of_card[name] for of_card in found] for name in GAINS}


def taken(cards: Sequence[Card]) -> Iterator[tuple[str, str, int, list[float | None]]]:
    """Every measure that was taken of a card: its name, what it is, which way is better, and a value
    a card; last what several cards show of each other."""
    own = {name: [card["measures"].get(name) for card in cards] for name in MEASURES}
    every = own | (derived(cards) if len(cards) > 1 else {})
    for name, (meaning, better) in (MEASURES | GAINS).items():
        if any(value is not None for value in every.get(name, ())):
            yield name, meaning, better, every[name]


def rows(cards: Sequence[Card]) -> Iterator[list[str]]:
    """A row a measure that was taken: its name, a value a card (the best marked), what it is."""
    for name, meaning, better, values in taken(cards):
        yield [name, *_marked(values, better), meaning]


def as_text(cards: Sequence[Card]) -> Iterator[str]:
    """The table as lines; * marks the best of a row."""
    head = ["", *(str(card["label"]) for card in cards), ""]
    body = [head, *rows(cards)]
    widths = [max(len(line[column]) for line in body) for column in range(len(head))]
    for line in body:
        cells = [f"{line[0]:<{widths[0]}}"]
        cells += [f"{cell:>{width}}" for cell, width in zip(line[1:-1], widths[1:-1], strict=True)]
        yield "  ".join([*cells, line[-1]]).rstrip()


def as_html(cards: Sequence[Card]) -> str:
    """A page: the table, a plot of every measure that differs, and what the models said."""
    labels = [str(card["label"]) for card in cards]
    parts = [table(["measure", *labels, "what it is"], rows(cards))]
    for name, meaning, _, values in taken(cards):
        known = {
            label: float(value)
            for label, value in zip(labels, values, strict=True)
            if value is not None
        }
        if len(set(known.values())) > 1:
            parts.append(bars(f"{name}: {meaning}", known))
    for card in cards:
        parts.append(heading(f"What {card['label']} said"))
        said = [
            (a["kind"], a["question"], a["reply"], a.get("true", a.get("good", "")))
            for a in _spread(card["answers"])
        ]
        parts.append(table(("kind", "question", "reply", "true reply, or verdict"), said))
    parts.append(paragraph("* marks the best value of a row."))
    return page("Persona scorecard", *parts)


def _spread(answers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Some answers of every kind."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for answer in answers:
        kinds.setdefault(str(answer["kind"]), []).append(answer)
    each = SHOWN // max(len(kinds), 1)
    return [answer for some in kinds.values() for answer in some[:each]]


def _marked(values: Sequence[float | None], better: int) -> list[str]:
    known = [value for value in values if value is not None]
    best = max(known) if better > 0 else min(known)
    mark = better != 0 and len(set(known)) > 1
    return [
        "-" if value is None else f"{value:.3g}" + ("*" if mark and value == best else "")
        for value in values
    ]
