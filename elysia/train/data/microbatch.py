"""A micro-batch in smaller pieces that together hold the same samples.

Pairs stay whole. Knows nothing of models or of why.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch

from elysia.data.tokenize.encoder import IGNORE

Batch = dict[str, Any]
CPU_TOKENS = 512  # tokens that a CPU takes at once


def count_groups(batch: Batch) -> int:
    """Into how many pieces a micro-batch can go: its samples, or pairs."""
    return _count_groups(batch)


def split_evenly(batch: Batch, parts: int) -> list[Batch]:
    """`batch` in `parts` pieces at most, of about as many tokens each, in order.

    batch: as `collate_flat` or `collate_padded` makes it.
    """
    count = _count_groups(batch)
    parts = min(parts, count)
    if parts <= 1:
        return [batch]
    ends = torch.tensor(_get_sample_lengths(batch)).view(count, -1).sum(1).cumsum(0)
    goals = torch.arange(1, parts) * int(ends[-1]) / parts
    # Where each piece ends, at least one group further than the one before.
    cuts = [0]
    for number, goal in enumerate(goals):
        nearest = int((ends - goal).abs().argmin()) + 1
        cuts.append(min(max(nearest, cuts[-1] + 1), count - (parts - 1 - number)))
    cuts.append(count)
    return [_slice_groups(batch, a, b) for a, b in itertools.pairwise(cuts)]


def split_by_tokens(batch: Batch, room: int) -> list[Batch]:
    """`batch` in pieces of whole samples, in order: as many together as `room` tokens hold, and
    a longer one alone. Only flat batches: padded rows are all of one length."""
    if "segments" not in batch:
        return [batch]
    each = 2 if "pairs" in batch else 1
    sizes = torch.tensor(_get_sample_lengths(batch)).view(-1, each).sum(1).tolist()
    cuts = chunk_by_size(sizes, room)
    if len(cuts) == 2:
        return [batch]
    return [_slice_groups(batch, a, b) for a, b in itertools.pairwise(cuts)]


def chunk_by_size(sizes: list[int], room: int) -> list[int]:
    """Where to cut a list so that each part sums to `room` at most, or is one larger item.

    >>> chunk_by_size([300, 200, 100, 700, 50], 512)
    [0, 2, 3, 4, 5]
    """
    cuts, held = [0], 0
    for number, size in enumerate(sizes):
        if held and held + size > room:
            cuts.append(number)
            held = 0
        held += size
    return [*cuts, len(sizes)]


def oom_message(can_repeat: bool) -> str:
    """What to do when nothing is left to halve."""
    if not can_repeat:
        return (
            "processes that exchange gradients cannot go back within a step. Lower batch_size (and raise "
            "accumulative_counts), or max_length."
        )
    return (
        "a micro-batch is one sample already. Lower max_length, set gradient_checkpointing = True or "
        "method = 'qlora', or ask 'elysia plan' what fits."
    )


def _get_sample_lengths(batch: Batch) -> list[int]:
    """Tokens of each sample."""
    if "segments" in batch:
        return [int(n) for n in batch["segments"]]
    return [int(batch["input_ids"].shape[1])] * int(batch["input_ids"].shape[0])


def _count_groups(batch: Batch) -> int:
    samples = len(_get_sample_lengths(batch))
    return samples // 2 if "pairs" in batch else samples


def _count_learned_pairs(batch: Batch) -> int:
    """Pairs that count: those of a silent pack teach nothing."""
    labels = batch["labels"]
    samples = labels[0].split(_get_sample_lengths(batch)) if "segments" in batch else labels
    return sum(bool((sample != IGNORE).any()) for sample in samples[::2])


def _slice_groups(batch: Batch, begin: int, end: int) -> Batch:
    """Groups `begin` to `end` of a micro-batch."""
    each = 2 if "pairs" in batch else 1
    sizes = _get_sample_lengths(batch)
    samples = slice(begin * each, end * each)
    if "segments" in batch:
        start = sum(sizes[: begin * each])
        tokens = slice(start, start + sum(sizes[samples]))
        piece = {name: batch[name][:, tokens] for name in ("input_ids", "labels", "position_ids")}
        piece["segments"] = sizes[samples]
    else:
        piece = {name: batch[name][samples] for name in ("input_ids", "labels", "attention_mask")}
    if "pairs" in batch:
        piece["pairs"] = _count_learned_pairs(piece)
    if "reference" in batch:
        piece["reference"] = batch["reference"][begin:end]
    return piece
