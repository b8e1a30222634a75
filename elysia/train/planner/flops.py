"""Floating-point operations of a micro-batch, counted from the model's own layers.

Two counts, apart: `useful_flops`, what the method asks for (no recomputation, no padding), over the peak
gives MFU (https://arxiv.org/abs/2204.02311); `executed_flops`, what the device carries out, gives the
hardware's share, HFU. A frozen weight costs 4 operations a token, not the 6 of one that trains: its
own gradient is never made. A product and its sum are two operations; what is not a matrix product is
not counted. Knows nothing of time, devices or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elysia.data.tokenize.encoder import IGNORE


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
    logits are made; `squares` and `computed_squares` are sums of products of lengths that attention
    sees: n * (n + 1) / 2 for a causal sample, and what a kernel computes.
    """

    tokens: int
    positions: int
    predictions: int
    scored: int
    squares: float
    computed_squares: float

    @property
    def padding(self) -> float:
        """The share of positions that hold no token."""
        return 1 - self.tokens / max(self.positions, 1)


def count_token_work(causal: Any, **how: bool) -> TokenWork:
    """The work of a causal model as it stands, adapters injected; `how` are Work's last three.

    Its weights may be without content (on "meta").
    """
    body, head = causal.get_decoder(), causal.get_output_embeddings()
    frozen = trained = 0
    for weights, trains in _iter_linear_weights(body):
        frozen, trained = frozen + weights * (not trains), trained + weights * trains
    config = causal.config.get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    tops = list(_iter_linear_weights(head)) if head is not None else []
    return TokenWork(
        frozen=frozen,
        trained=trained,
        head=sum(weights for weights, _ in tops),
        head_trains=any(trains for _, trains in tops),
        width=config.num_hidden_layers * config.num_attention_heads * size,
        **how,
    )


def _iter_linear_weights(module: nn.Module) -> Any:
    """(weights, whether they train) of each linear layer; 4-bit ones by their real size."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            yield part.in_features * part.out_features, part.weight.requires_grad
        elif type(part).__name__ == "Conv1D":  # GPT-2's, a transposed linear layer
            weight: Any = part.weight
            yield weight.numel(), weight.requires_grad


def count_batch_load(batch: dict[str, Any], device: str, segments: bool = True) -> BatchLoad:
    """The load of a micro-batch as `collate_flat` or `collate_padded` makes it.

    device: "cpu" or "cuda"; on a CPU rows are filled up (sft.py, attention.py, loss.py say why).
    """
    labels: Tensor = batch["labels"]
    predictions = int((labels[:, 1:] != IGNORE).sum())
    step = 64 if device == "cpu" else 1
    if "attention_mask" in batch:
        lengths, positions = batch["attention_mask"].sum(1).double(), labels.numel()
        computed = float(labels.shape[0] * labels.shape[1] ** 2)
    else:
        lengths = torch.tensor(batch["segments"], dtype=torch.double)
        positions = labels.shape[1]
        if segments:
            positions += -positions % step
        filled = torch.ceil(lengths / step) * step
        computed = float((filled * (filled + 1) / 2).sum())
    return BatchLoad(
        tokens=int(lengths.sum()),
        positions=positions,
        predictions=predictions,
        scored=predictions + (-predictions % 32 if device == "cpu" else 0),
        squares=float((lengths * (lengths + 1) / 2).sum()),
        computed_squares=computed,
    )


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
    scores = 4 * work.width * load.computed_squares
    body = (4 * work.frozen + 6 * work.trained) * load.positions + once * work.recomputed
    head = (6 if work.head_trains else 4) * work.head * load.scored
    # A fused kernel makes the scores again in backward, five products; others have kept them.
    attention = scores * (1 + (2.5 if work.segments else 2) + work.recomputed)
    before = 0.0
    if work.reference:
        before = 2 * work.frozen * load.positions + 2 * work.head * load.scored + scores
    return body + head + attention + before
