"""Reward modelling: a number for a reply, learned from preference pairs.

The number stands at a text's last token, as transformers' classes for sequence classification take
it, so that what is trained here is what they give. Knows nothing of files or of how rows become
pairs.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from elysia.data.tokenize.encoder import IGNORE
from elysia.train.methods.preference import reward_metrics
from elysia.train.methods.sft import Batch, ModelInputs, SupervisedFinetune

RewardLoss = Literal["ranking", "focal"]
RewardPenalty = Literal["none", "log_barrier", "l2"]
# Where the barrier stands, and how near to it a reward still has a finite penalty.
_BARRIER_BOUND, _BARRIER_EDGE = 5.0, 1e-3


def reward_losses(rewards: Tensor, kind: RewardLoss = "ranking") -> Tensor:
    """A loss for each of n pairs; rewards: (n, 2), of chosen and rejected.

    "ranking" is -log sigmoid(chosen - rejected) (Bradley and Terry 1952). "focal" weighs it by
    (1 - 2 max(0, p - 1/2)) ** 2, p being that sigmoid, so that pairs which are told apart count less
    (InternLM2, https://arxiv.org/abs/2403.17297).
    """
    margins = rewards[:, 0] - rewards[:, 1]
    losses = -F.logsigmoid(margins)
    if kind == "ranking":
        return losses
    sure = 2 * torch.relu(torch.sigmoid(margins) - 0.5)
    return (1 - sure).square() * losses


def reward_regularization(rewards: Tensor, kind: RewardPenalty) -> Tensor:
    """What keeps rewards small, for each of n pairs; rewards: (n, 2).

    "log_barrier" is -log(5 - r) - log(5 + r), summed over the pair's two rewards r (InternLM2, as
    above); past 5 it is flat. "l2" is the sum of their squares, "none" 0.
    """
    if kind == "none":
        return torch.zeros_like(rewards[:, 0])
    if kind == "l2":
        return rewards.square().sum(1)
    inside = rewards.clamp(_BARRIER_EDGE - _BARRIER_BOUND, _BARRIER_BOUND - _BARRIER_EDGE)
    return -((_BARRIER_BOUND - inside).log() + (_BARRIER_BOUND + inside).log()).sum(1)


def select_hidden_states(causal: Any, reading: ModelInputs, rows: Tensor, places: Tensor) -> Tensor:
    """What the network's body says at n places (row, position): (n, h)."""
    inputs = reading.tensors | {"use_cache": False} | reading.options
    found: Tensor = causal.base_model(**inputs).last_hidden_state[rows, places]
    return found


def compute_rewards(head: Any, hidden: Tensor) -> Tensor:
    """(pairs, 2), float32, of hidden states (2 pairs, h)."""
    weight = next(p for p in head.parameters() if p.requires_grad)
    found: Tensor = head(hidden.to(weight.dtype)).float().view(-1, 2)
    return found


class RewardFinetune(SupervisedFinetune):
    """A model that answers a micro-batch of pairs with the sum of their losses.

    Args:
        objective: dict of `loss_type`, `penalty` and `penalty_weight`; a plain ranking where it is
            not given.
        others: as of SupervisedFinetune.
    """

    is_reward_model = True

    def __init__(self, *, objective: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        plain: dict[str, Any] = {"loss_type": "ranking", "penalty": "none", "penalty_weight": 0.0}
        self.objective = plain | (objective or {})

    def forward(self, batch: Batch) -> Tensor:
        """The summed loss, float32. batch: as SupervisedFinetune's, chosen and rejected samples by
        turns; a pair with nothing labelled (of a silent pack) does not count.
        """
        rows, places = self._ends(batch)
        with self.prepare_inputs(batch) as reading:
            hidden = select_hidden_states(self.causal, reading, rows, places)
        # Outside of autocast: differences of rewards are finer than 16 bits.
        rewards = compute_rewards(self.causal.score, hidden)
        labels = batch["labels"]
        samples = labels[0].split(batch["segments"]) if "segments" in batch else labels
        counts = torch.tensor([bool((sample != IGNORE).any()) for sample in samples][::2])
        rewards = rewards[counts.to(rewards.device)]
        self.metrics = reward_metrics(rewards.detach())
        losses = reward_losses(rewards, self.objective["loss_type"])
        beside = reward_regularization(rewards, self.objective["penalty"])
        if self.objective["penalty"] != "none":
            self.metrics["penalty"] = float(beside.detach().sum())
        share: float = self.objective["penalty_weight"]
        return (losses + share * beside).sum()

    def _ends(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(row, position) of the last token of each sample that is not the padding token."""
        ids, pad = batch["input_ids"], self.causal.config.pad_token_id
        if "segments" in batch:
            samples = ids[0].split(batch["segments"])
            starts = torch.tensor([0, *batch["segments"][:-1]]).cumsum(0)
        else:
            samples, starts = tuple(ids), torch.zeros(len(ids), dtype=torch.long)
        ends = [int(torch.nonzero(sample != pad).max()) for sample in samples]
        rows = torch.zeros_like(starts) if "segments" in batch else torch.arange(len(ids))
        return rows, starts + torch.tensor(ends)
