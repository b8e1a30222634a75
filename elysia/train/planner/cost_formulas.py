"""What a training holds and how long it computes, by formula: nothing is loaded, nothing is run.

Activations are what autograd keeps of a decoder layer for the backward pass, tensor by tensor, for a
pre-norm transformer with a gated MLP (Llama and its kin; for others it is an approximation). The formulas
were held against the tensors of real steps: within 10 % for float32, and within 12 % for 16 bits except
DoRA with recomputation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from elysia.models import loading
from elysia.train.config.builder import build_model_config
from elysia.train.config.deepspeed_presets import load_deepspeed_config
from elysia.train.config.settings import Settings
from elysia.train.distributed.sequence_parallel import check_heads
from elysia.train.kernels.chunked_loss import chunk_rows
from elysia.train.planner import flops
from elysia.train.planner.batch_shapes import MicroBatchShape, rank_typical
from elysia.train.planner.hardware import TargetDevice
from elysia.train.planner.meta_model import MetaModel

MB = 2**20
UNPLANNED = ("torch_compile", "liger_kernel")  # what they save is in no formula
NF4_BLOCK, NF4_SCALE_BLOCK = 64, 256  # weights that share a scale; scales that share one in turn
# Alive in backward beside what forward has kept: gradients in one layer, in widths of the MLP.
TRANSIENT_WIDTHS = 3
# How often a byte that a layer keeps is moved, all in all: norms, activations, their gradients. On a CPU this
# stands for what starting an operation costs, too; fitted to the runs of docs/plan.md, guessed for GPUs.
PASSES = {"cpu": 25, "cuda": 10}
CUDA_CONTEXT = 600 * MB  # CUDA's context and libraries; differs by card, not measured here
# oneDNN makes code for every kind of product: little in float32; in 16 bits each length of a row has its own,
# and 1,024 pieces are kept. Measured; the kinds are those of a layer under LoRA.
CPU_KERNELS, KERNEL, KERNELS_PER_LENGTH, MAX_KERNELS = 35 * MB, int(0.55 * MB), 25, 1024
# What a CPU's C library wastes between tensors that come and go, as a share of activations: measured over
# the runs of docs/plan.md.
CPU_FRAGMENTATION = 0.3


@dataclass(frozen=True)
class CostEstimate:
    """Bytes by part at the peak; seconds of a micro-batch, and of an optimizer step, by kind of work."""

    memory: dict[str, int]
    micro_batch_seconds: dict[str, float]
    optimizer_seconds: float

    @property
    def peak(self) -> int:
        return sum(self.memory.values())


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder: widths in numbers per position, `heads` and `layers` as counts."""

    hidden: int
    mlp: int
    query: int
    key_value: int
    heads: int
    layers: int
    vocabulary: int

    @classmethod
    def from_config(cls, config: Any) -> DecoderShape:
        """From transformers' config. A mixture of experts counts the experts that a token meets."""
        config = config.get_text_config()
        hidden, heads = config.hidden_size, config.num_attention_heads
        size = loading.get_head_dim(config)
        experts = getattr(config, "num_experts_per_tok", None) or 1
        mlp = getattr(config, "moe_intermediate_size", None) if experts > 1 else None
        mlp = mlp or getattr(config, "intermediate_size", None) or 4 * hidden
        layer = next(iter(getattr(config, "per_layer_config", None) or [config]))
        kv_heads = getattr(layer, "num_key_value_heads", None) or heads
        return cls(
            hidden=hidden, mlp=experts * mlp, query=heads * size, key_value=kv_heads * size, heads=heads,
            layers=config.num_hidden_layers, vocabulary=config.vocab_size,
        )  # fmt: skip


class CostModel:
    """The costs of `settings` on `target`; `folder` has the base model's config.json."""

    def __init__(self, settings: Settings, target: TargetDevice, folder: Path) -> None:
        arguments = build_model_config(settings, str(folder), target.dtype)
        for name in ("type", "sequence_parallel_size", *UNPLANNED):
            arguments.pop(name)
        self.model = MetaModel(**{**arguments, "objective": settings.objective}).train()
        self.settings, self.target = settings, target
        self.shape = DecoderShape.from_config(self.model.causal.config)
        check_heads(self.shape.heads, settings.sequence_parallel_size)
        self.itemsize: int = getattr(torch, target.dtype).itemsize
        self.full = settings.method == "full"
        self.linear_weights = sum(weight.numel() for weight in self.model.linear_weights())

    def estimate(self, micros: list[MicroBatchShape]) -> CostEstimate:
        """Memory at the peak of the largest of `micros`, and seconds of a typical one."""
        pieces = [piece for micro in micros for piece in self.split(micro)]
        largest = max(pieces, key=lambda piece: (piece.tokens, piece.learned))
        accumulates = self.settings.accumulative_counts > 1 or len(pieces) > len(micros)
        memory = self.memory_by_part(largest, accumulates)
        memory["program"] += self.kernel_bytes(micros)
        # Adam reads four numbers of a weight and writes three; clipping reads and writes its gradient.
        moved = (10 if self.settings.max_norm else 7) * memory["gradients"]
        seconds = self.micro_batch_seconds(rank_typical(micros)[0])
        return CostEstimate(memory, seconds, moved / self.target.rates.bytes)

    def kernel_bytes(self, micros: list[MicroBatchShape]) -> int:
        """Bytes of the code that oneDNN makes for the lengths of rows in `micros`."""
        if self.target.kind != "cpu" or self.itemsize == 4:
            return 0
        lengths = {p.load("cpu").positions for micro in micros for p in self.split(micro)}
        return KERNEL * min(KERNELS_PER_LENGTH * len(lengths), MAX_KERNELS)

    def split(self, micro: MicroBatchShape) -> list[MicroBatchShape]:
        """What goes through the network at once: one process on a CPU takes micro-batches in pieces."""
        if self.target.kind != "cpu" or self.target.world > 1 or self.target.deepspeed:
            return [micro]
        return micro.pieces(1 + self.settings.pairs)

    def memory_by_part(self, largest: MicroBatchShape, accumulates: bool) -> dict[str, int]:
        """Bytes by part. `accumulates`: gradients of an earlier micro-batch are there while one is
        computed."""
        states = self.state_bytes()
        activations, logits = self.activation_bytes(largest)
        if not accumulates:  # gradients come as activations go
            activations = max(activations - states["gradients"], 0)
        is_cpu = self.target.kind == "cpu"
        return {
            **states,
            "activations": activations,
            "logits": logits,
            "allocator": int(CPU_FRAGMENTATION * activations) if is_cpu else 0,
            "program": _count_program_bytes() if is_cpu else CUDA_CONTEXT,
        }

    def state_bytes(self) -> dict[str, int]:
        """Bytes of weights, adapters, gradients and optimizer states of one process; ZeRO's stages divide
        them among processes (https://arxiv.org/abs/1910.02054)."""
        settings, target = self.settings, self.target
        parameters = list({id(p): p for p in self.model.parameters()}.values())
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        frozen = sum(p.numel() * p.itemsize for p in parameters if not p.requires_grad)
        frozen += sum(buffer.numel() * buffer.itemsize for buffer in self.model.buffers())
        if settings.method == "qlora":
            for weight in self.model.linear_weights():
                frozen += nf4_bytes(weight.numel(), settings.double_quant)
                frozen -= weight.numel() * weight.itemsize
        own, states = 4 * trained, optimizer_bytes(settings) * trained
        zero: dict[str, Any] = {}
        if target.deepspeed:  # trains in 16 bits; float32 masters count as the optimizer's
            zero = load_deepspeed_config(target.deepspeed).get("zero_optimization", {})
            own, states = self.itemsize * trained, states + 4 * trained
        stage, gradients = zero.get("stage", 0), own
        if stage >= 1:
            states = 0 if "offload_optimizer" in zero else states // target.world
        if stage >= 2:
            gradients //= target.world
        weights, adapters = (own + frozen, 0) if self.full else (frozen, own)
        if stage >= 3:
            weights = 0 if "offload_param" in zero else weights // target.world
        return {
            "weights": weights,
            "adapters": adapters,
            "gradients": gradients,
            "optimizer": states,
        }

    def activation_bytes(self, shape: MicroBatchShape) -> tuple[int, int]:
        """Bytes of activations and of logits at the peak of forward and backward."""
        sizes, settings = self.shape, self.settings
        load = shape.load(self.target.kind)
        positions = load.positions / settings.sequence_parallel_size
        layer = self.layer_bytes() * positions + self._attention_bytes(shape)
        if settings.use_dora and settings.lora_dropout:
            # PEFT multiplies by the whole weight once more, and autograd keeps it.
            layer += self.itemsize * self.linear_weights / sizes.layers
        fixed = 0
        if self.full and self.itemsize == 2:
            fixed += self.itemsize * self.linear_weights  # autocast keeps a copy of each weight
        head = self.model.causal.get_output_embeddings()
        if head is not None and head.weight.requires_grad:
            fixed += 2 * 4 * head.weight.numel()  # its gradient of this pass, and that one scaled
        stream = (4 if self.full else self.itemsize) * sizes.hidden * positions
        transient = TRANSIENT_WIDTHS * self.itemsize * sizes.mlp * positions
        logits = self.logit_bytes(shape)
        if not settings.gradient_checkpointing:
            return math.ceil(sizes.layers * layer + fixed + max(transient, 2 * stream)), logits
        # Each layer's input is kept. Layers are computed again one at a time, when the logits are gone.
        at_loss = (sizes.layers + 2) * stream + fixed
        in_layer = sizes.layers * stream + layer + fixed + transient
        if in_layer > at_loss + logits:
            return math.ceil(in_layer), 0
        return math.ceil(at_loss), logits

    def layer_bytes(self) -> float:
        """Bytes per position that one decoder layer keeps, attention probabilities apart."""
        sizes, settings, itemsize = self.shape, self.settings, self.itemsize
        # The residual stream before each of the two norms, which compute in float32.
        saved = 4.0 * 2 * sizes.hidden
        # Queries, keys, values; attention's output as its kernel and as o_proj have it; the MLP's halves.
        saved += itemsize * (3 * sizes.query + 2 * sizes.key_value + 2 * sizes.mlp)
        if self.full:
            saved += 4.0 * 2 * sizes.hidden  # what the norms' own weights are multiplied with
            # In float32 linear layers share their input; autocast makes a copy for each.
            inputs = (2 if itemsize == 4 else 5) * sizes.hidden + sizes.mlp
            return saved + itemsize * inputs
        if settings.lora_dropout:  # every layer keeps its own input with gaps, and the mask
            inputs = 2 * (5 * sizes.hidden + sizes.query + sizes.mlp) - sizes.query
        else:
            inputs = 2 * sizes.hidden + sizes.mlp
        saved += itemsize * (inputs + 7 * settings.lora_r)
        if settings.use_dora:  # PEFT's own path: the base's and the adapter's product, both scaled
            outputs = sizes.query + 2 * sizes.key_value + 2 * sizes.hidden + 2 * sizes.mlp
            saved += 2 * itemsize * outputs
        return saved

    def _attention_bytes(self, shape: MicroBatchShape) -> float:
        """Bytes of probabilities that a layer keeps: whole rows under `eager`, and of the CPU's blocks in
        16 bits. Other kernels compute them again in the backward pass."""
        heads = self.shape.heads / self.settings.sequence_parallel_size
        if self.settings.attention == "eager":
            return 2 * self.itemsize * heads * len(shape.lengths) * max(shape.lengths) ** 2
        if self.target.kind == "cpu" and self.itemsize == 2:
            return self.itemsize * heads * shape.load("cpu").computed_squares
        return 0.0

    def logit_bytes(self, shape: MicroBatchShape) -> int:
        """Bytes of logits that exist at once: a chunk in the dtype of products, and in float32 for the
        softmax. A reward model has none."""
        if self.settings.objective == "reward":
            return 0
        learned = -(-shape.learned // self.settings.sequence_parallel_size)
        rows = min(chunk_rows(self.target.kind, self.shape.vocabulary), learned)
        return rows * self.shape.vocabulary * (4 if self.itemsize == 4 else self.itemsize + 4)

    def micro_batch_seconds(self, micro: MicroBatchShape) -> dict[str, float]:
        """Seconds of forward and backward by kind of work."""
        settings, rates, pieces = self.settings, self.target.rates, self.split(micro)
        by_segment = settings.attention not in ("sdpa", "eager")
        work = flops.count_token_work(
            self.model.causal,
            recomputed=settings.gradient_checkpointing,
            reference=settings.objective == "dpo" and not self.full,
            segments=by_segment,
        )
        loads = [piece.load(self.target.kind, by_segment) for piece in pieces]
        executed = sum(flops.executed_flops(work, load) for load in loads)
        attention = sum(flops.executed_attention_flops(work, load) for load in loads)
        sharing = settings.sequence_parallel_size
        positions = sum(load.positions for load in loads) / sharing
        moved = PASSES[self.target.kind] * self.shape.layers * self.layer_bytes() * positions
        seconds = {
            "products": (executed - attention) / sharing / rates.flops,
            "attention": attention / sharing / rates.attention,
            "passes over tensors": moved
            * (1.3 if settings.gradient_checkpointing else 1)
            / rates.bytes,
        }
        if settings.method == "qlora":
            # Every product makes its weight whole first: half a byte is read, a number written.
            passes = len(pieces) * (2 + settings.gradient_checkpointing + settings.use_dora)
            moved = passes * self.linear_weights * (0.5 + self.itemsize)
            seconds["4-bit weights"] = moved / rates.bytes
        return seconds


def nf4_bytes(count: int, double_quant: bool) -> int:
    """Bytes of `count` weights in bitsandbytes' NF4 with their scales
    (https://arxiv.org/abs/2305.14314)."""
    scales = -(-count // NF4_BLOCK)
    # Double quantization: a byte per scale, and a float32 for every 256 of them.
    size = scales + 4 * -(-scales // NF4_SCALE_BLOCK) if double_quant else 4 * scales
    return -(-count // 2) + size


def optimizer_bytes(settings: Settings) -> int:
    """Bytes of optimizer state for each weight that trains."""
    name = settings.optimizer.rpartition(".")[2].lower()
    if "8bit" in name:
        return 2
    if "adam" in name or "lamb" in name:
        return 8
    return 4 if any(word in name for word in ("lion", "rmsprop", "adagrad")) else 0


def _count_program_bytes() -> int:
    """Of this process, which holds the rows and the tokenizer, once it has imported what training does."""
    import tensorboard  # noqa: F401

    import elysia.train.engine.runner  # noqa: F401

    return int(psutil.Process().memory_info().rss) + CPU_KERNELS
