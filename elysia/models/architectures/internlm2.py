"""InternLM2 on current transformers, without remote code: config, model, weights in its own keys.

InternLM2 (https://arxiv.org/abs/2403.17297) is Llama's network under other names, with query, key
and value fused into one `wqkv`, grouped by key-value head. In memory it is Llama's: the linear
layers, and so a LoRA adapter's targets, are called q_proj, k_proj, v_proj, o_proj, gate_proj,
up_proj, down_proj. On disk the names are InternLM2's; loading and saving translate.
"""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter, WeightRenaming
from transformers.models.llama.modeling_llama import (
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    LlamaRotaryEmbedding,
)

MODEL_TYPE = "internlm2"
ARCHITECTURE = "InternLM2ForCausalLM"


@strict
class InternLM2Config(LlamaConfig):
    """LlamaConfig plus `bias`: whether wqkv and wo have one (the published weights have none).

    The defaults are those of InternLM2's own config, which a sparse config.json relies on.
    """

    model_type = MODEL_TYPE

    vocab_size: int = 103168
    bias: bool = True
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs: Any) -> None:
        self.attention_bias = self.bias
        super().__post_init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As Llama's, without the names that InternLM2 does not have."""
        values: dict[str, Any] = super().to_dict()
        for name in ("attention_bias", "mlp_bias", "pretraining_tp"):
            values.pop(name, None)
        return values


class InternLM2RotaryEmbedding(LlamaRotaryEmbedding):
    """RoPE whose dynamic-NTK base depends on the length of the current call alone.

    transformers' own keeps the base of the longest text so far, so that an answer would depend on
    earlier questions.
    """

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (batch, length, get_head_dim), in x's dtype, for position_ids (batch,
        length).
        """
        if self.rope_type != "dynamic":
            cos, sin = super().forward(x, position_ids)
            return cos, sin
        angles = position_ids[..., None].float() * self.frequencies(position_ids)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)

    def frequencies(self, position_ids: Tensor) -> Tensor:
        """Radians per position (head_dim / 2), float32.

        Beyond the trained length L, at length n with factor f and dimension d, the base b becomes
        b * (f * n / L - (f - 1)) ** (d / (d - 2)): "dynamic NTK", as in InternLM2's own code.
        """
        config: Any = self.config
        rope = config.rope_parameters
        trained = float(self.original_max_seq_len)
        length = (position_ids.max() + 1).float().clamp(min=trained)
        factor, dim = float(rope["factor"]), int(config.head_dim)
        stretch = factor * length / trained - (factor - 1)
        base = float(rope["rope_theta"]) * stretch ** (dim / (dim - 2))
        exponents = torch.arange(0, dim, 2, device=position_ids.device).float() / dim
        return 1.0 / base**exponents


class InternLM2Model(LlamaModel):
    """The network without its head."""

    config_class = InternLM2Config

    def __init__(self, config: InternLM2Config) -> None:
        super().__init__(config)
        self.rotary_emb = InternLM2RotaryEmbedding(config=config)


class InternLM2ForCausalLM(LlamaForCausalLM):
    """The network with its head, whose weights are read and written under InternLM2's keys."""

    config_class = InternLM2Config

    def __init__(self, config: InternLM2Config) -> None:
        # Skips LlamaForCausalLM.__init__, which would build a whole LlamaModel and discard it.
        super(LlamaForCausalLM, self).__init__(config)
        self.model = InternLM2Model(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


class InternLM2ForSequenceClassification(LlamaForSequenceClassification):  # type: ignore[misc]
    """A reward model: the network with a `score` in place of its head, under InternLM2's keys."""

    config_class = InternLM2Config


def split_wqkv(fused: Tensor, heads: int, kv_heads: int, head_dim: int) -> tuple[Tensor, ...]:
    """Query (heads * head_dim, …), key and value (kv_heads * head_dim, …) out of one `wqkv`.

    Its rows lie in kv_heads groups: the group's queries, then its key, then its value.
    """
    rest = fused.shape[1:]
    grouped = fused.reshape(kv_heads, heads // kv_heads + 2, head_dim, *rest)
    parts = grouped[:, :-2], grouped[:, -2], grouped[:, -1]
    return tuple(part.reshape(-1, *rest).contiguous() for part in parts)


def fuse_wqkv(query: Tensor, key: Tensor, value: Tensor, kv_heads: int, head_dim: int) -> Tensor:
    """The inverse of `split_wqkv`."""
    rest = query.shape[1:]
    parts = [part.reshape(kv_heads, -1, head_dim, *rest) for part in (query, key, value)]
    return torch.cat(parts, dim=1).reshape(-1, *rest).contiguous()


class SplitQKV(ConversionOps):
    """On load: `wqkv` to q_proj, k_proj, v_proj."""

    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        **kwargs: Any,
    ) -> dict[str, Any]:
        """See ConversionOps: patterns to tensors, in and out."""
        config = kwargs["config"]
        fused = _get_single(next(iter(input_dict.values())))
        parts = split_wqkv(
            fused, config.num_attention_heads, config.num_key_value_heads, config.head_dim
        )
        return dict(zip(target_patterns, parts, strict=True))

    @property
    def reverse_op(self) -> ConversionOps:
        """For saving."""
        return FuseQKV()


class FuseQKV(ConversionOps):
    """On save: q_proj, k_proj, v_proj to `wqkv`."""

    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        **kwargs: Any,
    ) -> dict[str, Any]:
        """See ConversionOps: patterns to tensors, in and out."""
        config = kwargs["config"]
        query, key, value = (
            _get_single(next(value for name, value in input_dict.items() if part in name))
            for part in ("q_proj", "k_proj", "v_proj")
        )
        fused = fuse_wqkv(query, key, value, config.num_key_value_heads, config.head_dim)
        return {target_patterns[0]: fused}

    @property
    def reverse_op(self) -> ConversionOps:
        """For loading."""
        return SplitQKV()


def _get_single(value: Any) -> Tensor:
    # transformers passes a list of one tensor or the tensor itself, depending on the version.
    tensor: Tensor = value[0] if isinstance(value, list) else value
    return tensor


# The name of each part on disk (InternLM2's) and in memory (Llama's).
KEY_RENAMES = (
    ("model.tok_embeddings.", "model.embed_tokens."),
    ("output.weight", "lm_head.weight"),
    ("attention_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("feed_forward.w1", "mlp.gate_proj"),
    ("feed_forward.w3", "mlp.up_proj"),
    ("feed_forward.w2", "mlp.down_proj"),
    ("attention.wo", "self_attn.o_proj"),
)
FUSED_QKV = ("attention.wqkv", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"))


def get_memory_name(stored: str) -> str:
    """The name in memory of a stored tensor or module, other than the fused `wqkv`.

    >>> get_memory_name("model.layers.0.feed_forward.w1.weight")
    'model.layers.0.mlp.gate_proj.weight'
    """
    for old, new in KEY_RENAMES:
        stored = stored.replace(old, new)
    return stored


def get_stored_name(loaded: str) -> str:
    """The inverse of `get_memory_name`."""
    for new, old in KEY_RENAMES:
        loaded = loaded.replace(old, new)
    return loaded


def register() -> None:
    """Register InternLM2 with transformers' Auto classes; harmless when repeated.

    A registered class takes precedence over the remote code that a folder's `auto_map` names, even
    where trust_remote_code is set.
    """
    AutoConfig.register(MODEL_TYPE, InternLM2Config, exist_ok=True)
    AutoModel.register(InternLM2Config, InternLM2Model, exist_ok=True)
    AutoModelForCausalLM.register(InternLM2Config, InternLM2ForCausalLM, exist_ok=True)
    AutoModelForSequenceClassification.register(
        InternLM2Config, InternLM2ForSequenceClassification, exist_ok=True
    )
    mapping: list[WeightConverter | WeightRenaming] = [
        *(WeightRenaming(stored, loaded) for stored, loaded in KEY_RENAMES),
        WeightConverter([FUSED_QKV[0]], list(FUSED_QKV[1]), [SplitQKV()]),
    ]
    register_checkpoint_conversion_mapping(MODEL_TYPE, mapping, overwrite=True)
