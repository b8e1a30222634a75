"""What every engine is: a request goes in, deltas of text come out.

Knows nothing of torch, of any implementation, or of who asks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from elysia.core.errors import EngineError
from elysia.core.messages import Conversation
from elysia.core.templates import PromptTemplate

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn, in Hugging Face's meaning of the names; temperature 0 is greedy.

    The two penalties are OpenAI's: taken off the score of each token that was said, once, or once a
    time.

    `max_new_tokens` is an upper bound: the context's end may come first. top_k 0 and top_p 1 draw
    from the whole vocabulary. Equal seeds draw equal replies on one machine; None draws anew each
    time.
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
            ("max_new_tokens", self.max_new_tokens >= 1, "1 or more"),
            ("temperature", 0 <= self.temperature < float("inf"), "0 or more"),
            ("top_k", self.top_k >= 0, "0 (no limit) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "0 to 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "above 0"),
        )
        for name, good, wanted in ranges:
            if not good:
                raise EngineError(f"{name} is {getattr(self, name)}; it must be {wanted}.")


@dataclass(frozen=True)
class GenerationRequest:
    """One reply to generate: the conversation, its template, and texts that end the reply.

    `text` stands in for both where plain text is to be continued. Only engines with the ability of
    that name honour `logprobs` (how many likely tokens to tell beside each), `json_schema` ({} is any
    object), `tools` (OpenAI's values: tools, tool_choice, parallel_tool_calls) and messages with images.
    """

    messages: Conversation
    template: PromptTemplate
    stop: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    text: str | None = None
    logprobs: int | None = None
    json_schema: Mapping[str, Any] | None = None
    tools: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TokenUsage:
    """Tokens of the prompt and of the reply (the stop token counted)."""

    prompt_tokens: int
    reply_tokens: int


@dataclass(frozen=True)
class TokenLogprob:
    """A token that was said, its log-probability (nats), and the likeliest in its place."""

    token: str
    logprob: float
    alternatives: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Delta:
    """A piece of the reply. The last one of a reply, and only it, has `finish` and `usage`."""

    text: str
    finish: FinishReason | None = None
    usage: TokenUsage | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[Mapping[str, Any], ...] = ()


Capability = Literal[
    "logprobs", "json_schema", "tools", "penalties", "embeddings", "text", "images"
]


class Engine(Protocol):
    """A model behind a door. Implementations: one file each in this folder."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it honours beyond plain chat; who asks for more is refused before it is asked."""

    @property
    def slots(self) -> int:
        """Replies that it generates side by side."""

    @property
    def context_length(self) -> int:
        """Tokens that prompt and reply may take together."""

    def count_tokens(self, messages: Conversation, template: PromptTemplate) -> int:
        """Tokens of the chat prompt for `messages`."""

    def stream(
        self, request: GenerationRequest, cancel: threading.Event | None = None
    ) -> Iterator[Delta]:
        """Generate; ends within a token of `cancel` being set. Raises EngineError with a sentence.

        Texts of `request.stop` never appear in the deltas, nor do broken characters.
        """

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """A vector a text, and the tokens read. EngineError without the ability "embeddings"."""

    def close(self) -> None:
        """Let go of processes and connections; harmless when repeated."""
