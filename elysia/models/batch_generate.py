"""Many greedy replies at once: prompts side by side, padded on the left.

For evaluation, where throughput counts and nobody watches the text arrive. It is the only batched
decoder: probes, the scorecard and the hooks of a training use it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elysia.core.errors import EngineError
from elysia.models.streaming_text import ReplyDecoder, find_stop_ids


def generate_batch(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    stops: Sequence[Sequence[str]],
    max_new_tokens: Sequence[int],
    batch: int = 32,
    refuse_nan: bool = False,
) -> list[str]:
    """The greedy reply to every prompt, in order, each as it would be if decoded alone. Thoughts are no
    part of it.

    Args:
        prompts: token ids.
        stops: for each prompt, texts that end its reply and are not part of it.
        max_new_tokens: for each prompt, the tokens of its reply at most.
        batch: prompts that are decoded side by side.
        refuse_nan: raise EngineError when the model's scores are not numbers.
    """
    # Prompts of similar lengths go together, which saves padding.
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    replies = [""] * len(prompts)
    for start in range(0, len(order), batch):
        indices = order[start : start + batch]
        decoders = [
            ReplyDecoder(tokenizer, stops[i], find_stop_ids(model, tokenizer, stops[i]), prompts[i])
            for i in indices
        ]
        texts = _decode_side_by_side(
            model,
            [list(prompts[i]) for i in indices],
            decoders,
            [max_new_tokens[i] for i in indices],
            refuse_nan,
        )
        for index, text in zip(indices, texts, strict=True):
            replies[index] = text
    return replies


@torch.no_grad()  # not inference mode: weights that ZeRO-3 gathers in it could not be trained any more
def _decode_side_by_side(
    model: Any,
    prompts: Sequence[list[int]],
    decoders: Sequence[ReplyDecoder],
    limits: Sequence[int],
    refuse_nan: bool,
) -> list[str]:
    """Greedy texts, until every decoder is finished or at its limit."""
    device = next(model.parameters()).device
    ids, mask = pad_left(prompts, device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    options = {"logits_to_keep": 1} if supports_logits_to_keep(model) else {}
    texts, cache = ["" for _ in prompts], None
    while True:
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **options,
        )
        cache = out.past_key_values
        logits = out.logits[:, -1].float()
        tokens = (check_finite(logits) if refuse_nan else logits).argmax(-1)
        for row, (decoder, token) in enumerate(zip(decoders, tokens.tolist(), strict=True)):
            if not decoder.finished:
                texts[row] += decoder.push(token).text
                if not decoder.finished and decoder.tokens >= limits[row]:
                    texts[row] += decoder.rest().text
                    decoder.finished = True
        if all(decoder.finished for decoder in decoders):
            return texts
        # Rows that are finished go on unheard; removing them would mean copying the whole cache.
        ids = tokens[:, None]
        mask = torch.cat([mask, mask.new_ones(len(decoders), 1)], dim=1)
        positions = positions[:, -1:] + 1


def pad_left(
    rows: Sequence[Sequence[int]], device: torch.device, padding: int = 0
) -> tuple[Tensor, Tensor]:
    """(ids, mask), both int64 (rows, longest). Masked positions may hold any id."""
    width = max(len(row) for row in rows)
    ids = [[padding] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def supports_logits_to_keep(model: Any) -> bool:
    """Whether the model can be asked for the logits of its last positions alone.

    Over a long prompt the others would take gigabytes.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(inner.forward).parameters


def check_finite(logits: Tensor) -> Tensor:
    """`logits`; EngineError when any of them is NaN."""
    if bool(torch.isnan(logits).any()):
        raise EngineError("models.nan_logits")
    return logits
