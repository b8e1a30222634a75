"""How likely a model finds a reply in its context: loss of replies, and the choice among several.

One forward pass over replies side by side, padded on the left; only the positions of replies get
logits. Knows nothing of personas or of where texts come from.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from elysia.core.messages import Conversation, Message
from elysia.core.templates import PromptTemplate, render_training_pieces
from elysia.data.tokenize.encoder import IGNORE, EncodedSample, encode


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
    """exp of the mean loss per token; comparable between models of one tokenizer."""
    tokens = sum(loss.tokens for loss in losses)
    return math.exp(min(sum(loss.nats for loss in losses) / max(tokens, 1), 50.0))


def compute_bits_per_character(losses: Sequence[ReplyLoss]) -> float:
    """Loss in bits per character of the replies; comparable between tokenizers, too."""
    characters = sum(loss.characters for loss in losses)
    return sum(loss.nats for loss in losses) / math.log(2) / max(characters, 1)


class ReplyScorer:
    """A model that reads. `system` goes before talks without a system message of their own.

    longest: tokens of a talk at most; earlier turns are left out of longer ones. batch: talks read
    at a time.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        template: PromptTemplate,
        *,
        system: str = "",
        longest: int = 2048,
        batch: int = 8,
    ) -> None:
        self.model, self.tokenizer, self.template = model.eval(), tokenizer, template
        self.system, self.longest, self.batch = system, longest, batch
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.keeps = "logits_to_keep" in inspect.signature(inner.forward).parameters

    def losses(self, talks: Sequence[Conversation]) -> list[ReplyLoss]:
        """The loss of the last message of each talk, which must be a reply."""
        rows = [self._encoded(talk) for talk in talks]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
        found: dict[int, tuple[float, int]] = {}
        for start in range(0, len(order), self.batch):
            some = order[start : start + self.batch]
            found |= dict(zip(some, self._read([rows[index] for index in some]), strict=True))
        return [ReplyLoss(*found[index], len(talk[-1].text)) for index, talk in enumerate(talks)]

    def choose(self, context: Conversation, candidates: Sequence[str]) -> int:
        """Which of `candidates` is the likeliest reply, by loss per token."""
        talks = [[*context, Message("assistant", text)] for text in candidates]
        means = [loss.mean for loss in self.losses(talks)]
        return means.index(min(means))

    def _encoded(self, talk: Conversation) -> EncodedSample:
        said = list(talk)
        if self.system and said[0].role != "system":
            said.insert(0, Message("system", self.system))
        head = [message for message in said if message.role == "system"]
        rest = [
            replace(message, learn=False) if message.role == "assistant" else message
            for message in said[len(head) : -1]
        ]
        while True:
            row = encode(
                render_training_pieces([*head, *rest, said[-1]], self.template), self.tokenizer
            )
            if len(row.ids) <= self.longest:
                return row
            if len(rest) < 3:  # a turn that is too long by itself: its end counts
                return EncodedSample(row.ids[-self.longest :], row.labels[-self.longest :])
            rest = rest[2:]

    @torch.no_grad()  # not inference mode: ZeRO-3 gathers weights in it that then cannot train
    def _read(self, rows: Sequence[EncodedSample]) -> list[tuple[float, int]]:
        """(nats, tokens) of each row's labelled tokens."""
        device = next(self.model.parameters()).device
        width = max(len(row.ids) for row in rows)
        ids = torch.tensor([[0] * (width - len(r.ids)) + r.ids for r in rows], device=device)
        labels = torch.tensor(
            [[IGNORE] * (width - len(r.ids)) + r.labels for r in rows], device=device
        )
        mask = torch.tensor(
            [[0] * (width - len(r.ids)) + [1] * len(r.ids) for r in rows], device=device
        )
        first = int((labels != IGNORE).any(0).int().argmax())
        keep = width - max(first - 1, 0)
        options = {"logits_to_keep": keep} if self.keeps else {}
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, **options
        ).logits
        wanted = labels[:, -(keep - 1) :] if keep > 1 else labels[:, :0]
        logits = logits[:, -keep:-1].float()
        loss = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), wanted, ignore_index=IGNORE, reduction="none"
        )
        counts = (wanted != IGNORE).sum(1)
        return list(zip(loss.sum(1).tolist(), counts.tolist(), strict=True))
