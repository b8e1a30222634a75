"""Next-token loss and log-probabilities over labelled positions only, in chunks: full logits never
exist.

InternLM2's vocabulary is 92,544: the fp32 logits of one 2,048-token sequence take 758 MB. Here only
`chunk` rows of them live at a time. Knows nothing of models beyond a hidden state and a head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


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
        for start in range(0, hidden.shape[0], chunk):
            end = start + chunk
            part, losses, grad = _scored(hidden[start:end], weight, targets[start:end], slopes)
            total += losses.sum()
            if hidden_grad is not None:
                hidden_grad[start:end] = torch.mm(grad, weight.to(grad.dtype))[: len(losses)]
            if weight_grad is not None:
                weight_grad += torch.mm(grad.t(), part.to(grad.dtype))
            del grad  # or it would stand beside the next chunk's logits
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
        for start in range(0, hidden.shape[0], chunk):
            end = start + chunk
            _, losses, grad = _scored(
                hidden[start:end], weight, targets[start:end], hidden_grad is not None
            )
            found[start:end] = -losses
            if hidden_grad is not None:
                hidden_grad[start:end] = -torch.mm(grad, weight.to(grad.dtype))[: len(losses)]
            del grad
        ctx.save_for_backward(hidden_grad)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (hidden_grad,) = ctx.saved_tensors
        return hidden_grad * grads[0][:, None].to(hidden_grad.dtype), None, None, None


def _scored(
    hidden: Tensor, weight: Tensor, targets: Tensor, slopes: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one chunk: the rows used (filled up on a CPU), -log p of each real row, and with `slopes`
    the gradients of their sum with respect to the logits, zero for rows that only fill."""
    part, target, rows = _bucketed(hidden, targets)
    logits = F.linear(part, weight)
    scores = logits.float()
    peak = scores.amax(-1, keepdim=True)
    wanted = scores.gather(1, target[:, None]) - peak
    scores.sub_(peak).exp_()  # in place: this is the largest tensor of the step
    mass = scores.sum(-1, keepdim=True)
    losses = (mass.log() - wanted)[:rows, 0]
    if slopes:
        scores.div_(mass)  # softmax; minus one at the target it is the logits' gradient
        scores.scatter_add_(1, target[:, None], -torch.ones_like(wanted))
        scores[rows:] = 0
    return part, losses, scores.to(logits.dtype) if slopes else scores


def _bucketed(part: Tensor, target: Tensor) -> tuple[Tensor, Tensor, int]:
    """On a CPU, rows filled up to a multiple of 32, and how many are real.

    oneDNN compiles a kernel for every new shape, which costs more than the product itself.
    """
    rows = part.shape[0]
    fill = -rows % 32 if part.device.type == "cpu" else 0
    if fill:
        part, target = F.pad(part, (0, 0, 0, fill)), F.pad(target, (0, fill))
    return part, target, rows


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
