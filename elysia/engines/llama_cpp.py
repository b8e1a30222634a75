"""llama.cpp behind the Engine protocol: a GGUF, served by a child process, several replies at once.

Prompts are encoded here, piece by piece as training does, with the tokenizer that the file carries;
the child gets token ids. So a typed control token stays text, whatever program wrote the file. Knows
nothing of run cards or HTTP clients.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from elysia.core.errors import ContextError, EngineError, ModelError, RequestError
from elysia.core.messages import Conversation
from elysia.core.templates import PromptTemplate, render_prompt_pieces
from elysia.data.tokenize.encoder import SERVING_CACHED_TOKENS, ConversationEncoder
from elysia.engines import json_grammar
from elysia.engines.base import (
    Capability,
    Delta,
    FinishReason,
    GenerationRequest,
    TokenLogprob,
    TokenUsage,
)
from elysia.engines.tool_calling import get_tool_set, render_tool_messages
from elysia.models.gguf.gguf_reader import GgufTokenizer, read_gguf_header
from elysia.models.gguf.llama_server import LlamaServer
from elysia.models.streaming_text import StopTextFilter

MAX_DEFAULT_CONTEXT = (
    8192  # tokens of context when nothing is asked: each slot's cache is laid out at once
)


def build_engine(
    file: Path,
    *,
    context: int | None = None,
    slots: int = 1,
    threads: int | None = None,
    gpu_layers: int = 0,
) -> LlamaCppEngine:
    """Start a child on `file`.

    Args:
        context: tokens for prompt and reply; the file's own, at most LARGEST, when None.
        threads: one fewer than there are cores when None.

    Raises ModelError for a damaged file or one that llama.cpp cannot serve.
    """
    header = read_gguf_header(file)
    trained = int(header.get(f"{header.get('general.architecture')}.context_length", 2048))
    if context and context > trained:
        raise ModelError(f"{file} was made for {trained} tokens of context, not {context}.")
    server = LlamaServer(
        file,
        context=context or min(trained, MAX_DEFAULT_CONTEXT),
        slots=slots,
        threads=threads,
        gpu_layers=gpu_layers,
    )
    try:
        return LlamaCppEngine(
            server, GgufTokenizer(header, server), context or min(trained, MAX_DEFAULT_CONTEXT)
        )
    except BaseException:
        server.close()
        raise


class LlamaCppEngine:
    """An Engine over a LlamaServer. Threads may share it; each reply takes a slot."""

    capabilities: frozenset[Capability] = frozenset(
        {"logprobs", "json_schema", "tools", "penalties", "text"}
    )

    def __init__(self, server: LlamaServer, tokenizer: GgufTokenizer, context: int) -> None:
        self.server = server
        self.tokenizer = tokenizer
        self.context_length = context
        self.slots = server.slots
        self._encoder = ConversationEncoder(tokenizer, remember=SERVING_CACHED_TOKENS)

    def count_tokens(self, messages: Conversation, template: PromptTemplate) -> int:
        """Tokens of the chat prompt."""
        return len(self._encode(messages, template))

    def stream(
        self, request: GenerationRequest, cancel: threading.Event | None = None
    ) -> Iterator[Delta]:
        """Generate one reply. See Engine.stream."""
        offer = get_tool_set(request.tools)
        if offer is None:
            schema = request.json_schema
            form = (
                None
                if schema is None
                else json_grammar.check_grammar(json_grammar.build_json_grammar(schema))
            )
            yield from self._stream(request, cancel, form)
        else:
            form = json_grammar.check_grammar(offer.grammar(request.json_schema))
            asked = replace(request, messages=offer.describe_tools(request.messages))
            yield from offer.parse_stream(self._stream(asked, cancel, form))

    def _stream(
        self, request: GenerationRequest, cancel: threading.Event | None, form: str | None
    ) -> Iterator[Delta]:
        ids, room = self._fitted(request)
        stops, stop_ids = StopTextFilter(request.stop), self._stop_ids(request.stop)
        said, finish = 0, "length"
        last: dict[str, Any] = {}
        with self.server.events("/completion", self._body(request, ids, room, form)) as events:
            for event in events:
                tokens: list[int] = event.get("tokens", [])
                said += len(tokens)
                last = event
                if not stop_ids.isdisjoint(tokens):
                    finish = "stop"
                    break
                text = stops.push(event.get("content", ""))
                scores = parse_logprobs(event) if request.logprobs is not None else ()
                if text or scores:
                    yield Delta(text, logprobs=scores)
                if stops.stopped or (
                    event.get("stop") and event.get("stop_type") in ("eos", "word")
                ):
                    finish = "stop"
                    break
                if cancel is not None and cancel.is_set():
                    finish = "cancelled"
                    break
        said = max(said, int(last.get("tokens_predicted", 0)))
        if not last.get("stop") and finish == "length":
            raise EngineError("llama.cpp ended the reply without saying why. Ask again.")
        yield Delta(stops.rest(), _get_finish_reason(finish), TokenUsage(len(ids), said))

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """Not offered: a server that embeds does not generate."""
        raise EngineError("The llama_cpp engine has no embeddings; --engine transformers has.")

    def close(self) -> None:
        """End the child."""
        self.server.close()

    def _encode(self, messages: Conversation, template: PromptTemplate) -> list[int]:
        return self._encoder.encode_many(
            [render_prompt_pieces(render_tool_messages(messages), template)]
        )[0].ids

    def _fitted(self, request: GenerationRequest) -> tuple[list[int], int]:
        if request.text is not None:
            ids = self.tokenizer.with_bos(request.text)
        else:
            ids = self._encode(request.messages, request.template)
        room = min(request.sampling.max_new_tokens, self.context_length - len(ids))
        if room < 1:
            raise ContextError(
                f"The prompt has {len(ids)} tokens and the context is {self.context_length}: there "
                "is no room for a reply. Shorten the conversation."
            )
        if not ids:
            raise RequestError("The prompt is empty.")
        return ids, room

    def _stop_ids(self, stop: Sequence[str]) -> frozenset[int]:
        """Stop texts that are one control token: llama.cpp shows no text for those."""
        found = (self.tokenizer.token_id(text) for text in stop)
        return frozenset(token for token in found if token is not None)

    @staticmethod
    def _body(
        request: GenerationRequest, ids: Sequence[int], room: int, form: str | None
    ) -> dict[str, Any]:
        """The request in llama.cpp's words. The order of samplers is Hugging Face's."""
        sampling = request.sampling
        body: dict[str, Any] = {
            "prompt": list(ids),
            "n_predict": room,
            "stream": True,
            "return_tokens": True,
            "cache_prompt": True,
            "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"],
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repetition_penalty,
            "repeat_last_n": room + len(ids),
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "seed": -1 if sampling.seed is None else sampling.seed % 2**32,
        }
        if request.logprobs is not None:
            body["n_probs"] = max(1, request.logprobs)
        if form is not None:
            body["grammar"] = form
        return body


def parse_logprobs(event: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    """What an event of llama.cpp's tells of probabilities."""
    return tuple(
        TokenLogprob(
            entry["token"],
            entry["logprob"],
            tuple(TokenLogprob(o["token"], o["logprob"]) for o in entry.get("top_logprobs", ())),
        )
        for entry in event.get("completion_probabilities", ())
    )


def _get_finish_reason(word: str) -> FinishReason:
    return "stop" if word == "stop" else "cancelled" if word == "cancelled" else "length"
