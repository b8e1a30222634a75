"""One micro-batch on tensors without content: what it would hold in memory, and how long it would take.

Every operation that torch would carry out is seen, with its shapes, on a machine that has neither the
weights nor the memory. Seconds are a roofline's: the larger of what its products and its bytes take.
Knows nothing of settings or data.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from elysia.train.kernels import packed_attention
from elysia.train.planner.hardware import LARGE, DeviceRates

SLOW = ("exp", "silu", "sigmoid", "tanh", "gelu", "softmax", "log", "cos", "sin")
DRAWS = ("bernoulli", "native_dropout", "rand")
# What these read, or write into, is as much as they are told of, however large it lies there.
PICKS = ("gather", "scatter", "index_select", "index_add", "aten::embedding")


class OpTracer(TorchDispatchMode):
    """Inside `with`, on top of a FakeTensorMode, operations are counted.

    `seconds` by kind of work; `live` bytes of what operations have made and nobody has dropped,
    `peak` the most of them, and `peak_logits` those of the peak with `vocabulary` columns;
    `kernels`, the kinds of products in 16 bits.
    """

    def __init__(self, device: DeviceRates, vocabulary: int) -> None:
        super().__init__()
        self.device, self.vocabulary = device, vocabulary
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.operations = 0
        self.kept_gradients = False
        self.kernels: set[Any] = set()
        self.live = self.peak = self.logits = self.peak_logits = 0
        self.events: list[tuple[int, int]] = []  # as heap.py takes them
        self._blocks = 0
        self._seen: dict[int, Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        known = {x.untyped_storage()._cdata for x in read}
        new = [x for x in made if x.untyped_storage()._cdata not in known]
        for tensor in new:
            self._hold(tensor)
        if new or func._schema.is_mutable:  # else a view, which costs nothing
            self._time(func, args, kwargs or {}, out, read, made, new)
        return out

    def _hold(self, tensor: Tensor) -> None:
        storage: Any = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        wide = tensor.dim() > 1 and tensor.shape[-1] == self.vocabulary
        block = self._blocks = self._blocks + 1
        self._seen[key] = weakref.finalize(storage, self._drop, key, block, size, wide)
        self.events.append((block, size))
        self.live += size
        self.logits += size * wide
        if self.live > self.peak:
            self.peak, self.peak_logits = self.live, self.logits

    def _drop(self, key: int, block: int, size: int, wide: bool) -> None:
        self._seen.pop(key, None)
        self.events.append((block, 0))
        self.live -= size
        self.logits -= size * wide

    def _time(
        self, func: Any, args: Any, kwargs: Any, out: Any,
        read: list[Tensor], made: list[Tensor], new: list[Tensor],
    ) -> None:  # fmt: skip
        device, name = self.device, func.name()
        kind, products = self._products(func, name, args, kwargs, out, made)
        passes: float = sum(x.numel() * x.itemsize for x in (*read, *made)) / device.bytes
        fresh: float = sum(size for x in new if (size := x.numel() * x.itemsize) > LARGE)
        if any(word in name for word in PICKS) and "backward" not in name:
            told = [x.numel() * x.itemsize for x in (*read[1:], *(new or []))]
            passes = sum(told) / device.bytes
        if "empty" in name:  # nothing is touched yet
            passes = fresh = 0
        elements = sum(x.numel() for x in made)
        if "dequantize" in name:
            kind, passes = "4-bit weights", elements / device.nf4
        elif any(word in name for word in DRAWS):
            kind, passes = "random numbers", elements / device.random
        elif not products and any(word in name for word in SLOW):
            passes = max(passes, elements / device.exponentials)
        self.operations += 1
        self.seconds[kind] += max(products, passes) + fresh / device.fresh
        self.seconds["starting operations"] += device.overhead

    def _products(
        self, func: Any, name: str, args: Any, kwargs: Any, out: Any, made: list[Tensor]
    ) -> tuple[str, float]:
        if "scaled_dot_product" in name:
            # (batch, heads, t, d); half of the scores, two products forward and five backward.
            query = args[1] if "backward" in name else args[0]
            flops = 4 * query.numel() * (query.shape[2] + 1) / 2
            return "attention", flops * (2.5 if "backward" in name else 1) / self.device.attention
        counts = flop_registry.get(func._overloadpacket)
        if counts is None:
            return "passes over tensors", 0.0
        flops = float(counts(*args, **kwargs, out_val=out))
        if name.startswith("aten::bmm"):  # attention's on a CPU: small ones, many at once
            return "attention", flops / self.device.batched
        if made[0].itemsize == 2:
            shapes = [(x.shape, x.stride()) for x in tree_leaves(args) if isinstance(x, Tensor)]
            self.kernels.add((name, *shapes))
        return "products", flops / self.device.flops


def without_content(model: torch.nn.Module) -> None:
    """Give a model on "meta" tensors of this place's FakeTensorMode; shared ones stay shared."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is None:
                    continue
                if id(tensor) not in memo:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                    if isinstance(tensor, torch.nn.Parameter):
                        empty = torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)
                    memo[id(tensor)] = empty
                held[name] = memo[id(tensor)]


def trace_micro_batch(
    model: Any, batch: dict[str, Any], device: DeviceRates, keep_gradients: bool
) -> OpTracer:
    """A micro-batch's forward and backward of a model on "meta" (it stays there).

    keep_gradients: gradients of an earlier micro-batch are there already, and are added to.
    """
    held = [(module._parameters, dict(module._parameters)) for module in model.modules()]
    held += [(module._buffers, dict(module._buffers)) for module in model.modules()]
    packed_attention.clear_cache()  # a group kept from real batches has content, one kept from here has none
    try:
        with FakeTensorMode():
            without_content(model)
            if keep_gradients:
                for parameter in model.parameters():
                    if parameter.requires_grad:
                        parameter.grad = torch.empty_like(parameter)
            trace = OpTracer(device, model.causal.config.get_text_config().vocab_size)
            trace.kept_gradients = keep_gradients
            with trace:
                (model(batch) * 1.0).backward()
            return trace
    finally:
        packed_attention.clear_cache()
        for place, tensors in held:
            place.update(tensors)
