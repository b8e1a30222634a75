"""Reward modelling: a number for a reply, learned from preference pairs.

The reward is read at the last token of a text, as transformers' classes for sequence classification do, so
that they give the numbers that were trained here.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from elysia.data.tokenize.encoder import IGNORE
from elysia.train.data.microbatch import split_samples
from elysia.train.methods.preference import reward_metrics
from elysia.train.methods.sft import Batch, ModelInputs, SupervisedFinetune

RewardLoss = Literal["ranking", "focal"]
RewardPenalty = Literal["none", "log_barrier", "l2"]
# The largest reward that the barrier allows, and how near to it the penalty is still finite.
_BARRIER_BOUND, _BARRIER_EDGE = 5.0, 1e-3


def reward_losses(rewards: Tensor, kind: RewardLoss = "ranking") -> Tensor:
    """A loss for each of n pairs; rewards: (n, 2), of chosen and rejected.

    "ranking" is -log sigmoid(chosen - rejected) (Bradley and Terry 1952). "focal" weighs it by
    (1 - 2 max(0, p - 1/2)) ** 2, p being that sigmoid, so that pairs that are already told apart count
    less (InternLM2, https://arxiv.org/abs/2403.17297).
    """
    margins = rewards[:, 0] - rewards[:, 1]
    losses = -F.logsigmoid(margins)
    if kind == "ranking":
        return losses
    confidence = 2 * torch.relu(torch.sigmoid(margins) - 0.5)
    return (1 - confidence).square() * losses


def reward_regularization(rewards: Tensor, kind: RewardPenalty) -> Tensor:
    """A penalty on large rewards, for each of n pairs; rewards: (n, 2).

    "log_barrier" is -log(5 - r) - log(5 + r), summed over the pair's two rewards r (InternLM2, as
    above); past 5 it is flat. "l2" is the sum of their squares, "none" 0.
    """
    if kind == "none":
        return torch.zeros_like(rewards[:, 0])
    if kind == "l2":
        return rewards.square().sum(1)
    inside = rewards.clamp(_BARRIER_EDGE - _BARRIER_BOUND, _BARRIER_BOUND - _BARRIER_EDGE)
    return -((_BARRIER_BOUND - inside).log() + (_BARRIER_BOUND + inside).log()).sum(1)


def select_hidden_states(
    causal: Any, inputs: ModelInputs, rows: Tensor, positions: Tensor
) -> Tensor:
    """The last hidden states of the network's body at n places (row, position): (n, h)."""
    arguments = inputs.tensors | {"use_cache": False} | inputs.options
    hidden: Tensor = causal.base_model(**arguments).last_hidden_state[rows, positions]
    return hidden


def compute_rewards(head: Any, hidden: Tensor) -> Tensor:
    """(pairs, 2), float32, of hidden states (2 pairs, h)."""
    weight = next(p for p in head.parameters() if p.requires_grad)
    rewards: Tensor = head(hidden.to(weight.dtype)).float().view(-1, 2)
    return rewards


class RewardFinetune(SupervisedFinetune):
    """A model that answers a micro-batch of pairs with the sum of their losses.

    Args:
        objective: dict of `loss_type`, `penalty` and `penalty_weight`; None: a plain ranking.
        others: as of SupervisedFinetune.
    """

    is_reward_model = True

    def __init__(self, *, objective: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        defaults: dict[str, Any] = {
            "loss_type": "ranking",
            "penalty": "none",
            "penalty_weight": 0.0,
        }
        self.objective = defaults | (objective or {})

    def forward(self, batch: Batch) -> Tensor:
        """The summed loss, float32. batch: as SupervisedFinetune's, chosen and rejected samples
        alternating; pairs without labels (of a dummy pack) do not count.
        """
        rows, positions = self._find_last_tokens(batch)
        with self.prepare_inputs(batch) as inputs:
            hidden = select_hidden_states(self.causal, inputs, rows, positions)
        # Outside of autocast: differences of rewards are finer than 16 bits.
        rewards = compute_rewards(self.causal.score, hidden)
        chosen = split_samples(batch)[::2]
        is_labelled = torch.tensor([bool((labels != IGNORE).any()) for labels in chosen])
        rewards = rewards[is_labelled.to(rewards.device)]
        self.metrics = reward_metrics(rewards.detach())
        losses = reward_losses(rewards, self.objective["loss_type"])
        penalties = reward_regularization(rewards, self.objective["penalty"])
        if self.objective["penalty"] != "none":
            self.metrics["penalty"] = float(penalties.detach().sum())
        weight: float = self.objective["penalty_weight"]
        return (losses + weight * penalties).sum()

    def _find_last_tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(row, position) of the last token of each sample that is not the padding token."""
        pad, samples = self.causal.config.pad_token_id, split_samples(batch, "input_ids")
        ends = torch.tensor([int(torch.nonzero(sample != pad).max()) for sample in samples])
        if "segments" not in batch:
            return torch.arange(len(samples)), ends
        starts = torch.tensor([0, *batch["segments"][:-1]]).cumsum(0)
        return torch.zeros_like(starts), starts + ends
