"""The interface of every engine: a request goes in, deltas of text come out."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from elysia.core.errors import ContextError, EngineError
from elysia.core.i18n import Text
from elysia.core.messages import Conversation
from elysia.core.templates import ChatTemplate

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn, with Hugging Face's meaning of the names; temperature 0 is greedy.

    `max_new_tokens` is an upper bound: the end of the context may come first. top_k 0 and top_p 1 draw
    from the whole vocabulary. Equal seeds draw equal replies on one machine; None draws differently
    each time. The presence and frequency penalties are OpenAI's: subtracted from the score of each
    token that the reply already holds, once, or once per occurrence.
    """

    max_new_tokens: int = 2048
    temperature: float = 0.1
    top_k: int = 40
    top_p: float = 0.75
    repetition_penalty: float = 1.0
    seed: int | None = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    @property
    def penalizes(self) -> bool:
        """Whether either of OpenAI's penalties is set."""
        return bool(self.presence_penalty or self.frequency_penalty)

    def __post_init__(self) -> None:
        ranges = (
            ("max_new_tokens", self.max_new_tokens >= 1, "at_least_1"),
            ("temperature", 0 <= self.temperature < float("inf"), "at_least_0"),
            ("top_k", self.top_k >= 0, "no_limit_or_more"),
            ("top_p", 0 < self.top_p <= 1, "share_above_0"),
            ("min_p", 0 <= self.min_p <= 1, "share"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "above_0"),
        )
        for name, is_valid, allowed in ranges:
            if not is_valid:
                raise EngineError(
                    "engines.sampling_range",
                    name=name,
                    value=getattr(self, name),
                    allowed=Text(f"engines.{allowed}"),
                )


@dataclass(frozen=True)
class GenerationRequest:
    """One reply to generate: the conversation, its template, and texts that end the reply.

    `text`, when given, replaces both: plain text to be continued. Only engines with the capability of
    that name honour `logprobs` (how many likely alternatives to report for each token), `json_schema`
    ({} is any object), `tools` (OpenAI's values: tools, tool_choice, parallel_tool_calls) and messages
    with images. `thinking` and `reasoning_effort` are for servers that apply a template of their own;
    elsewhere the template itself says it (`models.chat_format.ask_for_thinking`).
    """

    messages: Conversation
    template: ChatTemplate
    stop: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    text: str | None = None
    logprobs: int | None = None
    json_schema: Mapping[str, Any] | None = None
    tools: Mapping[str, Any] | None = None
    thinking: bool | None = None
    reasoning_effort: str | None = None


@dataclass(frozen=True)
class TokenUsage:
    """Tokens of the prompt and of the reply, its stop token and its thoughts included."""

    prompt_tokens: int
    reply_tokens: int
    reasoning_tokens: int = 0  # of the reply's, those of thoughts


@dataclass(frozen=True)
class TokenLogprob:
    """A token of the reply, its log-probability (nats), and the likeliest ones in its place."""

    token: str
    logprob: float
    alternatives: tuple[TokenLogprob, ...] = ()


def parse_logprobs(entries: Iterable[Mapping[str, Any]]) -> tuple[TokenLogprob, ...]:
    """Entries of OpenAI's shape, which llama.cpp has, too: token, logprob, top_logprobs."""
    return tuple(
        TokenLogprob(e["token"], e["logprob"], parse_logprobs(e.get("top_logprobs") or ()))
        for e in entries
    )


@dataclass(frozen=True)
class Delta:
    """A piece of the reply. The last one of a reply, and only it, has `finish` and `usage`.

    `reasoning` is what the model thinks before it replies. It is no part of the reply: nothing shows,
    speaks, remembers or measures it unless it was asked for.
    """

    text: str
    finish: FinishReason | None = None
    usage: TokenUsage | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    reasoning: str = ""


def count_room(sampling: Sampling, prompt_tokens: int, context: int) -> int:
    """Tokens that the reply may have; ContextError when the prompt leaves room for none."""
    room = min(sampling.max_new_tokens, context - prompt_tokens)
    if room < 1:
        raise ContextError("engines.no_room", tokens=prompt_tokens, context=context)
    return room


Capability = Literal[
    "logprobs", "json_schema", "tools", "penalties", "embeddings", "text", "images"
]


class Engine(Protocol):
    """Something that generates replies. Its implementations are the other modules of this package."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it honours beyond plain chat. Callers check before they send a request."""

    @property
    def slots(self) -> int:
        """Replies that it generates side by side."""

    @property
    def context_length(self) -> int:
        """Tokens that prompt and reply may take together."""

    def count_tokens(self, messages: Conversation, template: ChatTemplate) -> int:
        """Tokens of the chat prompt for `messages`."""

    def stream(
        self, request: GenerationRequest, cancel: threading.Event | None = None
    ) -> Iterator[Delta]:
        """Generate a reply; ends within a token of `cancel` being set. Raises EngineError.

        The deltas hold whole characters only, and never a text of `request.stop`.
        """

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """A vector per text, and the tokens read. EngineError without the capability "embeddings"."""

    def close(self) -> None:
        """Release processes and connections; harmless when repeated."""
