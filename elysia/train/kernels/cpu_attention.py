"""Causal attention on a CPU, in blocks of rows: products of whole matrices, and above the diagonal nothing is
computed but within a block.

torch's kernel for CPUs multiplies small tiles. Here the rows of a block, of all heads that share a key head,
are one product with the keys that they may see; between the products, `softmax` and its gradient take one
pass each. In 16 bits it takes 0.4 to 0.9 times the kernel's time, and is as exact (`benchmarks/attention.py`,
docs/benchmarks.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

MIN_HEAD_DIM = 64  # in float32, products of narrower heads are too small to gain
# Attention weights of a call up to this size are saved for its gradient; larger ones are computed again.
MAX_SAVED_BYTES = 2**22


def is_faster(query: Tensor, value: Tensor) -> bool:
    """Whether `attend` is faster than torch's kernel: on a CPU, in 16 bits or with wide heads."""
    if query.device.type != "cpu" or query.shape[-1] != value.shape[-1]:
        return False
    return _get_compute_dtype(query).itemsize == 2 or query.shape[-1] >= MIN_HEAD_DIM


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    """softmax(query key^T * scale) value, where each row sees itself and the rows before it.

    query: (n, heads, t, d); key, value: (n, kv_heads, t, d), each shared by neighbouring heads.
    Returns (n, heads, t, d). `scale` None is 1 / sqrt(d). Under autocast everything is in its dtype.
    """
    dtype = _get_compute_dtype(query)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    with torch.autocast("cpu", enabled=False):  # it would turn softmax into float32
        out: Tensor = _BlockwiseAttention.apply(
            query.to(dtype), key.to(dtype), value.to(dtype), scale
        )
    return out


def _get_compute_dtype(query: Tensor) -> torch.dtype:
    is_autocast = torch.is_autocast_enabled("cpu")
    return torch.get_autocast_dtype("cpu") if is_autocast else query.dtype


class _BlockwiseAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        n, heads, length, width = query.shape
        shared = n * key.shape[1]
        q = query.reshape(shared, -1, length, width) * scale
        k, v = (x.reshape(shared, length, width) for x in (key, value))
        out = torch.empty_like(q)
        saved: list[Tensor] = []
        mask = _build_causal_mask(q)
        size = n * heads * length**2 // 2 * query.itemsize  # of all weights, in bytes
        save = any(ctx.needs_input_grad) and size <= MAX_SAVED_BYTES
        for begin, end in _iter_blocks(length, query.itemsize):
            weights = _compute_weights(q, k, begin, end, mask)
            out[:, :, begin:end] = torch.bmm(weights, v[:, :end]).view_as(out[:, :, begin:end])
            if save:
                saved.append(weights)
        ctx.save_for_backward(q, k, v, *saved)
        ctx.scale = scale
        return out.view(query.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *saved = ctx.saved_tensors
        out_grad = grads[0].reshape(q.shape)
        q_grad = torch.empty_like(q)
        # Every block adds to the keys and values before it: a sum in 16 bits would lose the small ones.
        sum_dtype = torch.promote_types(k.dtype, torch.float32)
        k_grad, v_grad = (torch.zeros_like(x, dtype=sum_dtype) for x in (k, v))
        mask = _build_causal_mask(q)
        for number, (begin, end) in enumerate(_iter_blocks(q.shape[2], q.itemsize)):
            weights = saved[number] if saved else _compute_weights(q, k, begin, end, mask)
            q_rows, grad_rows = (x[:, :, begin:end].flatten(1, 2) for x in (q, out_grad))
            weights_grad = torch.bmm(grad_rows, v[:, :end].transpose(1, 2))
            scores_grad = torch.ops.aten._softmax_backward_data(
                weights_grad, weights, -1, weights_grad.dtype
            )
            v_grad[:, :end] += torch.bmm(weights.transpose(1, 2), grad_rows)
            k_grad[:, :end] += torch.bmm(scores_grad.transpose(1, 2), q_rows)
            part = q_grad[:, :, begin:end]
            part.copy_(torch.bmm(scores_grad, k[:, :end]).view_as(part))
        n, width = grads[0].shape[0], q.shape[-1]
        k_grad, v_grad = (x.to(k.dtype).view(n, -1, q.shape[2], width) for x in (k_grad, v_grad))
        return q_grad.mul_(ctx.scale).view(grads[0].shape), k_grad, v_grad, None


def _compute_weights(q: Tensor, k: Tensor, begin: int, end: int, mask: Tensor) -> Tensor:
    """Attention weights of rows `begin` to `end` for each key: (shared heads, rows, end)."""
    scores = torch.bmm(q[:, :, begin:end].flatten(1, 2), k[:, :end].transpose(1, 2))
    rows = end - begin
    scores.view(len(q), -1, rows, end)[..., begin:].add_(mask[:rows, :rows])
    return torch.softmax(scores, -1)


def _build_causal_mask(like: Tensor) -> Tensor:
    """-inf above the diagonal of a block, else 0: (rows, rows)."""
    rows = 256 // like.itemsize
    return like.new_full((rows, rows), float("-inf")).triu_(1)


def _iter_blocks(length: int, itemsize: int) -> Iterator[tuple[int, int]]:
    """Where each block of rows begins and ends: 256 bytes of rows, so 128 in 16 bits and 64 in float32."""
    return itertools.pairwise([*range(0, length, 256 // itemsize), length])
