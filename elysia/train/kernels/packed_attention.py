"""Attention in which each sample sees only itself, for rows of several samples that lie end to end.

A dense block-diagonal mask would waste most scores, and transformers' own packing isolates samples only under
conditions that are easy to miss (no mask, no cache). Here each sample is attended by itself, so that a pack
gives what its samples give alone. On GPUs one call of torch's flash attention for variable lengths does it,
where a trial shows that it gives the same numbers; elsewhere samples of equal length share a call.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from elysia.train.distributed import sequence_parallel
from elysia.train.kernels import cpu_attention

log = logging.getLogger(__name__)

IMPLEMENTATION = "elysia_segments"
# (q, k, v of (t, heads, d), lengths, scale, window) -> (t, heads, d)
AttentionFunction = Callable[[Tensor, Tensor, Tensor, list[int], float | None, int | None], Tensor]
PROBE_LENGTHS = (37, 64, 1, 90)  # sample lengths above and below a block of the kernel
_packed: ContextVar[bool] = ContextVar("packed", default=False)


@dataclass(frozen=True)
class SoftmaxVariant:
    """What some models do to attention scores, which fused kernels cannot: `cap` bounds them by
    cap * tanh(score / cap) (Gemma 2, https://arxiv.org/abs/2408.00118); `sinks`, (heads,), are scores of a
    position without a value, which takes weight from the others (gpt-oss)."""

    cap: float | None = None
    sinks: Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is the ordinary softmax."""
        return self.cap is None and self.sinks is None

    def take_heads(self, rank: int, parts: int) -> SoftmaxVariant:
        """The variant for one of `parts` equal shares of the heads."""
        sinks = None if self.sinks is None else self.sinks.chunk(parts)[rank]
        return SoftmaxVariant(self.cap, sinks)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float | None,
        mask: Tensor,
        dropout: float,
    ) -> Tensor:
        """Attention of (n, heads, t, d) to keys of as many heads or fewer: (n, heads, t, d).

        mask: True, or 0, where a row may look; it broadcasts to (n, heads, t, s).
        """
        shared = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(shared, 1) for x in (key, value))
        scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if self.cap is not None:
            scores = self.cap * torch.tanh(scores / self.cap)
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        else:
            scores = scores + mask
        if self.sinks is not None:
            sinks = self.sinks.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
            scores = torch.cat([scores, sinks.to(scores.dtype)], -1)
        weights = torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype)
        weights = F.dropout(weights[..., : key.shape[2]], dropout)
        return weights @ value


PLAIN = SoftmaxVariant()


class OpaqueArg:
    """A value that a compiler passes on without looking inside: a plain list it would compile anew for each
    length."""

    def __init__(self, value: Any) -> None:
        self.value = value


def register() -> None:
    """Make `attn_implementation="elysia_segments"` known to transformers."""
    if IMPLEMENTATION not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(IMPLEMENTATION, segment_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, _mask)


def disable_compile() -> None:
    """From now on a compiler that meets this attention calls it as it is."""
    AttentionInterface.register(IMPLEMENTATION, torch.compiler.disable(segment_attention))


@contextmanager
def packed_pass() -> Iterator[None]:
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
    segments: list[int] | OpaqueArg | None = None,
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
    segments = segments.value if isinstance(segments, OpaqueArg) else segments
    group = sequence_group.value if isinstance(sequence_group, OpaqueArg) else sequence_group
    softmax = SoftmaxVariant(kwargs.get("softcap"), kwargs.get("s_aux"))
    if segments is None:
        if softmax.is_plain:
            out: tuple[Tensor, None] = sdpa_attention_forward(
                module,
                query,
                key,
                value,
                attention_mask,
                dropout=dropout,
                scaling=scaling,
                **kwargs,
            )
            return out
        mask = _build_causal_mask(query, key) if attention_mask is None else attention_mask
        return softmax.attend(query, key, value, scaling, mask, dropout).transpose(1, 2), None
    window = kwargs.get("sliding_window")
    if group is not None:
        key, value = sequence_parallel.repeat_kv_heads(query, key, value, group.size())
        query, key, value = (sequence_parallel.scatter_heads(x, group) for x in (query, key, value))
        softmax = softmax.take_heads(group.rank(), group.size())
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    is_plain = softmax.is_plain and not dropout
    if is_plain and query.is_cuda and _can_use_varlen(query, key, window):
        whole = attend_varlen(q, k, v, segments, scaling, window)[None]
    else:
        whole = _attend_by_sample(q, k, v, segments, scaling, window, dropout, softmax)[None]
    return (whole if group is None else sequence_parallel.gather_heads(whole, group)), None


def _can_use_varlen(query: Tensor, key: Tensor, window: int | None) -> bool:
    heads = (query.shape[1], key.shape[1])
    return is_varlen_supported(
        query.device, query.dtype, heads, query.shape[-1], window, _attend_by_sample
    )


def _attend_by_sample(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: list[int],
    scale: float | None,
    window: int | None,
    dropout: float = 0.0,
    softmax: SoftmaxVariant = PLAIN,
) -> Tensor:
    """Attention of each sample by itself, those of equal length in one call: (t, heads, d)."""
    if len(segments) == 1 and (query.device.type != "cpu" or segments[0] % 64 == 0):
        # The row is the sample: there is nothing to take apart.
        sample = [x[None] for x in (query, key, value)]
        return _attend(sample, scale, dropout, window, softmax)[0].transpose(0, 1)
    # The extra last row, zeros, is what padding points to.
    dense = [F.pad(x, (0, 0, 0, 0, 0, 1)) for x in (query, key, value)]
    groups, order = _group_by_length(tuple(segments), query.device)
    outputs = [
        _attend([_take_rows(x, index) for x in dense], scale, dropout, window, softmax)
        for index in groups
    ]
    # Every position of every group, end to end; `order` finds the row's positions among them.
    concatenated = torch.cat([out.transpose(1, 2).flatten(0, 1) for out in outputs])
    return concatenated.index_select(0, order)


def _take_rows(dense: Tensor, index: Tensor) -> Tensor:
    """The positions `index` (n, length) of (t, heads, d): (n, length, heads, d)."""
    return dense.index_select(0, index.flatten()).view(*index.shape, *dense.shape[1:])


@lru_cache(maxsize=64)  # every layer of a step, and its recomputation, asks for the same
def _group_by_length(
    segments: tuple[int, ...], device: torch.device
) -> tuple[list[Tensor], Tensor]:
    """Samples of equal padded length are attended in one call.

    Returns per group an index (n, length) of positions, and where each position of the row went, (t,).
    torch's CPU kernel caches a compiled copy per new length: few lengths keep memory flat. Padding
    goes at the end, where a causal row never looks.
    """
    multiple, total = (64 if device.type == "cpu" else 1), sum(segments)
    starts = [0, *itertools.accumulate(segments)]
    by_length: dict[int, list[Tensor]] = {}
    for start, length in zip(starts, segments, strict=False):
        positions = torch.arange(start, start + length)
        padded = F.pad(positions, (0, -length % multiple), value=total)
        by_length.setdefault(len(padded), []).append(padded)
    groups = [torch.stack(rows) for _, rows in sorted(by_length.items())]
    grouped = torch.cat([group.flatten() for group in groups])
    order = torch.empty(total + 1, dtype=torch.long)
    order[grouped] = torch.arange(len(grouped))
    return [group.to(device) for group in groups], order[:total].to(device)


def clear_cache() -> None:
    """Drop the cached groups: those made of meta tensors are of no use to a real pass."""
    _group_by_length.cache_clear()


def _attend(
    qkv: list[Tensor],
    scale: float | None,
    dropout: float,
    window: int | None,
    softmax: SoftmaxVariant,
) -> Tensor:
    """Causal attention of n samples of equal length: (n, length, heads, d) to (n, heads, length, d)."""
    q, k, v = (x.transpose(1, 2) for x in qkv)
    length = q.shape[2]
    mask = None
    if window is not None and length > window:
        mask = _build_window_mask(length, window, q.device)
    if not softmax.is_plain:
        mask = _build_causal_mask(q, k) if mask is None else mask
        return softmax.attend(q, k, v, scale, mask, dropout)
    if mask is None and not dropout and cpu_attention.is_faster(q, v):
        return cpu_attention.attend(q, k, v, scale)
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


def _build_window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """(length, length), True where a row may look: itself and the `window` - 1 positions before it."""
    rows = torch.arange(length, device=device)
    distance = rows[:, None] - rows[None, :]
    return (distance >= 0) & (distance < window)


def _build_causal_mask(query: Tensor, key: Tensor) -> Tensor:
    """(t, s), True where a row may look, for t rows that are the last of s positions."""
    rows, positions = query.shape[2], key.shape[2]
    ones = torch.ones(rows, positions, dtype=torch.bool, device=query.device)
    return ones.tril(positions - rows)


def attend_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: list[int],
    scale: float | None,
    window: int | None,
) -> Tensor:
    """Causal attention within each of `segments`: (t, heads, d), keys with as many heads or fewer.

    `window`: how many positions a row sees, itself among them; None: all before it.
    """
    from torch.nn.attention.varlen import varlen_attn

    longest = max(segments)
    bounds = _cumulative_lengths(tuple(segments), query.device)
    # (left, right): how many positions before and after itself a row sees; -1: all of them.
    window_size = (-1 if window is None else window - 1, 0)
    out: Any = varlen_attn(
        query, key, value, bounds, bounds, longest, longest,
        scale=scale, window_size=window_size, enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return out  # type: ignore[no-any-return]


@lru_cache(maxsize=64)  # every layer of a step asks for the same
def _cumulative_lengths(segments: tuple[int, ...], device: torch.device) -> Tensor:
    """Where each sample begins, and the end of the row: int32, (n + 1,)."""
    return torch.tensor([0, *itertools.accumulate(segments)], dtype=torch.int32, device=device)


@lru_cache(maxsize=16)
def is_varlen_supported(
    device: torch.device,
    dtype: torch.dtype,
    heads: tuple[int, int],
    dim: int,
    window: int | None,
    reference: AttentionFunction,
) -> bool:
    """Whether `attend_varlen` gives on this device what `reference` does, and the same gradients.

    heads: of queries, and of keys and values. The answer is cached; global random state is not used.
    """
    if dtype not in (torch.float16, torch.bfloat16):
        return False
    generator = torch.Generator().manual_seed(0)
    shapes = [
        (sum(PROBE_LENGTHS), count, dim) for count in (heads[0], heads[1], heads[1], heads[0])
    ]
    q, k, v, grad = (torch.randn(s, generator=generator).to(device, dtype) for s in shapes)
    try:
        with torch.autocast(device.type, enabled=False):
            actual, expected = (
                _run_with_grad(f, (q, k, v), grad, window) for f in (attend_varlen, reference)
            )
    except (ImportError, RuntimeError, TypeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        log.info(
            "Attention is computed sample by sample: torch's varlen kernel does not run (%s).",
            reason,
        )
        return False
    for a, b in zip(actual, expected, strict=True):
        error_share = float((a.float() - b.float()).abs().max() / b.float().abs().max())
        if not error_share < 0.03:  # bfloat16 has 8 bits; nan is refused, too
            log.warning(
                "Attention is computed sample by sample: torch's varlen kernel is off by %.2g of the "
                "largest value on this device.",
                error_share,
            )
            return False
    return True


def _run_with_grad(
    function: AttentionFunction, inputs: tuple[Tensor, ...], grad: Tensor, window: int | None
) -> list[Tensor]:
    """The output of `function`, and the gradients of its inputs."""
    q, k, v = (x.detach().clone().requires_grad_() for x in inputs)
    with torch.enable_grad():
        out = function(q, k, v, list(PROBE_LENGTHS), None, window)
        return [out.detach(), *torch.autograd.grad(out, (q, k, v), grad)]
