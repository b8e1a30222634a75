"""Sequence parallelism: each process of a group holds a slice of the same row.

Everything but attention works on tokens one by one, so a slice is all it needs. Attention needs the
whole row, but not all heads: before it, slices are exchanged for heads, and after it back again (DeepSpeed
Ulysses, https://arxiv.org/abs/2309.14509).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from elysia.core.errors import DeviceError, ModelError


@dataclass(frozen=True)
class FakeProcessGroup:
    """A process group of which only the first process exists, for planning: tensors get the shapes that they
    would have, and nothing is sent."""

    count: int

    def size(self) -> int:
        return self.count

    def rank(self) -> int:
        return 0


def data_parallel_rank(size: int, rank: int, world: int) -> tuple[int, int]:
    """(index of this process among those that see different data, how many such there are).

    DeviceError when the processes do not divide into groups of `size`.
    """
    if world % size:
        raise DeviceError("train.sequence_parallel_world", size=size, processes=world)
    return rank // size, world // size


def check_heads(heads: int, size: int) -> None:
    """ModelError when `size` processes cannot share the attention heads equally."""
    if heads % size:
        raise ModelError("train.sequence_parallel_heads", heads=heads, size=size)


def build_sequence_group(size: int) -> Any:
    """The group of `size` processes with neighbouring ranks that this one shares rows with; None for 1.

    Every process must call it. DeviceError when the processes do not divide into such groups.
    """
    if size == 1:
        return None
    world = dist.get_world_size() if dist.is_initialized() else 1
    data_parallel_rank(size, 0, world)
    own_group = None
    for first in range(0, world, size):  # every process makes every group, in the same order
        group = dist.new_group(range(first, first + size))
        own_group = group if first <= dist.get_rank() < first + size else own_group
    return own_group


def take_slice(tensor: Tensor, group: Any) -> Tensor:
    """This process's part of a (b, t) tensor whose t the group divides."""
    part: Tensor = tensor.chunk(group.size(), dim=1)[group.rank()]
    return part


def scatter_heads(x: Tensor, group: Any) -> Tensor:
    """(1, heads, t / n, d), a slice of the row with all heads, to (1, heads / n, t, d)."""
    size = group.size()
    heads = x[0].unflatten(0, (size, -1))
    slices: Tensor = _AllToAll.apply(heads, group)
    return slices.transpose(0, 1).flatten(1, 2)[None]


def gather_heads(x: Tensor, group: Any) -> Tensor:
    """(1, t, heads / n, d), the whole row with some heads, to (1, t / n, heads, d)."""
    size = group.size()
    slices = x[0].unflatten(0, (size, -1))
    heads: Tensor = _AllToAll.apply(slices, group)
    return heads.transpose(0, 1).flatten(1, 2)[None]


def repeat_kv_heads(query: Tensor, key: Tensor, value: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Keys and values, (1, kv_heads, t, d), repeated so often that `size` divides their heads.

    Query heads go with key heads in order, so equal parts of both belong together. ModelError when
    the query's heads do not divide.
    """
    heads, shared = query.shape[1], key.shape[1]
    check_heads(heads, size)
    times = size // math.gcd(shared, size)
    if times > 1 and heads % (shared * times):
        times = heads // shared
    if times == 1:
        return key, value
    return key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)


class _AllToAll(torch.autograd.Function):
    """Part i of the first dimension goes to process i, whose part comes in its place."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _all_to_all(parts, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _all_to_all(grads[0], ctx.group), None  # the exchange is its own inverse


def _all_to_all(parts: Tensor, group: Any) -> Tensor:
    parts = parts.contiguous()
    exchanged = torch.empty_like(parts)
    if not isinstance(group, FakeProcessGroup):
        dist.all_to_all_single(exchanged, parts, group=group)
    return exchanged
