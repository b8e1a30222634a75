"""Faster and leaner computation with the numbers of the plain path: attention within packs, the chunked loss,
fused LoRA and gates, compiled layers, Liger's kernels."""

from elysia.train.kernels.chunked_loss import cross_entropy_sum, log_probs
from elysia.train.kernels.fused_lora import patch_lora_and_mlp
from elysia.train.kernels.layer_compile import compile_layers
from elysia.train.kernels.packed_attention import segment_attention

__all__ = [
    "compile_layers",
    "cross_entropy_sum",
    "log_probs",
    "patch_lora_and_mlp",
    "segment_attention",
]
