"""Causal attention on a CPU, in blocks of rows: products of whole matrices, and nothing above the diagonal
but within a block.

torch's kernel for CPUs multiplies small tiles. A block's rows of all heads that share a key head are one
product with the keys that they may see, and what lies between the products is one pass each
(`softmax` and its gradient). In 16 bits it takes 0.4 to 0.9 times the kernel's time, and is as exact
(`benchmarks/attention.py`, docs/benchmarks.md). Knows nothing of packs, windows or dropout.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

MIN_HEAD_DIM = 64  # of heads whose float32 products are large enough
MAX_SAVED_BYTES = (
    2**22
)  # bytes of weights of a call that are kept for its gradient; more are made again


def is_faster(query: Tensor, value: Tensor) -> bool:
    """Whether it is quicker than torch's kernel: on a CPU, in 16 bits or with wide heads."""
    if query.device.type != "cpu" or query.shape[-1] != value.shape[-1]:
        return False
    return _get_compute_dtype(query).itemsize == 2 or query.shape[-1] >= MIN_HEAD_DIM


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    """softmax(query key^T * scale) value, each row looking at itself and what is before it.

    query: (n, heads, t, d); key, value: (n, kv_heads, t, d), each shared by heads that lie together.
    Returns (n, heads, t, d). `scale` None is 1 / sqrt(d). Under autocast in its dtype, all of it.
    """
    dtype = _get_compute_dtype(query)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    with torch.autocast("cpu", enabled=False):  # which would take softmax to float32
        out: Tensor = _BlockwiseAttention.apply(
            query.to(dtype), key.to(dtype), value.to(dtype), scale
        )
    return out


def _get_compute_dtype(query: Tensor) -> torch.dtype:
    under = torch.is_autocast_enabled("cpu")
    return torch.get_autocast_dtype("cpu") if under else query.dtype


class _BlockwiseAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        n, heads, length, width = query.shape
        shared = n * key.shape[1]
        q = query.reshape(shared, -1, length, width) * scale
        k, v = (x.reshape(shared, length, width) for x in (key, value))
        out = torch.empty_like(q)
        kept: list[Tensor] = []
        above = _build_causal_mask(q)
        keep = any(ctx.needs_input_grad) and (
            n * heads * length**2 // 2 * query.itemsize <= MAX_SAVED_BYTES
        )
        for begin, end in _iter_blocks(length, query.itemsize):
            weights = _compute_weights(q, k, begin, end, above)
            out[:, :, begin:end] = torch.bmm(weights, v[:, :end]).view_as(out[:, :, begin:end])
            if keep:
                kept.append(weights)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.scale = scale
        return out.view(query.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        slope = grads[0].reshape(q.shape)
        q_grad = torch.empty_like(q)
        # Every block adds to those of the rows before it: in 16 bits the sum would forget.
        kind = torch.promote_types(k.dtype, torch.float32)
        k_grad, v_grad = (torch.zeros_like(x, dtype=kind) for x in (k, v))
        above = _build_causal_mask(q)
        for number, (begin, end) in enumerate(_iter_blocks(q.shape[2], q.itemsize)):
            weights = kept[number] if kept else _compute_weights(q, k, begin, end, above)
            rows, down = (x[:, :, begin:end].flatten(1, 2) for x in (q, slope))
            inner = torch.bmm(down, v[:, :end].transpose(1, 2))
            inner = torch.ops.aten._softmax_backward_data(inner, weights, -1, inner.dtype)
            v_grad[:, :end] += torch.bmm(weights.transpose(1, 2), down)
            k_grad[:, :end] += torch.bmm(inner.transpose(1, 2), rows)
            part = q_grad[:, :, begin:end]
            part.copy_(torch.bmm(inner, k[:, :end]).view_as(part))
        n, width = grads[0].shape[0], q.shape[-1]
        k_grad, v_grad = (x.to(k.dtype).view(n, -1, q.shape[2], width) for x in (k_grad, v_grad))
        return q_grad.mul_(ctx.scale).view(grads[0].shape), k_grad, v_grad, None


def _compute_weights(q: Tensor, k: Tensor, begin: int, end: int, above: Tensor) -> Tensor:
    """What rows `begin` to `end` give to each key: (shared heads, rows, end)."""
    scores = torch.bmm(q[:, :, begin:end].flatten(1, 2), k[:, :end].transpose(1, 2))
    rows = end - begin
    scores.view(len(q), -1, rows, end)[..., begin:].add_(above[:rows, :rows])
    return torch.softmax(scores, -1)


def _build_causal_mask(like: Tensor) -> Tensor:
    """-inf above a block's diagonal, else 0: (rows, rows)."""
    rows = 256 // like.itemsize
    return like.new_full((rows, rows), float("-inf")).triu_(1)


def _iter_blocks(length: int, itemsize: int) -> Iterator[tuple[int, int]]:
    """Where each block of rows begins and ends; half as many rows where a number takes twice the room."""
    return itertools.pairwise([*range(0, length, 256 // itemsize), length])
