"""A micro-batch split into smaller ones that together hold the same samples, in order. The two samples of a
preference pair stay together.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from elysia.data.tokenize.encoder import IGNORE

Batch = dict[str, Any]
CPU_TOKENS = 512  # tokens that a CPU takes at once


def count_groups(batch: Batch) -> int:
    """Into how many parts a micro-batch can be split: its samples, or pairs."""
    return len(_get_sample_lengths(batch)) // _get_group_size(batch)


def split_evenly(batch: Batch, parts: int) -> list[Batch]:
    """`batch` in `parts` parts at most, of about the same number of tokens each.

    batch: as `collate_flat` or `collate_padded` makes it.
    """
    count = count_groups(batch)
    parts = min(parts, count)
    if parts <= 1:
        return [batch]
    ends = torch.tensor(_get_sample_lengths(batch)).view(count, -1).sum(1).cumsum(0)
    goals = torch.arange(1, parts) * int(ends[-1]) / parts
    # Where each part ends: nearest to its goal, and at least one group after the part before it.
    cuts = [0]
    for number, goal in enumerate(goals):
        nearest = int((ends - goal).abs().argmin()) + 1
        cuts.append(min(max(nearest, cuts[-1] + 1), count - (parts - 1 - number)))
    cuts.append(count)
    return [_slice_groups(batch, a, b) for a, b in itertools.pairwise(cuts)]


def split_by_tokens(batch: Batch, limit: int) -> list[Batch]:
    """`batch` in parts of whole samples, of at most `limit` tokens each; a longer sample is alone.
    Only flat batches are split: padded rows all have the same length."""
    if "segments" not in batch:
        return [batch]
    sizes = torch.tensor(_get_sample_lengths(batch)).view(-1, _get_group_size(batch)).sum(1)
    cuts = chunk_by_size(sizes.tolist(), limit)
    if len(cuts) == 2:
        return [batch]
    return [_slice_groups(batch, a, b) for a, b in itertools.pairwise(cuts)]


def chunk_by_size(sizes: list[int], limit: int) -> list[int]:
    """Where to cut a list so that each part sums to `limit` at most, or is one larger item.

    >>> chunk_by_size([300, 200, 100, 700, 50], 512)
    [0, 2, 3, 4, 5]
    """
    cuts, filled = [0], 0
    for index, size in enumerate(sizes):
        if filled and filled + size > limit:
            cuts.append(index)
            filled = 0
        filled += size
    return [*cuts, len(sizes)]


def split_samples(batch: Batch, name: str = "labels") -> Sequence[torch.Tensor]:
    """A tensor of a micro-batch, (1, t) flat or (b, t) padded, as a row per sample."""
    rows: torch.Tensor = batch[name]
    return rows[0].split(batch["segments"]) if "segments" in batch else tuple(rows)


def _get_sample_lengths(batch: Batch) -> list[int]:
    """Tokens of each sample, padding included."""
    if "segments" in batch:
        return [int(n) for n in batch["segments"]]
    rows, length = batch["input_ids"].shape
    return [int(length)] * int(rows)


def _get_group_size(batch: Batch) -> int:
    """Samples that stay together: two of a pair, else one."""
    return 2 if "pairs" in batch else 1


def _count_learned_pairs(batch: Batch) -> int:
    """Pairs with a labelled token; those of a dummy pack have none."""
    return sum(bool((labels != IGNORE).any()) for labels in split_samples(batch)[::2])


def _slice_groups(batch: Batch, begin: int, end: int) -> Batch:
    """Groups `begin` to `end` of a micro-batch."""
    size = _get_group_size(batch)
    lengths = _get_sample_lengths(batch)
    samples = slice(begin * size, end * size)
    if "segments" in batch:
        start = sum(lengths[: begin * size])
        tokens = slice(start, start + sum(lengths[samples]))
        part = {name: batch[name][:, tokens] for name in ("input_ids", "labels", "position_ids")}
        part["segments"] = lengths[samples]
    else:
        part = {name: batch[name][samples] for name in ("input_ids", "labels", "attention_mask")}
    if "pairs" in batch:
        part["pairs"] = _count_learned_pairs(part)
    if "reference" in batch:
        part["reference"] = batch["reference"][begin:end]
    return part
