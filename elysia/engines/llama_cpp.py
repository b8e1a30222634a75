"""The engine for a GGUF: llama.cpp in a child process, several replies at once.

Prompts are encoded here, piece by piece as in training, with the tokenizer that the file carries; the
child gets token ids. So a control token that a user types stays text, whatever program wrote the file.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from elysia.core.errors import EngineError, ModelError, RequestError
from elysia.core.messages import Conversation
from elysia.core.templates import ChatTemplate, TextPiece, render_prompt_pieces
from elysia.data.tokenize.encoder import SERVING_CACHED_TOKENS, ConversationEncoder
from elysia.engines.base import (
    Capability,
    Delta,
    FinishReason,
    GenerationRequest,
    TokenUsage,
    count_room,
    parse_logprobs,
)
from elysia.engines.json_grammar import build_json_grammar, check_grammar
from elysia.engines.tool_calling import get_tool_set, render_tool_messages
from elysia.models.gguf.gguf_reader import GgufTokenizer, read_gguf_header
from elysia.models.gguf.llama_server import LlamaServer
from elysia.models.streaming_text import MARK_TOKENS, ReplyFilter

# Tokens, unless asked for more: every slot's cache is allocated at the start.
MAX_DEFAULT_CONTEXT = 8192
LOGPROBS_KEY = "completion_probabilities"  # of an event


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
        context: tokens for prompt and reply; when None the file's own, at most MAX_DEFAULT_CONTEXT.
        threads: when None, one fewer than there are cores.

    Raises ModelError for a damaged file, one that llama.cpp cannot serve, and too long a context.
    """
    header = read_gguf_header(file)
    trained = int(header.get(f"{header.get('general.architecture')}.context_length", 2048))
    if context and context > trained:
        raise ModelError("engines.context_too_long", file=file, trained=trained, context=context)
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
        ids = {tokenizer.find_control_token(text): text for text in MARK_TOKENS}
        self._marks = {token: text for token, text in ids.items() if token is not None}
        self._encoder = ConversationEncoder(tokenizer, cached_tokens=SERVING_CACHED_TOKENS)

    def count_tokens(self, messages: Conversation, template: ChatTemplate) -> int:
        """Tokens of the chat prompt."""
        return len(self._encode(messages, template))

    def stream(
        self, request: GenerationRequest, cancel: threading.Event | None = None
    ) -> Iterator[Delta]:
        """Generate one reply. See Engine.stream."""
        tools, grammar = get_tool_set(request.tools), None
        if tools is not None:
            grammar = check_grammar(tools.grammar(request.json_schema))
            request = replace(request, messages=tools.describe_tools(request.messages))
            yield from tools.parse_stream(self._stream(request, cancel, grammar))
            return
        if request.json_schema is not None:
            grammar = check_grammar(build_json_grammar(request.json_schema))
        yield from self._stream(request, cancel, grammar)

    def _stream(
        self, request: GenerationRequest, cancel: threading.Event | None, grammar: str | None
    ) -> Iterator[Delta]:
        ids, room, end = self._fit_prompt(request)
        is_raw = request.text is not None or grammar is not None
        pieces = ReplyFilter(request.stop, end, raw=is_raw)
        stop_ids = self._find_stop_ids(request.stop)
        finish: FinishReason = "length"
        count = thought = 0
        last: dict[str, Any] = {}
        with self.server.events(
            "/completion", self._build_body(request, ids, room, grammar)
        ) as events:
            for event in events:
                tokens: list[int] = event.get("tokens", [])
                count += len(tokens)
                last = event
                if not stop_ids.isdisjoint(tokens):
                    finish = "stop"
                    break
                was_thinking = pieces.thinking
                piece = pieces.push(self._read_text(event, tokens, pieces))
                thought += len(tokens) if was_thinking or pieces.thinking else 0
                entries = () if request.logprobs is None else event.get(LOGPROBS_KEY, ())
                logprobs = parse_logprobs(entries)
                if any(piece) or logprobs:
                    yield Delta(piece.text, logprobs=logprobs, reasoning=piece.reasoning)
                if pieces.stopped or (
                    event.get("stop") and event.get("stop_type") in ("eos", "word")
                ):
                    finish = "stop"
                    break
                if cancel is not None and cancel.is_set():
                    finish = "cancelled"
                    break
        count = max(count, int(last.get("tokens_predicted", 0)))
        if not last.get("stop") and finish == "length":
            raise EngineError("engines.llama_ended_early")
        rest = pieces.rest()
        usage = TokenUsage(len(ids), count, thought)
        yield Delta(rest.text, finish, usage, reasoning=rest.reasoning)

    def _read_text(
        self, event: Mapping[str, Any], tokens: Sequence[int], pieces: ReplyFilter
    ) -> str:
        """An event's text, with the control tokens that mark thoughts, for which llama.cpp has none."""
        text: str = event.get("content", "")
        if pieces.expects_mark and not self._marks.keys().isdisjoint(tokens):
            text = "".join(self._marks.get(token, "") for token in tokens) + text
        return text

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """Not offered: a server that embeds does not generate."""
        raise EngineError("engines.no_embeddings_llama")

    def close(self) -> None:
        """End the child."""
        self.server.close()

    def _encode(self, messages: Conversation, template: ChatTemplate) -> list[int]:
        return self._encode_pieces(render_prompt_pieces(render_tool_messages(messages), template))

    def _encode_pieces(self, pieces: Sequence[TextPiece]) -> list[int]:
        return self._encoder.encode_many([pieces])[0].ids

    def _fit_prompt(self, request: GenerationRequest) -> tuple[list[int], int, str]:
        """The prompt's ids, the tokens that the reply may have, and the end of the prompt's text."""
        end = ""
        if request.text is not None:
            ids = self.tokenizer.encode_with_bos(request.text)
        else:
            messages = render_tool_messages(request.messages)
            parts = render_prompt_pieces(messages, request.template)
            ids, end = self._encode_pieces(parts), parts[-1].text[-64:]
        if not ids:
            raise RequestError("engines.empty_prompt")
        return ids, count_room(request.sampling, len(ids), self.context_length), end

    def _find_stop_ids(self, stop: Sequence[str]) -> frozenset[int]:
        """Ids of the stop texts that are one control token, for which llama.cpp returns no text."""
        tokens = (self.tokenizer.find_control_token(text) for text in stop)
        return frozenset(token for token in tokens if token is not None)

    @staticmethod
    def _build_body(
        request: GenerationRequest, ids: Sequence[int], room: int, grammar: str | None
    ) -> dict[str, Any]:
        """The request as llama.cpp expects it. The order of samplers is Hugging Face's."""
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
        if grammar is not None:
            body["grammar"] = grammar
        return body
