"""The reference engine: any causal LM of Hugging Face transformers, one reply at a time, on CPU or GPU.

It has its own decode loop with a KV cache, so that a reply can be cancelled within a token and its
seed does not affect other random numbers. `generate_batch` answers many requests greedily at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from elysia.core.errors import EngineError, ModelError, RequestError
from elysia.core.messages import Conversation
from elysia.core.templates import ChatTemplate
from elysia.data.tokenize.encoder import encode_prompt
from elysia.engines.base import (
    Capability,
    Delta,
    FinishReason,
    GenerationRequest,
    Sampling,
    TokenUsage,
    count_room,
)
from elysia.engines.tool_calling import render_tool_messages
from elysia.models.batch_generate import check_finite, generate_batch, supports_logits_to_keep
from elysia.models.streaming_text import ReplyDecoder, find_stop_ids

UNKNOWN_CONTEXT = 2048  # tokens, for a model that does not say how many it takes


def build_engine(
    folder: Path,
    *,
    adapter: Path | None = None,
    dtype: str = "auto",
    device: str = "auto",
    bits: int | None = None,
) -> TransformersEngine:
    """Load a model folder, with an adapter folder over it. `bits`: 4 (NF4) or 8. Raises ModelError."""
    from elysia.models.loading import load_causal_lm, load_tokenizer

    tokenizer = load_tokenizer(folder)
    model: Any = load_causal_lm(folder, dtype=dtype, device=device, bits=bits)
    if adapter is not None:
        model = load_adapter(model, adapter)
    return TransformersEngine(model, tokenizer)


def load_adapter(model: Any, adapter: Path) -> Any:
    """`model` with a folder's PEFT adapter; ModelError when that is damaged or of another base."""
    from elysia.models import adapters

    try:
        return adapters.load_adapter(model, adapter).eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise ModelError("engines.adapter_unfit", adapter=adapter, reason=reason[:200]) from error


class TransformersEngine:
    """An Engine over a loaded model and its tokenizer. Threads take turns, one reply at a time."""

    capabilities: frozenset[Capability] = frozenset({"text", "embeddings"})
    slots = 1

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._lock = threading.Lock()
        self._options = {"logits_to_keep": 1} if supports_logits_to_keep(model) else {}

    @property
    def context_length(self) -> int:
        """The model's max_position_embeddings, else the tokenizer's limit, else UNKNOWN_CONTEXT."""
        config = self.model.config.get_text_config()
        length = getattr(config, "max_position_embeddings", None) or self.tokenizer.model_max_length
        # transformers writes a huge number where a tokenizer has no limit.
        return int(length) if 0 < length < 10**7 else UNKNOWN_CONTEXT

    def count_tokens(self, messages: Conversation, template: ChatTemplate) -> int:
        """Tokens of the chat prompt."""
        return len(encode_prompt(render_tool_messages(messages), template, self.tokenizer))

    def stream(
        self, request: GenerationRequest, cancel: threading.Event | None = None
    ) -> Iterator[Delta]:
        """Generate one reply. See Engine.stream."""
        prompt, room = self.fit_prompt(request)
        decoder = self.new_decoder(request, prompt)
        with self._acquire(cancel) as acquired:
            tokens = self._generate_tokens(prompt, request.sampling) if acquired else iter(())
            finish: FinishReason = "length" if acquired else "cancelled"
            for token in tokens:
                if any(piece := decoder.push(token)):
                    yield Delta(piece.text, reasoning=piece.reasoning)
                if decoder.finished or decoder.tokens >= room:
                    finish = "stop" if decoder.finished else "length"
                    break
                if cancel is not None and cancel.is_set():
                    finish = "cancelled"
                    break
            last = decoder.rest()
            usage = TokenUsage(len(prompt), decoder.tokens, decoder.reasoning_tokens)
            yield Delta(last.text, finish, usage, reasoning=last.reasoning)

    def generate_batch(
        self, requests: Sequence[GenerationRequest], *, batch: int = 16
    ) -> list[str]:
        """The greedy reply to every request, in order, each as `stream` gives it at temperature 0."""
        if any(r.sampling.temperature or r.sampling.repetition_penalty != 1 for r in requests):
            raise EngineError("engines.batch_not_greedy")
        prompts = [self.fit_prompt(request) for request in requests]
        return generate_batch(
            self.model,
            self.tokenizer,
            [ids for ids, _ in prompts],
            stops=[request.stop for request in requests],
            max_new_tokens=[room for _, room in prompts],
            batch=batch,
            refuse_nan=True,
        )

    def fit_prompt(self, request: GenerationRequest) -> tuple[list[int], int]:
        """The prompt's ids, and how many tokens the reply may have; ContextError without room for any."""
        if request.text is not None:
            ids = self.tokenizer(request.text)["input_ids"]
        else:
            messages = render_tool_messages(request.messages)
            ids = encode_prompt(messages, request.template, self.tokenizer)
        ids = [int(i) for i in ids]
        return ids, count_room(request.sampling, len(ids), self.context_length)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """The mean of the last hidden states over a text's tokens, of length 1. See Engine.embed."""
        vectors, count = [], 0
        for text in texts:
            ids = self.tokenizer(text)["input_ids"][: self.context_length]
            if not ids:
                raise RequestError("engines.empty_embedding")
            with self._lock:
                out = self.model(
                    input_ids=torch.tensor([ids], device=self.model.device),
                    output_hidden_states=True,
                    use_cache=False,
                    **self._options,
                )
            mean = out.hidden_states[-1][0].float().mean(0)
            vectors.append((mean / mean.norm()).tolist())
            count += len(ids)
        return vectors, count

    def close(self) -> None:
        """Nothing outside of this process to release."""

    def new_decoder(self, request: GenerationRequest, prompt: Sequence[int]) -> ReplyDecoder:
        """A decoder that finishes at the model's end tokens and at the request's stop texts."""
        before = prompt if request.text is None else None
        return ReplyDecoder(self.tokenizer, request.stop, self.stop_ids(request.stop), before)

    def stop_ids(self, stop: Sequence[str]) -> frozenset[int]:
        """The tokens that end a reply: see `find_stop_ids`."""
        return find_stop_ids(self.model, self.tokenizer, stop)

    @contextmanager
    def _acquire(self, cancel: threading.Event | None) -> Iterator[bool]:
        """Hold the model; False when cancelled while waiting for it."""
        while not (acquired := self._lock.acquire(timeout=0.05)):
            if cancel is not None and cancel.is_set():
                break
        try:
            yield acquired
        finally:
            if acquired:
                self._lock.release()

    def _generate_tokens(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
        """Token after token, without end."""
        device = self.model.device
        generator = torch.Generator(device)
        if sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(sampling.seed)
        context = torch.zeros(0, dtype=torch.long, device=device)
        new, cache = torch.tensor([list(prompt)], device=device), None
        while True:
            context = torch.cat([context, new[0]])
            logits, cache = self._forward(new, cache)
            token = sample_token(logits, sampling, context, generator)
            yield token
            new = torch.tensor([[token]], device=device)

    # Inference mode belongs to a thread: it must not stay on while a generator waits between tokens.
    @torch.inference_mode()
    def _forward(self, ids: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        """Logits [vocabulary] in fp32 after the last of `ids` [1, n], and the grown cache."""
        out = self.model(input_ids=ids, past_key_values=cache, use_cache=True, **self._options)
        return check_finite(out.logits[0, -1].float()), out.past_key_values


@torch.inference_mode()
def sample_token(
    logits: torch.Tensor, sampling: Sampling, context: torch.Tensor, generator: torch.Generator
) -> int:
    """One token from fp32 `logits` [vocabulary]; `context` are the ids so far, for the penalty.

    The order is Hugging Face's: penalty (Keskar et al. 2019), temperature, top-k, top-p (Holtzman
    et al. 2019). min-p is applied before top-p.
    """
    if sampling.repetition_penalty != 1.0:
        scores = logits[context]
        penalty = sampling.repetition_penalty
        logits = logits.scatter(
            0, context, torch.where(scores < 0, scores * penalty, scores / penalty)
        )
    if sampling.temperature == 0:
        return int(logits.argmax())
    scores, ids = torch.sort(logits / sampling.temperature, descending=True, stable=True)
    if sampling.top_k:
        scores, ids = scores[: sampling.top_k], ids[: sampling.top_k]
    shares = torch.softmax(scores, dim=0)
    if sampling.min_p:
        shares = torch.where(shares >= sampling.min_p * shares[0], shares, 0.0)
        shares = shares / shares.sum()
    before = shares.cumsum(0) - shares  # the probability of all likelier tokens together
    shares = torch.where(before < sampling.top_p, shares, 0.0)
    return int(ids[torch.multinomial(shares, 1, generator=generator)])
