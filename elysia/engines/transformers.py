"""The reference engine: any causal LM of Hugging Face transformers, one reply at a time, on CPU or
GPU.

Its own decode loop with a KV cache, so that a reply can be cancelled within a token and its seed
touches nobody else's. Knows nothing of run cards, sessions or terminals.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from elysia.core.errors import ContextError, EngineError, ModelError, RequestError
from elysia.core.messages import Conversation
from elysia.core.templates import PromptTemplate
from elysia.data.tokenize.tokenize_samples import encode_prompt
from elysia.engines.base import (
    Capability,
    Delta,
    FinishReason,
    GenerationRequest,
    Sampling,
    TokenUsage,
)
from elysia.engines.tool_calling import render_tool_messages
from elysia.models.streaming_text import StopTextFilter, StreamingDetokenizer


def build_engine(
    folder: Path,
    *,
    adapter: Path | None = None,
    dtype: str = "auto",
    device: str = "auto",
    bits: int | None = None,
) -> TransformersEngine:
    """Load a model folder, an adapter folder over it. `bits`: 4 (NF4) or 8; raises ModelError."""
    from elysia.models.loading import load_causal_lm, load_tokenizer

    tokenizer = load_tokenizer(folder)
    model: Any = load_causal_lm(folder, dtype=dtype, device=device, bits=bits)
    if adapter is not None:
        model = load_adapter(model, adapter)
    return TransformersEngine(model, tokenizer)


def load_adapter(model: Any, adapter: Path) -> Any:
    """`model` under a folder's PEFT adapter; ModelError when that is damaged or of another base."""
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(adapter)).eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise ModelError(
            f"The adapter {adapter} cannot be put on this model: it is damaged, or was made for "
            f"another base. ({reason[:200]})"
        ) from error


class ReplyDecoder:
    """Turns the tokens of one reply into shown text and knows when the reply is over."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], stop_ids: frozenset[int]) -> None:
        self._stop_ids = stop_ids
        self._stops = StopTextFilter(stop)
        self._detokenizer = StreamingDetokenizer(
            lambda ids: str(
                tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            )
        )
        self.tokens = 0
        self.over = False

    def push(self, token: int) -> str:
        """Text that may be shown now."""
        self.tokens += 1
        if token in self._stop_ids:
            self.over = True
            return self.rest()
        text = self._stops.push(self._detokenizer.push(token))
        self.over = self._stops.stopped
        return text

    def rest(self) -> str:
        """Text still held, when the reply ends here."""
        return self._stops.push(self._detokenizer.rest()) + self._stops.rest()


class TransformersEngine:
    """An Engine over a loaded model and its tokenizer. Threads take turns, one reply at a time."""

    capabilities: frozenset[Capability] = frozenset({"text", "embeddings"})
    slots = 1

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._turn = threading.Lock()
        # Only the last position's logits are wanted: over a long prompt the rest is gigabytes.
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        keeps = "logits_to_keep" in inspect.signature(inner.forward).parameters
        self.last_only: dict[str, int] = {"logits_to_keep": 1} if keeps else {}

    @property
    def context_length(self) -> int:
        """The model's max_position_embeddings; where it has none, what its tokenizer says, else
        2048.
        """
        config = self.model.config.get_text_config()
        length = getattr(config, "max_position_embeddings", None) or self.tokenizer.model_max_length
        return int(length) if 0 < length < 10**7 else 2048

    def count_tokens(self, messages: Conversation, template: PromptTemplate) -> int:
        """Tokens of the chat prompt."""
        return len(encode_prompt(render_tool_messages(messages), template, self.tokenizer))

    def stream(
        self, request: GenerationRequest, cancel: threading.Event | None = None
    ) -> Iterator[Delta]:
        """Generate one reply. See Engine.stream."""
        prompt, room = self.fitted_prompt(request)
        writer = self.writer(request)
        with self._taken(cancel) as ours:
            tokens = self._tokens(prompt, request.sampling) if ours else iter(())
            finish: FinishReason = "length" if ours else "cancelled"
            for token in tokens:
                if text := writer.push(token):
                    yield Delta(text)
                if writer.over or writer.tokens >= room:
                    finish = "stop" if writer.over else "length"
                    break
                if cancel is not None and cancel.is_set():
                    finish = "cancelled"
                    break
            yield Delta(writer.rest(), finish, TokenUsage(len(prompt), writer.tokens))

    def fitted_prompt(self, request: GenerationRequest) -> tuple[list[int], int]:
        """The prompt's ids and how many tokens the reply may take; ContextError when there is no
        room.
        """
        if request.text is not None:
            ids = self.tokenizer(request.text)["input_ids"]
        else:
            ids = encode_prompt(
                render_tool_messages(request.messages), request.template, self.tokenizer
            )
        ids = [int(i) for i in ids]
        room = min(request.sampling.max_new_tokens, self.context_length - len(ids))
        if room < 1:
            raise ContextError(
                f"The prompt has {len(ids)} tokens and the model's context is "
                f"{self.context_length}: there is no room for a reply. Shorten the conversation."
            )
        return ids, room

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """Mean of the last hidden states over a text's tokens, of length 1. See Engine.embed."""
        vectors, read = [], 0
        for text in texts:
            ids = self.tokenizer(text)["input_ids"][: self.context_length]
            if not ids:
                raise RequestError("An empty text has no embedding.")
            with self._turn:
                out = self.model(
                    input_ids=torch.tensor([ids], device=self.model.device),
                    output_hidden_states=True,
                    use_cache=False,
                    **self.last_only,
                )
            mean = out.hidden_states[-1][0].float().mean(0)
            vectors.append((mean / mean.norm()).tolist())
            read += len(ids)
        return vectors, read

    def close(self) -> None:
        """Nothing outside of this process to let go of."""

    def writer(self, request: GenerationRequest) -> ReplyDecoder:
        """A Writer that ends at the model's end tokens and at the request's stop texts."""
        return ReplyDecoder(self.tokenizer, request.stop, self.stop_ids(request.stop))

    def stop_ids(self, stop: Sequence[str]) -> frozenset[int]:
        """The end tokens of model and tokenizer, and those stop texts that are one token."""
        config = getattr(self.model, "generation_config", None)
        ends = getattr(config, "eos_token_id", None)
        ids = set(ends if isinstance(ends, list) else [ends]) | {self.tokenizer.eos_token_id}
        for text in stop:
            token = self.tokenizer.convert_tokens_to_ids(text)
            if token is not None and self.tokenizer.convert_ids_to_tokens(token) == text:
                ids.add(token)
        return frozenset(ids - {None})

    @contextmanager
    def _taken(self, cancel: threading.Event | None) -> Iterator[bool]:
        """Hold the model; False when cancelled while waiting for it."""
        while not (ours := self._turn.acquire(timeout=0.05)):
            if cancel is not None and cancel.is_set():
                break
        try:
            yield ours
        finally:
            if ours:
                self._turn.release()

    def _tokens(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
        """Token after token, without end."""
        device = self.model.device
        generator = torch.Generator(device)
        if sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(sampling.seed)
        seen = torch.zeros(0, dtype=torch.long, device=device)
        new, cache = torch.tensor([list(prompt)], device=device), None
        while True:
            seen = torch.cat([seen, new[0]])
            logits, cache = self._forward(new, cache)
            token = sample_token(logits, sampling, seen, generator)
            yield token
            new = torch.tensor([[token]], device=device)

    # Inference mode belongs to a thread: it must not stay on while a generator waits between
    # tokens.
    @torch.inference_mode()
    def _forward(self, ids: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        """Logits [vocabulary] in fp32 after the last of `ids` [1, n], and the grown cache."""
        out = self.model(input_ids=ids, past_key_values=cache, use_cache=True, **self.last_only)
        return check_finite(out.logits[0, -1].float()), out.past_key_values


def check_finite(logits: torch.Tensor) -> torch.Tensor:
    """`logits` if none is NaN; EngineError otherwise."""
    if bool(torch.isnan(logits).any()):
        raise EngineError(
            "The model's scores are not numbers (NaN). Its weights are damaged, or this dtype is "
            "too narrow for it: try --torch-dtype bf16 or fp32."
        )
    return logits


@torch.inference_mode()
def sample_token(
    logits: torch.Tensor, sampling: Sampling, seen: torch.Tensor, generator: torch.Generator
) -> int:
    """One token from fp32 `logits` [vocabulary]; `seen` are the ids so far, for the penalty.

    The order is Hugging Face's: penalty (Keskar et al. 2019), temperature, top-k, top-p (Holtzman
    et al. 2019).
    """
    if sampling.repetition_penalty != 1.0:
        scores = logits[seen]
        penalty = sampling.repetition_penalty
        logits = logits.scatter(
            0, seen, torch.where(scores < 0, scores * penalty, scores / penalty)
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
    before = shares.cumsum(0) - shares  # what the likelier ones already cover
    shares = torch.where(before < sampling.top_p, shares, 0.0)
    return int(ids[torch.multinomial(shares, 1, generator=generator)])
