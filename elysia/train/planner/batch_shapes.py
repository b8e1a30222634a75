"""The micro-batches of an epoch by their lengths alone, as training draws them, and what the data are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elysia.models import loading
from elysia.train.config.builder import build_dataset_config
from elysia.train.config.settings import Settings
from elysia.train.config.validation import resolve_tokenizer
from elysia.train.data import microbatch
from elysia.train.data.dataset import EpochSampler, PackedDataset
from elysia.train.planner.flops import BatchLoad


@dataclass(frozen=True)
class MicroBatchShape:
    """A micro-batch: its samples' lengths, whether they are padded to rows, how many tokens are learned,
    and its packs (indices of the training's dataset)."""

    lengths: tuple[int, ...]
    padded: bool
    learned: int
    packs: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens, padding not counted."""
        return sum(self.lengths)

    def load(self, device: str, segments: bool = True) -> BatchLoad:
        """What the network computes of it. segments: whether attention sees each sample by itself."""
        return BatchLoad.from_lengths(self.lengths, self.padded, self.learned, device, segments)

    def pieces(self, group: int) -> list[MicroBatchShape]:
        """As a CPU takes it (`microbatch.split_by_tokens`): whole groups of `group` samples, some
        hundred tokens together."""
        if self.padded:
            return [self]
        sizes = [sum(self.lengths[i : i + group]) for i in range(0, len(self.lengths), group)]
        cuts = microbatch.chunk_by_size(sizes, microbatch.CPU_TOKENS)
        parts = [self.lengths[a * group : b * group] for a, b in itertools.pairwise(cuts)]
        return [self._replace_lengths(part) for part in parts]

    def shorten(self, room: int) -> MicroBatchShape:
        """Its first samples, as far as `room` tokens hold them."""
        lengths: list[int] = []
        for length in self.lengths:
            lengths.append(min(length, room))
            room -= lengths[-1]
            if not room:
                break
        return self._replace_lengths(tuple(lengths))

    def _replace_lengths(self, lengths: tuple[int, ...]) -> MicroBatchShape:
        return MicroBatchShape(
            lengths, self.padded, round(self.learned * sum(lengths) / self.tokens)
        )


@dataclass(frozen=True)
class EpochShapes:
    """An epoch's micro-batches, what the data are (empty where they could not be read), and notes."""

    micros: list[MicroBatchShape]
    data: dict[str, Any]
    notes: list[str]


def load_shapes(settings: Settings, folder: str) -> EpochShapes:
    """The rows of the settings' sources. Without a tokenizer they cannot be read: full packs, all
    learned, stand in for them.
    """
    padded = settings.attention in ("sdpa", "eager")
    tokenizer = resolve_tokenizer(settings, folder)
    if not any((Path(tokenizer) / name).is_file() for name in loading.TOKENIZER_FILES):
        group, count = 1 + settings.pairs, settings.batch_size
        lengths = (settings.max_length // group,) * group * count
        full = MicroBatchShape(lengths, padded, sum(lengths))
        note = (
            f"{tokenizer} has no tokenizer: full packs, every token learned, stand in for the data."
        )
        return EpochShapes([full] * settings.accumulative_counts, {}, [note])
    dataset = PackedDataset(**build_dataset_config(settings, tokenizer))
    sampler = EpochSampler(
        dataset, settings.seed, settings.sampler != "sequential", settings.batch_size,
        settings.sampler == "length_grouped",
    )  # fmt: skip
    micros = list(_iter_micro_batches(dataset, list(sampler), settings.batch_size, padded))
    return EpochShapes(micros, _describe_data(dataset, micros, settings), [])


def rank_typical(micros: list[MicroBatchShape]) -> list[MicroBatchShape]:
    """The nearest to the mean first, in tokens and in learned ones: each has a cost of its own."""
    tokens = float(np.mean([m.tokens for m in micros]))
    learned = max(float(np.mean([m.learned for m in micros])), 1.0)
    return sorted(micros, key=lambda m: abs(m.tokens / tokens - 1) + abs(m.learned / learned - 1))


def _iter_micro_batches(
    dataset: Any, order: list[int], size: int, padded: bool
) -> Iterator[MicroBatchShape]:
    lengths, learned, group = dataset.tokens.lengths, dataset.tokens.labelled, dataset.group_size
    for start in range(0, len(order), size):
        packs = [i if i >= 0 else ~i for i in order[start : start + size]]
        members = [
            g * group + n for pack in packs for g in dataset.packs[pack] for n in range(group)
        ]
        yield MicroBatchShape(
            tuple(int(lengths[i]) for i in members),
            padded,
            int(sum(learned[i] for i in members)),
            tuple(packs),
        )


def _describe_data(
    dataset: Any, micros: list[MicroBatchShape], settings: Settings
) -> dict[str, Any]:
    tokens, rows = dataset.tokens, dataset.rows
    total = int(tokens.lengths.sum())
    positions = sum(micro.load("cpu").positions for micro in micros)
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
