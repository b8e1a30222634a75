"""`normalize_text`: from text as written to the words that are spoken. And every step of it, to look at."""

from __future__ import annotations

from collections.abc import Collection

from elysia.voice.frontend import language_id
from elysia.voice.frontend.cleaners import bopomofo_to_pinyin, clean_text
from elysia.voice.frontend.g2p_zh import text_to_words
from elysia.voice.frontend.strip_markup import strip_markup


def normalize_text(text: str, *, directions: bool = False) -> str:
    """`text` without markup, numbers written out; empty when nothing of it can be spoken.

    `directions` also reads stage directions: *actions* and （动作）.
    """
    words = language_id.normalize_numbers(strip_markup(text, directions=directions))
    return words if any(char.isalnum() for char in words) else ""


def explain_steps(
    text: str,
    cleaner: str = "cjke_cleaners2",
    symbols: Collection[str] | None = None,
    *,
    directions: bool = False,
) -> list[tuple[str, str]]:
    """(step, result) in order, for `voice explain`; `symbols` are a model's, to show what it would lose."""
    stripped = strip_markup(text, directions=directions)
    words = normalize_text(text, directions=directions)
    parts = language_id.split_languages(words)
    cleaned = clean_text(words, cleaner)
    steps = [
        ("text", text),
        ("stripped", stripped),
        ("normalised", words),
        ("languages", " | ".join(f"{part.language}: {part.text.strip()}" for part in parts)),
        ("pinyin", _join_pinyin(parts)),
        (cleaner, cleaned.symbols),
    ]
    if cleaned.unsaid:
        steps.append(("not said", " | ".join(cleaned.unsaid)))
    if symbols is not None:
        lost = sorted({char for char in cleaned.symbols if char not in set(symbols)})
        steps.append(("unknown to the model", " ".join(lost) or "nothing"))
    return steps


def _join_pinyin(parts: list[language_id.LanguageSpan]) -> str:
    words = [
        "".join(f"{bopomofo_to_pinyin(s.bopomofo)}{s.tone}" for s in word.syllables)
        or word.text.strip()
        for part in parts
        if part.language == "zh"
        for word in text_to_words(part.text)
    ]
    return " ".join(filter(None, words))
