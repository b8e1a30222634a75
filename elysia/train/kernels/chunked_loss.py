"""Next-token loss and log-probabilities over labelled positions only, in chunks: full logits never
exist.

InternLM2's vocabulary is 92,544: the fp32 logits of one 2,048-token sequence take 758 MB. Here only
`chunk` rows of them live at a time. Knows nothing of models beyond a hidden state and a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

ROW_MULTIPLE = 32  # rows of a product on a CPU come in multiples of it


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross entropies; the gradients are taken in the same sweep, so logits are made once."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int
    ) -> Tensor:  # shapes: (n, h), (v, h), (n,)
        total = hidden.new_zeros((), dtype=torch.float32)
        hidden_grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        weight_grad = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        slopes = hidden_grad is not None or weight_grad is not None
        for begin, end, part, losses, grad, head in _iter_logit_chunks(
            hidden, weight, targets, chunk, slopes
        ):
            total += losses.sum()
            if hidden_grad is not None:
                hidden_grad[begin:end] = torch.mm(grad, head)[: len(losses)]
            if weight_grad is not None:
                weight_grad += torch.mm(grad.t(), part)
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
    """log p of each target under a frozen head. A position's gradient is its own, whatever the loss
    makes of it: so it is taken in the forward sweep here, too, and scaled in backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int
    ) -> Tensor:  # shapes: (n, h), (v, h), (n,); returns (n,)
        found = hidden.new_empty(hidden.shape[0], dtype=torch.float32)
        hidden_grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        slopes = hidden_grad is not None
        for begin, end, _, losses, grad, head in _iter_logit_chunks(
            hidden, weight, targets, chunk, slopes
        ):
            found[begin:end] = -losses
            if hidden_grad is not None:
                hidden_grad[begin:end] = -torch.mm(grad, head)[: len(losses)]
        ctx.save_for_backward(hidden_grad)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (hidden_grad,) = ctx.saved_tensors
        return hidden_grad * grads[0][:, None].to(hidden_grad.dtype), None, None, None


class _LogitChunk(NamedTuple):
    """Rows `begin` to `end`: what went in (filled up on a CPU), -log p of each, the gradients of their sum
    with respect to the logits (zero for rows that only fill) if asked for, and the head in use."""

    begin: int
    end: int
    part: Tensor
    losses: Tensor
    grad: Tensor
    head: Tensor


def _iter_logit_chunks(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, slopes: bool
) -> Iterator[_LogitChunk]:
    """Chunk by chunk, all in the same memory: where the system is asked for it anew, a CPU touches every
    page first. A chunk's `grad` is gone when the next is asked for.
    """
    kind = hidden.dtype
    if torch.is_autocast_enabled(hidden.device.type):
        kind = torch.get_autocast_dtype(hidden.device.type)
    hidden, head = hidden.to(kind), weight.to(kind)
    most = min(chunk, hidden.shape[0])
    most += -most % ROW_MULTIPLE if hidden.device.type == "cpu" else 0
    room = hidden.new_empty(most, len(head))
    wide = room if kind == torch.float32 else torch.empty_like(room, dtype=torch.float32)
    for begin in range(0, hidden.shape[0], chunk):
        part, target, rows = _pad_rows(
            hidden[begin : begin + chunk], targets[begin : begin + chunk]
        )
        logits, scores = room[: len(part)], wide[: len(part)]
        torch.mm(part, head.t(), out=logits)
        if scores.dtype != logits.dtype:
            scores.copy_(logits)
        losses = _score_rows(scores, target, rows, slopes)
        if slopes and scores.dtype != logits.dtype:
            logits.copy_(scores)
        yield _LogitChunk(begin, begin + chunk, part, losses, logits, head)


def _score_rows(scores: Tensor, target: Tensor, rows: int, slopes: bool) -> Tensor:
    """-log p of the first `rows`; with `slopes`, `scores` become the gradients of their sum."""
    peak = scores.amax(-1, keepdim=True)
    wanted = scores.gather(1, target[:, None]) - peak
    scores.sub_(peak).exp_()  # in place: this is the largest tensor of the step
    mass = scores.sum(-1, keepdim=True)
    losses = (mass.log() - wanted)[:rows, 0]
    if slopes:
        scores.div_(mass)  # softmax; minus one at the target it is the logits' gradient
        scores.scatter_add_(1, target[:, None], -torch.ones_like(wanted))
        scores[rows:] = 0
    return losses


def _pad_rows(part: Tensor, target: Tensor) -> tuple[Tensor, Tensor, int]:
    """On a CPU, rows filled up to a multiple of FULL, and how many are real.

    oneDNN compiles a kernel for every new shape, which costs more than the product itself.
    """
    rows = part.shape[0]
    fill = -rows % ROW_MULTIPLE if part.device.type == "cpu" else 0
    if fill:
        part, target = F.pad(part, (0, 0, 0, fill)), F.pad(target, (0, fill))
    return part, target, rows


def chunk_rows(device: str, vocabulary: int) -> int:
    """How many rows of logits to hold at once: on a CPU, whose memory they come and go in, 32 MB of them
    where that is fewer."""
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
        # however many tokens a process has (none, too).
        return F.cross_entropy(head(hidden).float(), targets, reduction="sum")
    if type(head) is nn.Linear and head.bias is None:
        loss: Tensor = _ChunkedCrossEntropy.apply(hidden, weight, targets, chunk)
        return loss

    def of(part: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(head(part).float(), target, reduction="sum")

    pieces = range(0, max(hidden.shape[0], 1), chunk)  # once for no token, too: see `log_probs`
    losses = [
        checkpoint(of, hidden[i : i + chunk], targets[i : i + chunk], use_reentrant=False)
        for i in pieces
    ]
    return torch.stack(losses).sum()


def log_probs(hidden: Tensor, head: nn.Module, targets: Tensor, chunk: int) -> Tensor:
    """log p(target) at each of n positions, float32 of (n,), for losses that weigh positions.

    Arguments as of `cross_entropy_sum`. A frozen linear head takes the fused path; one that trains is
    called chunk by chunk and once more in backward: its gradient needs to know the weights. It is
    called for no token, too: processes exchange the gradients that there are, and must have the same.
    """
    weight: Any = getattr(head, "weight", None)

    def of(part: Tensor, target: Tensor) -> Tensor:
        return -F.cross_entropy(head(part).float(), target, reduction="none")

    if hasattr(weight, "ds_id"):  # as above: one call
        return of(hidden, targets)
    if type(head) is nn.Linear and head.bias is None and not weight.requires_grad:
        found: Tensor = _ChunkedLogProbs.apply(hidden, weight, targets, chunk)
        return found
    parts = [
        checkpoint(of, hidden[i : i + chunk], targets[i : i + chunk], use_reentrant=False)
        for i in range(0, max(hidden.shape[0], 1), chunk)
    ]
    return torch.cat(parts)
