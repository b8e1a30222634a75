"""Greedy replies of a model that is in training, several at a time.

Draws no random numbers. Knows nothing of hooks, or of how a reply is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from elysia.core.messages import Conversation
from elysia.core.templates import PromptTemplate, all_stop_words
from elysia.data.tokenize import encode_prompt


def replies(
    model: Any,
    tokenizer: Any,
    template: PromptTemplate,
    talks: Sequence[Conversation],
    *,
    max_new_tokens: int,
    batch: int = 32,
) -> list[str]:
    """The reply to each talk, without its stop word; prompts side by side, padded on the left."""
    prompts = [encode_prompt(talk, template, tokenizer) for talk in talks]
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    found: dict[int, str] = {}
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        texts = _together(model, tokenizer, template, [prompts[i] for i in some], max_new_tokens)
        found |= dict(zip(some, texts, strict=True))
    return [found[place] for place in range(len(prompts))]


def _together(
    model: Any,
    tokenizer: Any,
    template: PromptTemplate,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
) -> list[str]:
    device = next(model.parameters()).device
    width = max(map(len, prompts))
    stops = list(all_stop_words(template))
    made = model.generate(
        input_ids=torch.tensor([[0] * (width - len(ids)) + ids for ids in prompts], device=device),
        attention_mask=torch.tensor(
            [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=device
        ),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=tokenizer.eos_token_id,
        stop_strings=stops or None,
        tokenizer=tokenizer,
    )[:, width:]
    texts: list[str] = tokenizer.batch_decode(made, skip_special_tokens=True)
    return [_before(text, stops).strip() for text in texts]


def _before(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.split(stop)[0]
    return text
