"""Each step from what was written to what is said, for `--explain`.

Knows nothing of models or sound.
"""

from __future__ import annotations

from collections.abc import Collection

from elysia.voice.text import spans
from elysia.voice.text.cleaners import clean
from elysia.voice.text.mandarin import words
from elysia.voice.text.strip import strip
from elysia.voice.text.symbols import pinyin_of


def prepare(text: str, *, directions: bool = False) -> str:
    """What is said of `text`, in words: stripped and normalised. Empty when nothing is."""
    said = spans.normalise(strip(text, directions=directions))
    return said if any(char.isalnum() for char in said) else ""


def explain(
    text: str,
    cleaner: str = "cjke_cleaners2",
    symbols: Collection[str] | None = None,
    *,
    directions: bool = False,
) -> list[tuple[str, str]]:
    """(step, what it gave) in order; `symbols` are the model's, to show what it would lose."""
    stripped = strip(text, directions=directions)
    said = prepare(text, directions=directions)
    parts = spans.split(said)
    cleaned = clean(said, cleaner)
    steps = [
        ("text", text),
        ("stripped", stripped),
        ("normalised", said),
        ("languages", " | ".join(f"{part.language}: {part.text.strip()}" for part in parts)),
        ("pinyin", _pinyin(parts)),
        (cleaner, cleaned.symbols),
    ]
    if cleaned.unsaid:
        steps.append(("not said", " | ".join(cleaned.unsaid)))
    if symbols is not None:
        lost = sorted({char for char in cleaned.symbols if char not in set(symbols)})
        steps.append(("unknown to the model", " ".join(lost) or "nothing"))
    return steps


def _pinyin(parts: list[spans.Span]) -> str:
    said = [
        "".join(f"{pinyin_of(s.bopomofo)}{s.tone}" for s in word.syllables) or word.text.strip()
        for part in parts
        if part.language == "zh"
        for word in words(part.text)
    ]
    return " ".join(filter(None, said))
