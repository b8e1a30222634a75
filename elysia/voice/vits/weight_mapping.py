"""The tensors of a VITS generator under two sets of names: transformers' and the original's, one to one.

The original's are those of the VITS paper's code and of the projects built on it. Only attention's
projections differ in shape: there they are convolutions of size one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from elysia.core.errors import VoiceError

_ATTENTION = re.compile(r"attention\.([qkv]|out)_proj\.weight$")
_RENAMES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^embed_speaker\.", "emb_g."),
    (r"^text_encoder\.embed_tokens\.", "enc_p.emb."),
    (r"^text_encoder\.project\.", "enc_p.proj."),
    (
        r"^text_encoder\.encoder\.layers\.(\d+)\.attention\.(emb_rel_[kv])$",
        r"enc_p.encoder.attn_layers.\1.\2",
    ),
    (
        r"^text_encoder\.encoder\.layers\.(\d+)\.attention\.([qkv])_proj\.",
        r"enc_p.encoder.attn_layers.\1.conv_\2.",
    ),
    (
        r"^text_encoder\.encoder\.layers\.(\d+)\.attention\.out_proj\.",
        r"enc_p.encoder.attn_layers.\1.conv_o.",
    ),
    (r"^text_encoder\.encoder\.layers\.(\d+)\.layer_norm\.", r"enc_p.encoder.norm_layers_1.\1."),
    (
        r"^text_encoder\.encoder\.layers\.(\d+)\.final_layer_norm\.",
        r"enc_p.encoder.norm_layers_2.\1.",
    ),
    (r"^text_encoder\.encoder\.layers\.(\d+)\.feed_forward\.", r"enc_p.encoder.ffn_layers.\1."),
    (r"^decoder\.upsampler\.", "dec.ups."),
    (r"^decoder\.", "dec."),
    (r"^posterior_encoder\.conv_", "enc_q."),
    (r"^posterior_encoder\.wavenet\.", "enc_q.enc."),
    # A flip without weights stands between two flows of the original.
    (r"^flow\.flows\.(\d+)\.conv_", lambda m: f"flow.flows.{2 * int(m[1])}."),
    (r"^flow\.flows\.(\d+)\.wavenet\.", lambda m: f"flow.flows.{2 * int(m[1])}.enc."),
    (
        r"^duration_predictor\.(post_)?flows\.(\d+)\.",
        lambda m: f"dp.{m[1] or ''}flows.{max(0, 2 * int(m[2]) - 1)}.",
    ),
    (r"^duration_predictor\.", "dp."),
    (r"(?<=^dp\.)(post_)?conv_(pre|proj)\.", r"\1\2."),
    (r"(?<=\d\.)conv_(pre|proj)\.", r"\1."),
    (r"conv_dds\.", "convs."),
    (r"convs_dilated\.", "convs_sep."),
    (r"convs_pointwise\.", "convs_1x1."),
    (r"\.translate$", ".m"),
    (r"\.log_scale$", ".logs"),
    (r"(norm(?:s|_layers)?_[12](?:\.\d+)?)\.weight$", r"\1.gamma"),
    (r"(norm(?:s|_layers)?_[12](?:\.\d+)?)\.bias$", r"\1.beta"),
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
)


def original_name(name: str) -> str:
    """The original's name of one of transformers' tensors.

    >>> original_name("flow.flows.1.wavenet.in_layers.0.parametrizations.weight.original0")
    'flow.flows.2.enc.in_layers.0.weight_g'
    >>> original_name("duration_predictor.flows.2.conv_dds.norms_1.0.weight")
    'dp.flows.3.convs.norms_1.0.gamma'
    """
    for pattern, swap in _RENAMES:
        name = re.sub(pattern, swap, name)
    return name


def strip_wrappers(name: str) -> str:
    """A tensor's original name without what wrappers add: data parallel, torch's newer weight norm."""
    name = name.removeprefix("module.")
    name = name.replace(".parametrizations.weight.original0", ".weight_g")
    return name.replace(".parametrizations.weight.original1", ".weight_v")


def from_original(tensors: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors under transformers' names, which `targets` maps to tensors of the right shape.

    Raises VoiceError, naming the tensor, for a shape that differs.
    """
    renamed = {}
    for name, target in targets.items():
        tensor = tensors[original_name(name)]
        renamed[name] = tensor.squeeze(-1) if _ATTENTION.search(name) else tensor
        if renamed[name].shape != target.shape:
            raise VoiceError(
                "voice.tensor_shape", name=original_name(name), shape=str(tuple(tensor.shape)),
                expected=str(tuple(target.shape)),
            )  # fmt: skip
    return renamed


def to_original(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """transformers' tensors under the original's names and in its shapes."""
    return {
        original_name(name): tensor.unsqueeze(-1) if _ATTENTION.search(name) else tensor
        for name, tensor in tensors.items()
    }
