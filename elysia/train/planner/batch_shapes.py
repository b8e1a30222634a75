"""The micro-batches of an epoch by their lengths alone, as training would draw them, and what the data are
like.

Knows nothing of models, memory or time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elysia.models import loading
from elysia.train.config.builder import build_dataset_config
from elysia.train.config.preflight import resolve_tokenizer
from elysia.train.config.settings import Settings
from elysia.train.data import microbatch
from elysia.train.data.dataset import EpochSampler, PackedDataset


@dataclass(frozen=True)
class MicroBatchShape:
    """A micro-batch: lengths of its samples, whether they are padded to rows, learned tokens."""

    lengths: tuple[int, ...]
    padded: bool
    learned: int

    @property
    def tokens(self) -> int:
        """Tokens, padding not counted."""
        return sum(self.lengths)

    def shape(self, device: str, sharing: int = 1) -> dict[str, Any]:
        """As `Outline` takes it; `sharing` processes have a slice of the row each."""
        rows, length = 1, self.tokens
        if self.padded:
            rows, length = len(self.lengths), max(self.lengths)
        else:
            length += -length % (sharing * (64 if device == "cpu" else 1))
        segments = None if self.padded else list(self.lengths)
        return {"shape": (rows, length), "segments": segments, "predictions": self.learned}

    def pieces(self, each: int) -> list[MicroBatchShape]:
        """As a CPU takes it: `each` samples, or whole pieces of some hundred tokens (`microbatch.within`)."""
        if self.padded:
            return [self]
        sizes = [sum(self.lengths[i : i + each]) for i in range(0, len(self.lengths), each)]
        cuts = microbatch.chunk_by_size(sizes, microbatch.CPU_TOKENS)
        parts = [self.lengths[a * each : b * each] for a, b in itertools.pairwise(cuts)]
        return [
            MicroBatchShape(p, False, round(self.learned * sum(p) / self.tokens)) for p in parts
        ]

    def within(self, room: int) -> MicroBatchShape:
        """Its first samples, as far as `room` tokens hold them."""
        kept: list[int] = []
        for length in self.lengths:
            kept.append(min(length, room))
            room -= kept[-1]
            if not room:
                break
        return MicroBatchShape(
            tuple(kept), self.padded, round(self.learned * sum(kept) / self.tokens)
        )


@dataclass(frozen=True)
class EpochShapes:
    """An epoch's micro-batches, what the data are like, and notes.

    `words`: the ids that training will come across, None where the rows could not be read; `dataset`
    is kept for what it holds in memory.
    """

    micros: list[MicroBatchShape]
    data: dict[str, Any]
    notes: list[str]
    words: NDArray[np.int64] | None = None
    dataset: Any = None


def load_shapes(settings: Settings, folder: str) -> EpochShapes:
    """The rows of the settings' sources. Without a tokenizer they cannot be read: full packs, all
    learned, stand in for them.
    """
    padded = settings.attention in ("sdpa", "eager")
    spelling = resolve_tokenizer(settings, folder)
    if not any((Path(spelling) / name).is_file() for name in loading.TOKENIZER_FILES):
        each, count = 1 + settings.pairs, settings.batch_size
        lengths = (settings.max_length // each,) * each * count
        full = MicroBatchShape(lengths, padded, sum(lengths))
        note = (
            f"{spelling} has no tokenizer: full packs, every token learned, stand in for the data."
        )
        return EpochShapes([full] * settings.accumulative_counts, {}, [note])
    dataset = PackedDataset(**build_dataset_config(settings, spelling))
    sampler = EpochSampler(
        dataset, settings.seed, settings.sampler != "sequential", settings.batch_size,
        settings.sampler == "length_grouped",
    )  # fmt: skip
    order = list(sampler)
    micros = list(_iter_micro_batches(dataset, order, settings.batch_size, padded))
    count = settings.max_steps * settings.accumulative_counts * settings.batch_size or len(order)
    met: set[int] = set()  # pack by pack: joined they would take as much memory as the data
    for i in order[:count]:
        met.update(np.unique(dataset[i]["ids"]).tolist())
    words = np.array(sorted(met), dtype=np.int64)
    return EpochShapes(micros, _describe_data(dataset, micros, settings), [], words, dataset)


def pick_typical(micros: list[MicroBatchShape]) -> MicroBatchShape:
    """The one nearest to the mean, in tokens and in learned ones: each has a cost of its own."""
    tokens = float(np.mean([m.tokens for m in micros]))
    learned = max(float(np.mean([m.learned for m in micros])), 1.0)
    return min(micros, key=lambda m: abs(m.tokens / tokens - 1) + abs(m.learned / learned - 1))


def _iter_micro_batches(
    dataset: Any, order: list[int], size: int, padded: bool
) -> Iterator[MicroBatchShape]:
    lengths, learned, each = dataset.tokens.lengths, dataset.tokens.labelled, dataset.each
    for start in range(0, len(order), size):
        packs = [dataset.packs[i if i >= 0 else ~i] for i in order[start : start + size]]
        members = [g * each + half for pack in packs for g in pack for half in range(each)]
        yield MicroBatchShape(
            tuple(int(lengths[i]) for i in members), padded, int(sum(learned[i] for i in members))
        )


def _describe_data(
    dataset: Any, micros: list[MicroBatchShape], settings: Settings
) -> dict[str, Any]:
    tokens, rows = dataset.tokens, dataset.rows
    total = int(tokens.lengths.sum())
    positions = sum(
        len(m.lengths) * max(m.lengths) if m.padded else m.tokens + -m.tokens % 64 for m in micros
    )
    return {
        "rows": rows,
        "dropped": tokens.dropped / rows,
        "truncated": tokens.cut / rows,
        "tokens": total,
        "labelled": int(tokens.labelled.sum()) / total,
        "longest": int(tokens.lengths.max()),
        "packs": len(dataset),
        "filled": total / (len(dataset) * settings.max_length),
        "padding": 1 - sum(m.tokens for m in micros) / positions,
    }
