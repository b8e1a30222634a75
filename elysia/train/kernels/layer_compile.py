"""Decoder layers under torch.compile: one compiled function that all layers of a class share.

Attention stays outside: the lengths of its samples differ in every pack, and a compiler would make code for
each. What comes before and after it is compiled once, for rows of any length. Only training passes run
compiled; whatever runs without gradients (evaluation, replies, DPO's reference) runs as before.
"""

from __future__ import annotations

import os
import shutil
from functools import partial
from importlib.util import find_spec
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from elysia.core.errors import ModelError
from elysia.core.i18n import Text
from elysia.train.kernels import packed_attention

OPAQUE_ARGS = ("segments", "sequence_group")  # only attention looks at them
COMPILERS = ("g++", "c++", "clang++")
BACKEND = "inductor"  # one of torch.compile's


def compile_layers(body: nn.Module) -> int:
    """Let the decoder layers of `body` run compiled while they train; returns how many there are.

    No module is wrapped, so weights keep their names. A checkpointed layer is compiled inside of its
    checkpoint, which calls it again in backward. ModelError for a body whose layers are not
    transformers' own.
    """
    import torch._dynamo

    layers = [m for m in body.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError("train.layers_not_compilable", model=type(body).__name__)
    packed_attention.disable_compile()
    # DDP would have regions cut into its buckets; a layer is smaller than one.
    torch._dynamo.config.optimize_ddp = False
    compiled = {kind: _compile_class(kind) for kind in {type(layer) for layer in layers}}
    for layer in layers:
        layer.forward = MethodType(partial(_forward, compiled[type(layer)]), layer)
    return len(layers)


def missing_requirement(device: str) -> Text | None:
    """What the default backend needs on this device and does not find; None when nothing is missing."""
    if device == "cuda" and not find_spec("triton"):
        return Text("train.lacks_triton")
    named = os.environ.get("CXX")
    if not any(map(shutil.which, [named] if named else COMPILERS)):
        return Text("train.lacks_compiler", {"compilers": [named] if named else list(COMPILERS)})
    return None


def _compile_class(kind: type[nn.Module]) -> Any:
    # Below transformers' wrapper, which checkpoints; sizes are symbols from the first pass on.
    forward: Any = kind.forward
    return torch.compile(forward.__wrapped__, dynamic=True, backend=BACKEND)


def _forward(compiled: Any, layer: Any, *args: Any, **kwargs: Any) -> Any:
    if not (layer.training and torch.is_grad_enabled()):
        return type(layer).forward(layer, *args, **kwargs)
    opaque = {
        name: packed_attention.OpaqueArg(kwargs[name]) for name in OPAQUE_ARGS if name in kwargs
    }
    run = partial(compiled, layer, **kwargs | opaque)
    if layer.gradient_checkpointing:
        return layer._gradient_checkpointing_func(run, *args)
    return run(*args)
