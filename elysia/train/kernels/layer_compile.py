"""Decoder layers under torch.compile: one code that all layers of a kind share.

Attention stays outside: its samples' lengths are another list in every pack, and a compiler would make code
for each. What lies before and after it is compiled once, for rows of any length. Only training passes take
this way; whatever runs without gradients (evaluation, replies, DPO's reference) goes as before. Knows
nothing of losses, of the embeddings or the head.
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
from elysia.train.kernels import packed_attention

OPAQUE_ARGS = ("segments", "sequence_group")  # what only attention looks at
COMPILERS = ("g++", "c++", "clang++")
BACKEND = "inductor"  # one of torch.compile's


def compile_layers(body: nn.Module) -> int:
    """Let the decoder layers of `body` run compiled while they train; returns how many there are.

    No module is wrapped, so weights keep their names. A checkpointed layer is compiled inside of its
    checkpoint, which calls it again in backward. ModelError for a body whose layers are not of
    transformers' own kind.
    """
    import torch._dynamo

    layers = [m for m in body.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(
            f"torch_compile = True cannot be used: the layers of {type(body).__name__} are of a kind that "
            "is not known here. Set it to False."
        )
    packed_attention.disable_compile()
    # DDP would have regions cut into its buckets; a layer is smaller than one.
    torch._dynamo.config.optimize_ddp = False
    kinds = {type(layer) for layer in layers}
    made = {kind: _compile_class(kind) for kind in kinds}
    for layer in layers:
        layer.forward = MethodType(partial(_forward, made[type(layer)]), layer)
    return len(layers)


def missing_requirement(device: str) -> str:
    """What the default backend needs on this device and does not find, as words; '' for nothing."""
    if device == "cuda" and not find_spec("triton"):
        return "the package triton, which GPU code is made with, is not installed"
    named = os.environ.get("CXX")
    if not any(map(shutil.which, [named] if named else COMPILERS)):
        return f"there is no C++ compiler ({named or ', '.join(COMPILERS)})"
    return ""


def _compile_class(kind: type[nn.Module]) -> Any:
    # Below transformers' wrapper, which checkpoints; sizes are symbols from the first pass on.
    plain: Any = kind.forward
    return torch.compile(plain.__wrapped__, dynamic=True, backend=BACKEND)


def _forward(code: Any, layer: Any, *args: Any, **kwargs: Any) -> Any:
    if not (layer.training and torch.is_grad_enabled()):
        return type(layer).forward(layer, *args, **kwargs)
    unread = {
        name: packed_attention.OpaqueArg(kwargs[name]) for name in OPAQUE_ARGS if name in kwargs
    }
    run = partial(code, layer, **kwargs | unread)
    if layer.gradient_checkpointing:
        return layer._gradient_checkpointing_func(run, *args)
    return run(*args)
