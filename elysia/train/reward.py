"""Reward modelling: a number for a reply, learned from preference pairs.

The number stands at a text's last token, as transformers' classes for sequence classification take
it, so that what is trained here is what they give. Knows nothing of files or of how rows become
pairs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from elysia.data.encode import IGNORE
from elysia.train.preference import noted
from elysia.train.sft import Batch, SupervisedFinetune


class RewardFinetune(SupervisedFinetune):
    """A model that answers a micro-batch of pairs with the sum of -log sigmoid(chosen - rejected)
    (Bradley and Terry 1952). Args: as of SupervisedFinetune.
    """

    scores = True

    def forward(self, batch: Batch) -> Tensor:
        """The summed loss, float32. batch: as SupervisedFinetune's, chosen and rejected samples by
        turns; a pair with nothing labelled (of a silent pack) does not count.
        """
        rows, places = self._ends(batch)
        with self.reading(batch) as reading:
            inputs = reading.tensors | {"use_cache": False} | reading.options
            hidden = self.causal.base_model(**inputs).last_hidden_state[rows, places]
        head = self.causal.score
        # Outside of autocast: differences of rewards are finer than 16 bits.
        weight = next(p for p in head.parameters() if p.requires_grad)
        rewards = head(hidden.to(weight.dtype)).float().view(-1, 2)
        labels = batch["labels"]
        samples = labels[0].split(batch["segments"]) if "segments" in batch else labels
        counts = torch.tensor([bool((sample != IGNORE).any()) for sample in samples][::2])
        rewards = rewards[counts.to(rewards.device)]
        self.measured = noted(rewards.detach())
        return -F.logsigmoid(rewards[:, 0] - rewards[:, 1]).sum()

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
