"""Floating-point operations of a micro-batch, counted from the model's own layers.

Two counts: `useful_flops`, what the method asks for (no recomputation, no padding), over the device's
peak gives MFU (https://arxiv.org/abs/2204.02311); `executed_flops`, what the device carries out, gives
the hardware's share, HFU. A frozen weight costs 4 operations a token, not the 6 of one that trains: its
own gradient is never made. A product and its sum are two operations; only matrix products are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn

from elysia.data.tokenize.arrays import IGNORE
from elysia.models import loading
from elysia.models.adapters import EXPERT_PARAMETERS, find_expert_layers


@dataclass(frozen=True)
class TokenWork:
    """What one token meets on its way, in weights of matrix products.

    `frozen`, `trained`: of the body's linear layers (adapters train); `head` the head's, at
    predicting positions alone; `width`: heads * head size, summed over layers; `recomputed`: whether
    backward runs the body's forward once more; `reference`: whether a step begins with a pass of
    the base alone (DPO under an adapter); `segments`: whether each sample is attended by itself.
    The first layer's gradient with respect to frozen embeddings is counted, though without
    recomputation nobody needs it.
    """

    frozen: int
    trained: int
    head: int
    head_trains: bool
    width: int
    recomputed: bool = False
    reference: bool = False
    segments: bool = True


@dataclass(frozen=True)
class BatchLoad:
    """A micro-batch: `tokens` that are real, `positions` that are computed, `predictions` whose
    logits are asked for and `scored` whose logits are made; `squares` and `computed_squares` are sums
    of products of lengths that attention sees: n * (n + 1) / 2 for a causal sample, and what a kernel
    computes.
    """

    tokens: int
    positions: int
    predictions: int
    scored: int
    squares: float
    computed_squares: float

    @classmethod
    def from_lengths(
        cls,
        lengths: Sequence[int],
        padded: bool,
        predictions: int,
        device: str,
        segments: bool = True,
    ) -> BatchLoad:
        """Of samples by their lengths, padded to rows or end to end.

        device: "cpu" or "cuda"; on a CPU rows are filled up to multiples of 64 positions, and logits to
        multiples of 32, so that fewer kernels are compiled.
        """
        step = 64 if device == "cpu" else 1
        tokens = sum(lengths)
        if padded:
            positions = len(lengths) * max(lengths)
            computed = float(positions * max(lengths))
        else:
            positions = tokens + (-tokens % step if segments else 0)
            filled = [n + -n % step for n in lengths]
            computed = sum(n * (n + 1) / 2 for n in filled)
        return cls(
            tokens=tokens,
            positions=positions,
            predictions=predictions,
            scored=predictions + (-predictions % 32 if device == "cpu" else 0),
            squares=sum(n * (n + 1) / 2 for n in lengths),
            computed_squares=computed,
        )

    @property
    def padding(self) -> float:
        """The share of positions that hold no token."""
        return 1 - self.tokens / max(self.positions, 1)


def count_token_work(causal: Any, **options: bool) -> TokenWork:
    """The work of a causal model as it stands, adapters injected; `options` are TokenWork's last three.

    Its weights may be without content (on "meta").
    """
    body, head = causal.get_decoder(), causal.get_output_embeddings()
    linears = list(_iter_linear_weights(body))
    linears += _iter_expert_weights(body, causal.config.get_text_config())
    head_linears = list(_iter_linear_weights(head)) if head is not None else []
    config = causal.config.get_text_config()
    size = loading.get_head_dim(config)
    return TokenWork(
        frozen=sum(count for count, trains in linears if not trains),
        trained=sum(count for count, trains in linears if trains),
        head=sum(count for count, _ in head_linears),
        head_trains=any(trains for _, trains in head_linears),
        width=config.num_hidden_layers * config.num_attention_heads * size,
        **options,
    )


def _iter_linear_weights(module: nn.Module) -> Iterator[tuple[int, bool]]:
    """(weights, whether they train) of each linear layer; 4-bit ones by their real size."""
    adapters = {
        id(factor)
        for part in module.modules()
        if isinstance(part, ParamWrapper)
        for factors in (part.lora_A, part.lora_B)
        for factor in factors.values()
    }
    for part in module.modules():
        if id(part) in adapters:
            continue
        if isinstance(part, nn.Linear):
            yield part.in_features * part.out_features, part.weight.requires_grad
        elif type(part).__name__ == "Conv1D":  # GPT-2's, a transposed linear layer
            weight: Any = part.weight
            yield weight.numel(), weight.requires_grad


def _iter_expert_weights(body: nn.Module, config: Any) -> Iterator[tuple[int, bool]]:
    """(weights, whether they train) of the experts that a token meets, of each mixture; of their
    adapters nothing, since those are multiplied out once a pass and not once a token."""
    chosen = getattr(config, "num_experts_per_tok", None) or getattr(config, "top_k_experts", 1)
    for name in find_expert_layers(body):
        layer: Any = body.get_submodule(name)
        for part in EXPERT_PARAMETERS:
            weight = getattr(layer, part)
            yield weight.numel() // weight.shape[0] * chosen, weight.requires_grad


def count_batch_load(batch: dict[str, Any], device: str, segments: bool = True) -> BatchLoad:
    """The load of a micro-batch as `collate_flat` or `collate_padded` makes it."""
    labels: Tensor = batch["labels"]
    padded = "attention_mask" in batch
    lengths = batch["attention_mask"].sum(1).tolist() if padded else batch["segments"]
    predictions = int((labels[:, 1:] != IGNORE).sum())
    return BatchLoad.from_lengths(lengths, padded, predictions, device, segments)


def useful_flops(work: TokenWork, load: BatchLoad) -> float:
    """FLOPs that the method asks for: forward, and the gradients that are needed."""
    body = (4 * work.frozen + 6 * work.trained) * load.tokens
    head = (6 if work.head_trains else 4) * work.head * load.predictions
    attention = 3 * 4 * work.width * load.squares  # two products forward, four backward
    before = 0.0
    if work.reference:  # the adapters are switched off
        before = 2 * work.frozen * load.tokens + 2 * work.head * load.predictions
        before += 4 * work.width * load.squares
    return body + head + attention + before


def executed_flops(work: TokenWork, load: BatchLoad) -> float:
    """FLOPs that the device carries out: padding and recomputation, too."""
    once = 2 * (work.frozen + work.trained) * load.positions
    body = (4 * work.frozen + 6 * work.trained) * load.positions + once * work.recomputed
    head = (6 if work.head_trains else 4) * work.head * load.scored
    before = 0.0
    if work.reference:
        before = 2 * work.frozen * load.positions + 2 * work.head * load.scored
    return body + head + before + executed_attention_flops(work, load)


def executed_attention_flops(work: TokenWork, load: BatchLoad) -> float:
    """The part of `executed_flops` that is attention's scores and their products."""
    once = 4 * work.width * load.computed_squares
    # A fused kernel makes the scores again in backward, five products; others have kept them.
    passes = 1 + (2.5 if work.segments else 2) + work.recomputed + work.reference
    return once * passes
