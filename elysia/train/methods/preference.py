"""Losses of preference pairs (DPO, ORPO), and the model that is trained with them.

The samples of a batch alternate: chosen, rejected, chosen … Each attends only to itself
(kernels/packed_attention.py), so a pair needs no padding. DPO's reference is the base with its adapter
switched off, in the same pass; full fine-tuning changes its base, so its reference is measured before
training (hooks/dpo_reference_hook.py).
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
from elysia.train.data.microbatch import split_samples
from elysia.train.kernels.chunked_loss import log_probs
from elysia.train.methods.sft import Batch, ModelInputs, SupervisedFinetune

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
    smoothing = label_smoothing
    if kind == "sigmoid":
        return -(1 - smoothing) * right - smoothing * wrong
    if kind == "robust":
        return (smoothing * wrong - (1 - smoothing) * right) / (1 - 2 * smoothing)
    if kind == "hinge":
        return torch.relu(1 - beta * margins)
    return (margins - 1 / (2 * beta)).square()


def orpo_losses(means: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """(losses, log-odds) of n pairs; means: (n, 2), log-probability per token of chosen and rejected.

    ORPO (https://arxiv.org/abs/2403.07691): the chosen reply's loss plus `weight` times
    -log sigmoid(log-odds ratio). Its lambda is `weight` here.
    """
    # log(p / (1 - p)); where float32 rounds p to 1 it would divide by zero.
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
        """Sum of the losses of the labelled pairs, float32; with `scores_only` what a reference model
        gives, (pairs, 2): the log-probability of each reply.

        batch: as SupervisedFinetune's; for DPO of all weights also `reference`, (pairs, 2).
        Pairs without labels (of a dummy pack) do not count.
        """
        with self.prepare_inputs(batch) as inputs:
            if scores_only:
                return self._score_replies(batch, inputs)
            reference = None
            if self.objective["kind"] == "dpo":
                reference = self._get_reference(batch, inputs)
            scores = self._score_replies(batch, inputs)
        lengths = torch.tensor(_count_learned_tokens(batch), device=scores.device).view(-1, 2)
        is_labelled = lengths[:, 0] > 0  # of a dummy pack's pairs none is, which leaves no pairs
        if reference is None:
            return self._orpo(scores[is_labelled], lengths[is_labelled])
        return self._dpo(scores[is_labelled], lengths[is_labelled], reference[is_labelled])

    def _score_replies(self, batch: Batch, inputs: ModelInputs) -> Tensor:
        """Log-probabilities of the replies, summed over their tokens: (pairs, 2), float32."""
        hidden, head = self.hidden_states(inputs)
        by_token = log_probs(hidden, head, inputs.targets[inputs.is_target], self.loss_chunk)
        # Not by scattered addition, whose order, and so its last digit, a GPU does not promise.
        sums = [reply.sum() for reply in by_token.split(_count_learned_tokens(batch))]
        return torch.stack(sums).view(-1, 2)

    def _get_reference(self, batch: Batch, inputs: ModelInputs) -> Tensor:
        """(pairs, 2): from the batch, else by a pass of the base."""
        if "reference" in batch:
            reference: Tensor = batch["reference"].to(inputs.targets.device)
            return reference
        if not self.adapted:
            raise ModelError("train.dpo_without_reference")
        with torch.no_grad(), self._as_base():
            return self._score_replies(batch, inputs)

    @contextlib.contextmanager
    def _as_base(self) -> Iterator[None]:
        """The untrained base inside: no adapter, no dropout, no noise."""
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
        self.metrics = reward_metrics(beta * ratios.detach())
        return losses.sum()

    def _orpo(self, scores: Tensor, lengths: Tensor) -> Tensor:
        means = scores / lengths
        losses, ratio = orpo_losses(means, self.objective["weight"])
        self.metrics = reward_metrics(self.objective["weight"] * means.detach())
        self.metrics["nll"] = float(-means[:, 0].detach().sum())
        self.metrics["log_odds"] = float(ratio.detach().sum())
        return losses.sum()


def reward_metrics(rewards: Tensor) -> dict[str, float]:
    """Sums over n pairs of what is logged about their rewards, (n, 2): chosen and rejected, how often
    the chosen one is higher, and by how much."""
    chosen, rejected = rewards[:, 0], rewards[:, 1]
    by_name = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "rewards/margins": chosen - rejected,
    }
    return {name: float(values.sum()) for name, values in by_name.items()}


def _count_learned_tokens(batch: Batch) -> list[int]:
    """Learned tokens of each sample, in order."""
    return [int((labels != IGNORE).sum()) for labels in split_samples(batch)]
