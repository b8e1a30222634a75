"""Scorecards side by side: as a table of text and as an HTML page with plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from elysia.core.html_report import bar_chart, heading, paragraph, render_page, table
from elysia.evaluate.scorecard import MEASURES, compare_to_base

MAX_ANSWERS = 60  # of a model on the page
ScorecardDict = Mapping[str, Any]  # what PersonaScorecard.to_dict returns
GAINS = {
    "voice_gain": ("bits per character gained on the base", 1),
    "forgetting": ("growth of general perplexity on the base", -1),
    "general_lost": ("bits per character lost on general replies", -1),
    "choice_lost": ("loss of general choice on the base", -1),
}


def compute_gains(cards: Sequence[ScorecardDict]) -> dict[str, list[float | None]]:
    """The measures that need a comparison, a value per card: against the last one, which is the base."""
    gains = [compare_to_base(cards[-1]["measures"], card["measures"]) for card in cards]
    return {name: [gain[name] for gain in gains] for name in GAINS}


def iter_measures(
    cards: Sequence[ScorecardDict],
) -> Iterator[tuple[str, str, int, list[float | None]]]:
    """Every measure that some card has: its name, what it is, which way is better, and a value per card.

    The measures that compare several cards come last.
    """
    own = {name: [card["measures"].get(name) for card in cards] for name in MEASURES}
    every = own | (compute_gains(cards) if len(cards) > 1 else {})
    for name, (meaning, better) in (MEASURES | GAINS).items():
        if any(value is not None for value in every.get(name, ())):
            yield name, meaning, better, every[name]


def iter_rows(cards: Sequence[ScorecardDict]) -> Iterator[list[str]]:
    """A row per measure: its name, a value per card (the best marked), what it is."""
    for name, meaning, better, values in iter_measures(cards):
        yield [name, *_mark_best(values, better), meaning]


def render_text(cards: Sequence[ScorecardDict]) -> Iterator[str]:
    """The table as lines; * marks the best of a row."""
    head = ["", *(str(card["label"]) for card in cards), ""]
    body = [head, *iter_rows(cards)]
    widths = [max(len(line[column]) for line in body) for column in range(len(head))]
    for line in body:
        cells = [f"{line[0]:<{widths[0]}}"]
        cells += [f"{cell:>{width}}" for cell, width in zip(line[1:-1], widths[1:-1], strict=True)]
        yield "  ".join([*cells, line[-1]]).rstrip()


def render_html(cards: Sequence[ScorecardDict]) -> str:
    """A page: the table, a plot of every measure that differs, and answers of the models."""
    labels = [str(card["label"]) for card in cards]
    parts = [table(["measure", *labels, "what it is"], iter_rows(cards))]
    for name, meaning, _, values in iter_measures(cards):
        known = {
            label: float(value)
            for label, value in zip(labels, values, strict=True)
            if value is not None
        }
        if len(set(known.values())) > 1:
            parts.append(bar_chart(f"{name}: {meaning}", known))
    for card in cards:
        parts.append(heading(f"What {card['label']} said"))
        answers = [
            (a["kind"], a["question"], a["reply"], a.get("true", a.get("good", "")))
            for a in _pick_answers(card["answers"])
        ]
        parts.append(table(("kind", "question", "reply", "true reply, or verdict"), answers))
    parts.append(paragraph("* marks the best value of a row."))
    return render_page("Persona scorecard", *parts)


def _pick_answers(answers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Some answers of every kind."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for answer in answers:
        kinds.setdefault(str(answer["kind"]), []).append(answer)
    each = MAX_ANSWERS // max(len(kinds), 1)
    return [answer for some in kinds.values() for answer in some[:each]]


def _mark_best(values: Sequence[float | None], better: int) -> list[str]:
    known = [value for value in values if value is not None]
    best = max(known) if better > 0 else min(known)
    mark = better != 0 and len(set(known)) > 1
    return [
        "-" if value is None else f"{value:.3g}" + ("*" if mark and value == best else "")
        for value in values
    ]
