"""Attention that sees only its own sample: several samples lie end to end in one row.

A dense block-diagonal mask would waste most scores, and transformers' own packing isolates samples
only under conditions that are easy to miss (no mask, no cache). Here each sample is attended by
itself, so that a pack gives what its samples give alone. Knows nothing of losses or data.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from elysia.core.errors import ModelError
from elysia.train import blockwise, sequence, varlen

NAME = "elysia_segments"
_packed: ContextVar[bool] = ContextVar("packed", default=False)


class Unread:
    """A value that a compiler passes on without a look: of a list it would compile each length anew."""

    def __init__(self, value: Any) -> None:
        self.value = value


def register() -> None:
    """Make `attn_implementation="elysia_segments"` known to transformers."""
    if NAME not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(NAME, segment_attention)
    AttentionMaskInterface.register(NAME, _mask)


def leave_uncompiled() -> None:
    """From here on a compiler that meets this attention calls it as it is."""
    AttentionInterface.register(NAME, torch.compiler.disable(segment_attention))


@contextmanager
def packed() -> Iterator[None]:
    """Inside, forward passes carry `segments`, and no mask is built for them."""
    token = _packed.set(True)
    try:
        yield
    finally:
        _packed.reset(token)


def _mask(*args: Any, **kwargs: Any) -> Any:
    return None if _packed.get() else sdpa_mask(*args, **kwargs)


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    segments: list[int] | Unread | None = None,
    sequence_group: Any = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each of `segments` (lengths that sum to the row's length).

    query: (1, heads, t, d); key, value: (1, kv_heads, t, d); returns (1, t, heads, d).
    Without `segments` (generation, padded batches) it is transformers' SDPA. With `sequence_group`
    the tensors are this process's slice of the row, and `segments` are of the whole row.
    """
    segments = segments.value if isinstance(segments, Unread) else segments
    group = sequence_group.value if isinstance(sequence_group, Unread) else sequence_group
    if segments is None:
        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return out
    if kwargs.get("softcap") is not None:
        raise ModelError("This model caps its attention scores; set attention = 'eager' for it.")
    window = kwargs.get("sliding_window")
    if group is not None:
        key, value = sequence.divisible_heads(query, key, value, group.size())
        query, key, value = (sequence.to_heads(x, group) for x in (query, key, value))
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if not dropout and query.is_cuda and _has_varlen(query, key, window):
        whole = varlen.attend(q, k, v, segments, scaling, window)[None]
    else:
        whole = _by_sample(q, k, v, segments, scaling, window, dropout)[None]
    return (whole if group is None else sequence.to_slice(whole, group)), None


def _has_varlen(query: Tensor, key: Tensor, window: int | None) -> bool:
    heads = (query.shape[1], key.shape[1])
    return varlen.usable(query.device, query.dtype, heads, query.shape[-1], window, _by_sample)


def _by_sample(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: list[int],
    scale: float | None,
    window: int | None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of each sample by itself, those of one length in one call: (t, heads, d)."""
    if len(segments) == 1 and (query.device.type != "cpu" or segments[0] % 64 == 0):
        # Nothing is to be laid apart: the row is the sample.
        one = [x[None] for x in (query, key, value)]
        return _attend(one, scale, dropout, window)[0].transpose(0, 1)
    # The last row, zeros, stands for padding.
    dense = [F.pad(x, (0, 0, 0, 0, 0, 1)) for x in (query, key, value)]
    groups, back = _groups(tuple(segments), query.device)
    outputs = [
        _attend([_rows(x, index) for x in dense], scale, dropout, window) for index in groups
    ]
    # Every position of every group, end to end; `back` finds the row's positions among them.
    joined = torch.cat([out.transpose(1, 2).flatten(0, 1) for out in outputs])
    return joined.index_select(0, back)


def _rows(dense: Tensor, index: Tensor) -> Tensor:
    """The positions `index` (n, length) of (t, heads, d): (n, length, heads, d)."""
    return dense.index_select(0, index.flatten()).view(*index.shape, *dense.shape[1:])


@lru_cache(maxsize=64)  # every layer of a step, and its recomputation, asks for the same
def _groups(segments: tuple[int, ...], device: torch.device) -> tuple[list[Tensor], Tensor]:
    """Samples of one padded length are attended in one call.

    Returns per group an index (n, length) of positions, and where each position went.
    torch's CPU kernel keeps a compiled copy per new length: a few lengths keep memory flat. Padding
    goes at the end, where a causal row never looks.
    """
    step, total = (64 if device.type == "cpu" else 1), sum(segments)
    starts = [0, *itertools.accumulate(segments)]
    by_length: dict[int, list[Tensor]] = {}
    for start, n in zip(starts, segments, strict=False):
        positions = torch.arange(start, start + n)
        padded = F.pad(positions, (0, -n % step), value=total)
        by_length.setdefault(len(padded), []).append(padded)
    groups = [torch.stack(rows) for _, rows in sorted(by_length.items())]
    order = torch.cat([group.flatten() for group in groups])
    back = torch.empty(total + 1, dtype=torch.long)
    back[order] = torch.arange(len(order))
    return [group.to(device) for group in groups], back[:total].to(device)


def forget() -> None:
    """Drop the kept groups: those made of tensors without content serve nobody else."""
    _groups.cache_clear()


def _attend(qkv: list[Tensor], scale: float | None, dropout: float, window: int | None) -> Tensor:
    """Causal attention of n samples of one length: (n, length, heads, d) to (n, heads, length, d)."""
    q, k, v = (x.transpose(1, 2) for x in qkv)
    length = q.shape[2]
    banded = window is not None and length > window
    if not (banded or dropout) and blockwise.pays(q, v):
        return blockwise.attend(q, k, v, scale)
    mask = _band(length, window, q.device) if window is not None and banded else None
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        mask,
        dropout,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )


def _band(length: int, window: int, device: torch.device) -> Tensor:
    """True where a row may look: itself and the `window` - 1 positions before it."""
    rows = torch.arange(length, device=device)
    distance = rows[:, None] - rows[None, :]
    return (distance >= 0) & (distance < window)
