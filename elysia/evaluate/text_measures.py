"""Measures of replies as text: similarity to the true ones, variety, voice, catchphrases, copying,
speaking for the user, repetition. Every function takes texts and returns plain numbers."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

SEED = 0
MAX_CATCHPHRASES = 20
COPY_LENGTH = 8  # words or Chinese characters in a row that count as copied
TOKEN_PATTERN = re.compile(r"[A-Za-z']+|[\u4e00-\u9fff]|\d+")
# The beginning of a user's turn, or of a line in a script, inside a reply.
USER_TURN = re.compile(
    r"<\|im_start\|>|<\|(?:user|User)\|>|\[INST\]"
    r"|(?:^|\n)\s*(?:User|Human|用户|你|\{\{user\}\}|Question|问)\s*[:：]"
)
LOOP_PATTERN = re.compile(r"(.{2,40}?)\1{3,}", re.S)


def compute_chrf(replies: Sequence[str], truths: Sequence[str]) -> float:
    """Corpus chrF of replies against the true ones, 0 to 100 (Popovic 2015, by sacrebleu)."""
    from sacrebleu.metrics.chrf import CHRF

    return float(CHRF().corpus_score(list(replies), [list(truths)]).score)


def compute_distinct(replies: Sequence[str], size: int) -> float:
    """Share of distinct n-grams (of words and Chinese characters) among all n-grams; Li et al. 2016.

    >>> compute_distinct(["好 好 好", "好"], 1)
    0.25
    """
    grams = [gram for reply in replies for gram in _get_ngrams(reply, size)]
    return len(set(grams)) / max(len(grams), 1)


class StyleClassifier:
    """A classifier of a character's lines against other speakers', by character n-grams.

    `accuracy` comes from five-fold cross-validation: how well the voice can be recognised at all.
    """

    def __init__(self, own: Sequence[str], others: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_score
        from sklearn.pipeline import make_pipeline

        texts, labels = [*own, *others], [1] * len(own) + [0] * len(others)
        self.pipe: Any = make_pipeline(
            TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True),
            LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000),
        )
        folds = StratifiedKFold(5, shuffle=True, random_state=SEED)
        scores = cross_val_score(self.pipe, texts, labels, cv=folds, scoring="balanced_accuracy")
        self.accuracy = float(scores.mean())
        self.pipe.fit(texts, labels)

    def share(self, replies: Sequence[str]) -> float:
        """The share of replies that are classified as the character's."""
        return float(self.pipe.predict(list(replies)).mean()) if replies else 0.0


def find_catchphrases(own: Sequence[str], others: Sequence[str]) -> list[str]:
    """Runs of two to six characters that are typical of the character's lines, most typical first.

    They occur in at least 2 % of its lines and five times as often as in others'; none contains
    another.
    """
    counts, other_counts = _count_lines_with_run(own), _count_lines_with_run(others)
    minimum = max(3, 0.02 * len(own))
    scores: dict[str, float] = {}
    for phrase, count in counts.items():
        rate, other_rate = count / len(own), (other_counts[phrase] + 0.5) / (len(others) + 1)
        if count >= minimum and rate >= 5 * other_rate:
            scores[phrase] = rate * math.log(rate / other_rate) * math.sqrt(len(phrase))
    chosen: list[str] = []
    for phrase in sorted(scores, key=lambda p: (-scores[p], p)):
        if not any(phrase in other or other in phrase for other in chosen):
            chosen.append(phrase)
        if len(chosen) == MAX_CATCHPHRASES:
            break
    return chosen


def count_per_line(phrases: Sequence[str], lines: Sequence[str]) -> float:
    """Catchphrases per line."""
    return sum(line.count(phrase) for line in lines for phrase in phrases) / max(len(lines), 1)


def measure_rate_distance(measured: float, expected: float) -> float:
    """How far a rate is from the corpus's, in doublings; too few and too many count alike.

    >>> measure_rate_distance(0.5, 0.5), round(measure_rate_distance(1.0, 0.5), 1)
    (0.0, 1.0)
    """
    return abs(math.log2((measured + 0.01) / (expected + 0.01)))


def measure_longest_copies(replies: Sequence[str], training: Sequence[str]) -> list[int]:
    """For each reply, the length in characters of its longest run that a training reply contains."""
    text = "\0".join(training)
    lengths = []
    for reply in replies:
        # A run only matters if it is longer than the best so far, so the window never shrinks.
        best = start = 0
        for end in range(1, len(reply) + 1):
            if end - start > best and reply[start:end] in text:
                best = end - start
            elif end - start > best:
                start += 1
        lengths.append(best)
    return lengths


def find_copied_replies(
    replies: Sequence[str], truths: Sequence[str], training: Sequence[str], size: int = COPY_LENGTH
) -> list[bool]:
    """For each reply, whether it has a run of `size` words or Chinese characters from a training reply
    that its true reply lacks: repeating what is right there is not copying.

    >>> training = ["the rose by the window is open again today"]
    >>> find_copied_replies(["by the window is open again today"], [""], training, 4)
    [True]
    >>> find_copied_replies(["by the window"], [""], training, 4)
    [False]
    >>> find_copied_replies(["by the window is open"], ["by the window is open"], training, 4)
    [False]
    """
    known = {gram for text in training for gram in _get_ngrams(text, size)}
    return [
        any(gram in known for gram in set(_get_ngrams(reply, size)) - set(_get_ngrams(truth, size)))
        for reply, truth in zip(replies, truths, strict=True)
    ]


def speaks_for_user(reply: str) -> bool:
    """Whether a reply continues with a turn of the user."""
    return bool(USER_TURN.search(reply))


def has_loop(reply: str) -> bool:
    """Whether a run of characters is repeated four times or more in a row.

    >>> has_loop("好的好的好的好的"), has_loop("哈哈哈")
    (True, False)
    """
    return bool(LOOP_PATTERN.search(reply))


def _get_ngrams(text: str, size: int) -> list[tuple[str, ...]]:
    """Runs of `size` words, numbers and Chinese characters, in order."""
    tokens = TOKEN_PATTERN.findall(text.lower())
    return list(zip(*(tokens[start:] for start in range(size)), strict=False))


def _count_lines_with_run(lines: Sequence[str]) -> Counter[str]:
    """The number of lines in which each run of two to six characters occurs."""
    counts: Counter[str] = Counter()
    for line in lines:
        parts = re.findall(r"[\u4e00-\u9fff～~]+|[A-Za-z']+(?: [A-Za-z']+)*", line)
        runs = {
            part[start : start + size]
            for part in parts
            for size in (2, 3, 4, 5, 6)
            for start in range(len(part) - size + 1)
        }
        counts.update(runs)
    return counts
