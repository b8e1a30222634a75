"""How likely a model finds a reply in its context, and how far two distributions are apart.

A batch of replies takes one forward pass, padded on the left; only the positions of replies get logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from elysia.core.messages import Conversation, Message
from elysia.core.templates import ChatTemplate, render_training_pieces
from elysia.data.tokenize.encoder import IGNORE, EncodedSample, encode
from elysia.models.batch_generate import pad_left, supports_logits_to_keep

MAX_MEAN_LOSS = 50.0  # nats; exp of more is no useful number


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) in nats along the last dimension, from log-probabilities of equal shape."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@dataclass(frozen=True)
class ReplyLoss:
    """Negative log-likelihood of one reply, in nats, summed over its tokens."""

    nats: float
    tokens: int
    characters: int

    @property
    def mean(self) -> float:
        """Nats per token."""
        return self.nats / max(self.tokens, 1)


def compute_perplexity(losses: Sequence[ReplyLoss]) -> float:
    """exp of the mean loss per token; comparable between models with the same tokenizer."""
    tokens = sum(loss.tokens for loss in losses)
    return math.exp(min(sum(loss.nats for loss in losses) / max(tokens, 1), MAX_MEAN_LOSS))


def compute_bits_per_character(losses: Sequence[ReplyLoss]) -> float:
    """Loss in bits per character of the replies; comparable between tokenizers, too."""
    characters = sum(loss.characters for loss in losses)
    return sum(loss.nats for loss in losses) / math.log(2) / max(characters, 1)


class ReplyScorer:
    """Scores replies by a model's likelihood.

    Args:
        system: put before conversations that have no system message of their own.
        longest: tokens of a conversation at most; earlier turns of longer ones are left out.
        batch: conversations per forward pass.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        template: ChatTemplate,
        *,
        system: str = "",
        longest: int = 2048,
        batch: int = 8,
    ) -> None:
        self.model, self.tokenizer, self.template = model.eval(), tokenizer, template
        self.system, self.longest, self.batch = system, longest, batch
        self._keeps_logits = supports_logits_to_keep(model)

    def losses(self, conversations: Sequence[Conversation]) -> list[ReplyLoss]:
        """The loss of the last message of each conversation, which must be a reply."""
        rows = [self._encode(conversation) for conversation in conversations]
        # Rows of similar lengths go together, which saves padding.
        order = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
        sums: dict[int, tuple[float, int]] = {}
        for start in range(0, len(order), self.batch):
            indices = order[start : start + self.batch]
            sums |= dict(zip(indices, self._score([rows[i] for i in indices]), strict=True))
        return [ReplyLoss(*sums[i], len(c[-1].text)) for i, c in enumerate(conversations)]

    def choose(self, context: Conversation, candidates: Sequence[str]) -> int:
        """Index of the likeliest reply among `candidates`, by loss per token."""
        conversations = [[*context, Message("assistant", text)] for text in candidates]
        means = [loss.mean for loss in self.losses(conversations)]
        return means.index(min(means))

    def _encode(self, conversation: Conversation) -> EncodedSample:
        messages = list(conversation)
        if self.system and messages[0].role != "system":
            messages.insert(0, Message("system", self.system))
        head = [message for message in messages if message.role == "system"]
        middle = [
            replace(message, learn=False) if message.role == "assistant" else message
            for message in messages[len(head) : -1]
        ]
        while True:
            row = encode(
                render_training_pieces([*head, *middle, messages[-1]], self.template),
                self.tokenizer,
            )
            if len(row.ids) <= self.longest:
                return row
            if len(middle) < 3:  # a single turn is too long: its end is scored
                return EncodedSample(row.ids[-self.longest :], row.labels[-self.longest :])
            middle = middle[2:]

    @torch.no_grad()  # not inference mode: weights that ZeRO-3 gathers in it could not be trained
    def _score(self, rows: Sequence[EncodedSample]) -> list[tuple[float, int]]:
        """(nats, tokens) of each row's labelled tokens."""
        device = next(self.model.parameters()).device
        ids, mask = pad_left([row.ids for row in rows], device)
        labels, _ = pad_left([row.labels for row in rows], device, padding=IGNORE)
        first = int((labels != IGNORE).any(0).int().argmax())
        tail = ids.shape[1] - max(first - 1, 0)
        options = {"logits_to_keep": tail} if self._keeps_logits else {}
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, **options
        ).logits
        # The logits at one position predict the label of the next.
        targets = labels[:, -(tail - 1) :] if tail > 1 else labels[:, :0]
        logits = logits[:, -tail:-1].float()
        loss = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), targets, ignore_index=IGNORE, reduction="none"
        )
        counts = (targets != IGNORE).sum(1)
        return list(zip(loss.sum(1).tolist(), counts.tolist(), strict=True))
