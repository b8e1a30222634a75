"""Sequence parallelism: the processes of a group hold a slice each of the same row.

Everything but attention works on tokens one by one, so a slice is all it needs. Attention needs the
whole row, but not all heads: before it, slices are exchanged for heads, and after it back again (DeepSpeed
Ulysses, https://arxiv.org/abs/2309.14509). Knows nothing of models or losses.
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
    """A group of processes of which the first alone is there, for plans: tensors have the shapes that they
    would have, and nothing travels."""

    count: int

    def size(self) -> int:
        return self.count

    def rank(self) -> int:
        return 0


def data_parallel_rank(size: int, rank: int, world: int) -> tuple[int, int]:
    """This process's place among those that see different data, and how many such places there are.

    DeviceError when the processes do not divide into groups of `size`.
    """
    if world % size:
        raise DeviceError(
            f"sequence_parallel_size = {size} divides a row among {size} processes, and this run has "
            f"{world}: start a multiple of {size} (NPROC_PER_NODE), or set sequence_parallel_size = 1."
        )
    return rank // size, world // size


def check_heads(heads: int, size: int) -> None:
    """ModelError when `size` processes cannot have equal parts of the attention heads."""
    if heads % size:
        raise ModelError(
            f"The model has {heads} attention heads, which sequence_parallel_size = {size} does not "
            "divide."
        )


def build_sequence_group(size: int) -> Any:
    """The group of `size` processes, neighbours by rank, that this one shares rows with; None for 1.

    Every process must call it. DeviceError when the processes do not divide into such groups.
    """
    if size == 1:
        return None
    world = dist.get_world_size() if dist.is_initialized() else 1
    data_parallel_rank(size, 0, world)
    mine = None
    for first in range(0, world, size):  # every process makes every group, in the same order
        group = dist.new_group(range(first, first + size))
        mine = group if first <= dist.get_rank() < first + size else mine
    return mine


def take_slice(tensor: Tensor, group: Any) -> Tensor:
    """This process's part of a (b, t) tensor whose t the group divides."""
    part: Tensor = tensor.chunk(group.size(), dim=1)[group.rank()]
    return part


def scatter_heads(x: Tensor, group: Any) -> Tensor:
    """(1, heads, t / n, d), a slice of the row with all heads, to (1, heads / n, t, d)."""
    size = group.size()
    parts = x[0].unflatten(0, (size, -1))  # of heads
    got: Tensor = _AllToAll.apply(parts, group)  # of the row
    return got.transpose(0, 1).flatten(1, 2)[None]


def gather_heads(x: Tensor, group: Any) -> Tensor:
    """(1, t, heads / n, d), the whole row with some heads, to (1, t / n, heads, d)."""
    size = group.size()
    parts = x[0].unflatten(0, (size, -1))  # of the row
    got: Tensor = _AllToAll.apply(parts, group)  # of heads
    return got.transpose(0, 1).flatten(1, 2)[None]


def repeat_kv_heads(query: Tensor, key: Tensor, value: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Keys and values, (1, kv_heads, t, d), repeated as often as it takes to divide their heads.

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
        return _all_to_all(grads[0], ctx.group), None  # it undoes itself


def _all_to_all(parts: Tensor, group: Any) -> Tensor:
    parts = parts.contiguous()
    got = torch.empty_like(parts)
    if not isinstance(group, FakeProcessGroup):
        dist.all_to_all_single(got, parts, group=group)
    return got
