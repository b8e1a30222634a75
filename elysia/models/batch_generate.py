"""Many greedy replies at once on the transformers engine: prompts side by side, padded on the left.

For probes and evaluation, where throughput counts and nobody watches the words come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from elysia.core.errors import EngineError
from elysia.core.messages import Conversation
from elysia.core.templates import PromptTemplate, get_stop_words
from elysia.data.tokenize.tokenize_samples import encode_prompt
from elysia.engines.base import GenerationRequest
from elysia.engines.transformers import ReplyDecoder, TransformersEngine, check_finite


def generate_batch(
    engine: TransformersEngine, requests: Sequence[GenerationRequest], *, batch: int = 16
) -> Iterator[str]:
    """The greedy reply to every request, in order; each is what `engine.stream` says at temperature
    0.
    """
    if any(r.sampling.temperature or r.sampling.repetition_penalty != 1 for r in requests):
        raise EngineError("Batches are greedy: set temperature 0 and repetition_penalty 1.")
    prompts = [engine.fitted_prompt(request) for request in requests]
    # Alike lengths together: less padding. The answers go back in the order asked.
    order = sorted(range(len(requests)), key=lambda i: len(prompts[i][0]))
    told: dict[int, str] = {}
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        writers = [engine.writer(requests[i]) for i in rows]
        texts = decode_batch(engine, [prompts[i] for i in rows], writers)
        told |= dict(zip(rows, texts, strict=True))
    yield from (told[i] for i in range(len(requests)))


@torch.inference_mode()
def decode_batch(
    engine: TransformersEngine,
    prompts: Sequence[tuple[list[int], int]],
    writers: Sequence[ReplyDecoder],
) -> list[str]:
    """Greedy texts for prompts given as (ids, room for the reply), until every writer is over."""
    model, device = engine.model, engine.model.device
    longest = max(len(ids) for ids, _ in prompts)
    # The padding id is never attended to, so any id will do.
    padded = [[0] * (longest - len(ids)) + ids for ids, _ in prompts]
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids, _ in prompts])
    new, mask = torch.tensor(padded, device=device), mask.to(device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    texts, cache = ["" for _ in prompts], None
    while True:
        out = model(
            input_ids=new,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **engine.last_only,
        )
        cache = out.past_key_values
        tokens = check_finite(out.logits[:, -1].float()).argmax(-1)
        for row, (writer, token) in enumerate(zip(writers, tokens.tolist(), strict=True)):
            if not writer.over:
                texts[row] += writer.push(token)
                if not writer.over and writer.tokens >= prompts[row][1]:
                    texts[row] += writer.rest()
                    writer.over = True
        if all(writer.over for writer in writers):
            return texts
        new = tokens[:, None]
        mask = torch.cat([mask, mask.new_ones(len(writers), 1)], dim=1)
        positions = positions[:, -1:] + 1


def generate_replies(
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
        texts = _generate_padded(
            model, tokenizer, template, [prompts[i] for i in some], max_new_tokens
        )
        found |= dict(zip(some, texts, strict=True))
    return [found[place] for place in range(len(prompts))]


def _generate_padded(
    model: Any,
    tokenizer: Any,
    template: PromptTemplate,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
) -> list[str]:
    device = next(model.parameters()).device
    width = max(map(len, prompts))
    stops = list(get_stop_words(template))
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
    return [_cut_at_stop(text, stops).strip() for text in texts]


def _cut_at_stop(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.split(stop)[0]
    return text
