"""Next-token loss and log-probabilities over labelled positions only, in chunks: full logits never exist.

InternLM2's vocabulary is 92,544: the float32 logits of one 2,048-token sequence take 758 MB. Here only
`chunk` rows of them exist at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

ROW_MULTIPLE = 32  # on a CPU the rows of a matrix product are padded to a multiple of it


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross entropies; the gradients are computed in the same pass, so logits are made once."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int
    ) -> Tensor:  # shapes: (n, h), (v, h), (n,)
        total = hidden.new_zeros((), dtype=torch.float32)
        hidden_grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        weight_grad = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        with_grad = hidden_grad is not None or weight_grad is not None
        for part in _iter_logit_chunks(hidden, weight, targets, chunk, with_grad):
            total += part.losses.sum()
            if hidden_grad is not None:
                grad = torch.mm(part.grad, part.head)
                hidden_grad[part.begin : part.end] = grad[: len(part.losses)]
            if weight_grad is not None:
                weight_grad += torch.mm(part.grad.t(), part.hidden)
        ctx.save_for_backward(hidden_grad, weight_grad)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_grad, weight_grad = ctx.saved_tensors
        scaled = [
            None if g is None else g * grads[0].to(g.dtype) for g in (hidden_grad, weight_grad)
        ]
        return scaled[0], scaled[1], None, None


class _ChunkedLogProbs(torch.autograd.Function):
    """log p of each target under a frozen head. A position's gradient depends on that position alone,
    whatever the loss makes of it: so it, too, is computed in the forward pass, and scaled in backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int
    ) -> Tensor:  # shapes: (n, h), (v, h), (n,); returns (n,)
        by_position = hidden.new_empty(hidden.shape[0], dtype=torch.float32)
        hidden_grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        with_grad = hidden_grad is not None
        for part in _iter_logit_chunks(hidden, weight, targets, chunk, with_grad):
            by_position[part.begin : part.end] = -part.losses
            if hidden_grad is not None:
                grad = torch.mm(part.grad, part.head)
                hidden_grad[part.begin : part.end] = -grad[: len(part.losses)]
        ctx.save_for_backward(hidden_grad)
        return by_position

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (hidden_grad,) = ctx.saved_tensors
        return hidden_grad * grads[0][:, None].to(hidden_grad.dtype), None, None, None


class _LogitChunk(NamedTuple):
    """Rows `begin` to `end`: their hidden states (padded on a CPU), -log p of each, the gradients of the sum
    of these with respect to the logits (if asked for; zero for padding), and the head in the dtype of the
    product."""

    begin: int
    end: int
    hidden: Tensor
    losses: Tensor
    grad: Tensor
    head: Tensor


def _iter_logit_chunks(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, with_grad: bool
) -> Iterator[_LogitChunk]:
    """Chunk by chunk, all in the same memory: a fresh allocation would make a CPU touch every page first.
    The `grad` of a chunk is overwritten when the next one is asked for.
    """
    dtype = hidden.dtype
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
    hidden, head = hidden.to(dtype), weight.to(dtype)
    rows = min(chunk, hidden.shape[0])
    rows += -rows % ROW_MULTIPLE if hidden.device.type == "cpu" else 0
    buffer = hidden.new_empty(rows, len(head))
    wide = buffer if dtype == torch.float32 else torch.empty_like(buffer, dtype=torch.float32)
    for begin in range(0, hidden.shape[0], chunk):
        part, target, count = _pad_rows(
            hidden[begin : begin + chunk], targets[begin : begin + chunk]
        )
        logits, scores = buffer[: len(part)], wide[: len(part)]
        torch.mm(part, head.t(), out=logits)
        if scores.dtype != logits.dtype:
            scores.copy_(logits)
        losses = _score_rows(scores, target, count, with_grad)
        if with_grad and scores.dtype != logits.dtype:
            logits.copy_(scores)
        yield _LogitChunk(begin, begin + chunk, part, losses, logits, head)


def _score_rows(scores: Tensor, target: Tensor, count: int, with_grad: bool) -> Tensor:
    """-log p of the first `count` rows; with `with_grad`, `scores` become the gradients of their sum."""
    peak = scores.amax(-1, keepdim=True)
    target_scores = scores.gather(1, target[:, None]) - peak
    scores.sub_(peak).exp_()  # in place: this is the largest tensor of the step
    mass = scores.sum(-1, keepdim=True)
    losses = (mass.log() - target_scores)[:count, 0]
    if with_grad:
        scores.div_(mass)  # softmax; minus one at the target it is the gradient of the logits
        scores.scatter_add_(1, target[:, None], -torch.ones_like(target_scores))
        scores[count:] = 0
    return losses


def _pad_rows(part: Tensor, target: Tensor) -> tuple[Tensor, Tensor, int]:
    """On a CPU, rows padded to a multiple of ROW_MULTIPLE, and how many are real.

    oneDNN compiles a kernel for every new shape, which costs more than the product itself.
    """
    count = part.shape[0]
    fill = -count % ROW_MULTIPLE if part.device.type == "cpu" else 0
    if fill:
        part, target = F.pad(part, (0, 0, 0, fill)), F.pad(target, (0, fill))
    return part, target, count


def chunk_rows(device: str, vocabulary: int) -> int:
    """How many rows of logits to hold at once: 256, or on a CPU, where each chunk passes through main memory,
    as many as fit into 32 MB where that is fewer."""
    if device != "cpu":
        return 256
    return min(256, max(ROW_MULTIPLE, 2**23 // vocabulary // ROW_MULTIPLE * ROW_MULTIPLE))


def cross_entropy_sum(hidden: Tensor, head: nn.Module, targets: Tensor, chunk: int) -> Tensor:
    """Sum over n positions of -log p(target), a float32 scalar.

    hidden: (n, h) at the positions that predict; targets: (n,), no IGNORE among them.
    A head that is a plain linear layer takes the fused path; any other (LoRA on the head, a bias) is
    called as it is, chunk by chunk, and its logits are made again in backward.
    """
    weight: Any = getattr(head, "weight", None)
    if hasattr(weight, "ds_id"):
        # ZeRO-3 gathers the head's weight at each call, all processes together: one call each,
        # however many tokens a process has (even none).
        return F.cross_entropy(head(hidden).float(), targets, reduction="sum")
    if type(head) is nn.Linear and head.bias is None:
        loss: Tensor = _ChunkedCrossEntropy.apply(hidden, weight, targets, chunk)
        return loss
    return torch.stack(_call_chunks(head, hidden, targets, chunk, "sum")).sum()


def log_probs(hidden: Tensor, head: nn.Module, targets: Tensor, chunk: int) -> Tensor:
    """log p(target) at each of n positions, float32 of (n,), for losses that weigh positions.

    Arguments as of `cross_entropy_sum`. A frozen linear head takes the fused path; one that trains is
    called chunk by chunk and once more in backward, because its own gradient depends on how the loss
    weighs each position.
    """
    weight: Any = getattr(head, "weight", None)
    if hasattr(weight, "ds_id"):  # as above: one call
        return -F.cross_entropy(head(hidden).float(), targets, reduction="none")
    if type(head) is nn.Linear and head.bias is None and not weight.requires_grad:
        by_position: Tensor = _ChunkedLogProbs.apply(hidden, weight, targets, chunk)
        return by_position
    return -torch.cat(_call_chunks(head, hidden, targets, chunk, "none"))


def _call_chunks(
    head: nn.Module, hidden: Tensor, targets: Tensor, chunk: int, reduction: str
) -> list[Tensor]:
    """Cross entropies of each chunk, whose logits are made again in backward.

    A head is called even for no token at all: processes exchange gradients, and must all have the same ones.
    """

    def score(part: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(head(part).float(), target, reduction=reduction)

    return [
        checkpoint(score, hidden[i : i + chunk], targets[i : i + chunk], use_reentrant=False)
        for i in range(0, max(hidden.shape[0], 1), chunk)
    ]
