"""Losses of preference pairs (DPO, ORPO), and the model that is trained with them.

A batch's samples come by turns: chosen, rejected, chosen … Each stands alone (attention.py), so a
pair needs no padding. DPO's reference is the base with its adapter switched off, in the same pass;
a fully tuned model has changed its base, so its reference is taken before training
(hooks/reference_hook.py). Knows nothing of files or of how rows become pairs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from elysia.core.errors import ModelError
from elysia.data.tokenize.encoder import IGNORE
from elysia.train.kernels.chunked_loss import log_probs
from elysia.train.methods.sft import Batch, SupervisedFinetune

DpoLoss = Literal["sigmoid", "robust", "hinge", "ipo"]


def dpo_losses(
    margins: Tensor, beta: float, kind: DpoLoss = "sigmoid", label_smoothing: float = 0.0
) -> Tensor:
    """A loss for each of n pairs.

    margins: (n,), by how much more than the reference the policy prefers the chosen reply: the
    difference of log-ratios, of whole replies or (ipo) per token.
    "sigmoid" is DPO (https://arxiv.org/abs/2305.18290), with `label_smoothing` its conservative form
    for labels of which that share is wrong, and "robust" the form that such labels leave unbiased
    (https://arxiv.org/abs/2403.00409); "hinge" is SLiC's (https://arxiv.org/abs/2305.10425);
    "ipo" regresses to 1 / (2 beta) (https://arxiv.org/abs/2310.12036).
    """
    right, wrong = F.logsigmoid(beta * margins), F.logsigmoid(-beta * margins)
    if kind == "sigmoid":
        return -(1 - label_smoothing) * right - label_smoothing * wrong
    if kind == "robust":
        return (label_smoothing * wrong - (1 - label_smoothing) * right) / (1 - 2 * label_smoothing)
    if kind == "hinge":
        return torch.relu(1 - beta * margins)
    return (margins - 1 / (2 * beta)).square()


def orpo_losses(means: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """(losses, log-odds) of n pairs; means: (n, 2), log-probability per token of chosen and rejected.

    ORPO (https://arxiv.org/abs/2403.07691): the chosen reply's loss plus `weight` times
    -log sigmoid(log-odds ratio). Its lambda is our `weight`.
    """
    # log(p / (1 - p)); a reply that is certain to float32 would divide by zero.
    odds = means - (-torch.expm1(means)).clamp(min=1e-8).log()
    ratio = odds[:, 0] - odds[:, 1]
    return -means[:, 0] - weight * F.logsigmoid(ratio), ratio


class PreferenceFinetune(SupervisedFinetune):
    """A language model that answers a micro-batch of pairs with the sum of their losses.

    Args:
        objective: dict of `kind` ("dpo" or "orpo"), for dpo `beta`, `loss_type` and
            `label_smoothing`, for orpo `weight`.
        others: as of SupervisedFinetune.
    """

    def __init__(self, *, objective: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.objective = dict(objective)

    def forward(self, batch: Batch, scores_only: bool = False) -> Tensor:
        """Sum of the losses of the pairs that count, float32; with `scores_only` what a reference
        gives, (pairs, 2): the log-probability of each reply.

        batch: as SupervisedFinetune's; for a fully tuned model's DPO also `reference`, (pairs, 2).
        A pair with nothing labelled (of a silent pack) does not count.
        """
        with self.prepare_inputs(batch) as reading:
            if scores_only:
                return self._scores(batch, reading)
            reference = None
            if self.objective["kind"] == "dpo":
                reference = self._reference(batch, reading)
            scores = self._scores(batch, reading)
        lengths = torch.tensor(_count_learned_tokens(batch), device=scores.device).view(-1, 2)
        counts = lengths[:, 0] > 0  # pairs of a silent pack do not, and none may be left
        if reference is None:
            return self._orpo(scores[counts], lengths[counts])
        return self._dpo(scores[counts], lengths[counts], reference[counts])

    def _scores(self, batch: Batch, reading: Any) -> Tensor:
        """Log-probabilities of the replies, summed over their tokens: (pairs, 2), float32."""
        hidden, head = self.hidden_states(reading)
        found = log_probs(hidden, head, reading.targets[reading.is_target], self.loss_chunk)
        # Not by scattered addition, whose order, and so last digit, a GPU does not promise.
        sums = [part.sum() for part in found.split(_count_learned_tokens(batch))]
        return torch.stack(sums).view(-1, 2)

    def _reference(self, batch: Batch, reading: Any) -> Tensor:
        if "reference" in batch:
            given: Tensor = batch["reference"].to(reading.targets.device)
            return given
        if not self.adapted:
            raise ModelError("DPO of all weights needs the reference's numbers in its batches.")
        with torch.no_grad(), self._untrained():
            return self._scores(batch, reading)

    @contextlib.contextmanager
    def _untrained(self) -> Iterator[None]:
        """The base as it was: no adapter, no dropout, no noise."""
        training = self.training
        self.eval()
        try:
            with self.llm.disable_adapter():
                yield
        finally:
            self.train(training)

    def _dpo(self, scores: Tensor, lengths: Tensor, reference: Tensor) -> Tensor:
        beta, kind = self.objective["beta"], self.objective["loss_type"]
        ratios = scores - reference
        if kind == "ipo":
            ratios = ratios / lengths
        losses = dpo_losses(
            ratios[:, 0] - ratios[:, 1], beta, kind, self.objective["label_smoothing"]
        )
        self._note(beta * ratios.detach(), {})
        return losses.sum()

    def _orpo(self, scores: Tensor, lengths: Tensor) -> Tensor:
        means = scores / lengths
        losses, ratio = orpo_losses(means, self.objective["weight"])
        beside = {"nll": -means[:, 0].detach(), "log_odds": ratio.detach()}
        self._note(self.objective["weight"] * means.detach(), beside)
        return losses.sum()

    def _note(self, rewards: Tensor, beside: dict[str, Tensor]) -> None:
        """Sums over pairs for the log; rewards: (n, 2)."""
        self.metrics = reward_metrics(rewards) | {
            name: float(of.sum()) for name, of in beside.items()
        }


def reward_metrics(rewards: Tensor) -> dict[str, float]:
    """Sums over n pairs of what is logged of their rewards, (n, 2): chosen and rejected, how often
    the chosen one is higher, and by how much."""
    chosen, rejected = rewards[:, 0], rewards[:, 1]
    named = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "rewards/margins": chosen - rejected,
    }
    return {name: float(of.sum()) for name, of in named.items()}


def _count_learned_tokens(batch: Batch) -> list[int]:
    """Learned tokens of each sample, in order."""
    labels = batch["labels"]
    samples = labels[0].split(batch["segments"]) if "segments" in batch else labels
    return [int((sample != IGNORE).sum()) for sample in samples]
