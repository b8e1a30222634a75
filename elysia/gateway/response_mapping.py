"""From an engine's deltas to OpenAI's objects: complete, or as a stream of server-sent events."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from elysia.engines.base import Delta, TokenLogprob, TokenUsage

DONE_EVENT = b"data: [DONE]\n\n"
# Legal inside JSON strings, but many readers of events take them for line ends.
LINE_BREAKS = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


@dataclass
class ReplyChoice:
    """One reply as far as it has come; `finish` is OpenAI's finish_reason."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    scores: list[TokenLogprob] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    finish: str | None = None
    usage: TokenUsage = field(default_factory=lambda: TokenUsage(0, 0))

    def add(self, deltas: Iterable[Delta]) -> None:
        """Add what has come."""
        for delta in deltas:
            self.texts.append(delta.text)
            self.thoughts.append(delta.reasoning)
            self.scores += delta.logprobs
            merge_tool_calls(self.calls, delta.tool_calls)
            if delta.finish:
                self.finish = "length" if delta.finish == "length" else "stop"
                self.finish = "tool_calls" if self.calls else self.finish
            self.usage = delta.usage or self.usage

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.texts)


def merge_tool_calls(calls: list[dict[str, Any]], pieces: Iterable[Any]) -> None:
    """Add streamed pieces of tool calls to `calls`, by their index."""
    for piece in pieces:
        at = int(piece.get("index") or 0)
        while len(calls) <= at:
            calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call = calls[at]
        call["id"] = piece.get("id") or call["id"]
        function = piece.get("function") or {}
        for name in ("name", "arguments"):
            call["function"][name] += function.get(name) or ""


class ResponseBuilder:
    """Builds the objects of one answer, with one id, time and model.

    `kind` is "chat.completion" or "text_completion".
    """

    def __init__(self, kind: str, model: str) -> None:
        self.chat = kind.startswith("chat")
        prefix = "chatcmpl" if self.chat else "cmpl"
        self.kind = kind
        self.head = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, choices: Sequence[ReplyChoice]) -> dict[str, Any]:
        """The answer that is not streamed."""
        listed = [self._choice(index, choice) for index, choice in enumerate(choices)]
        return {**self.head, "choices": listed, "usage": count_usage(choices)}

    def _choice(self, index: int, choice: ReplyChoice) -> dict[str, Any]:
        if not self.chat:
            scores = completion_logprobs(choice.scores) if choice.scores else None
            body: dict[str, Any] = {"text": choice.text}
        else:
            scores = (
                {"content": chat_logprobs(choice.scores), "refusal": None}
                if choice.scores
                else None
            )
            message: dict[str, Any] = {
                "role": "assistant", "content": choice.text, "refusal": None, "annotations": [],
            }  # fmt: skip
            if thought := "".join(choice.thoughts):
                message["reasoning_content"] = thought
            if choice.calls:
                message |= {"tool_calls": choice.calls, "content": choice.text or None}
            body = {"message": message}
        return {"index": index, **body, "logprobs": scores, "finish_reason": choice.finish}

    def event(
        self, index: int, deltas: Sequence[Delta], finish: str | None, *, usage: bool, first: bool
    ) -> bytes:
        """A server-sent event with what has come of choice `index`."""
        text = "".join(delta.text for delta in deltas)
        thought = "".join(delta.reasoning for delta in deltas)
        scores = [score for delta in deltas for score in delta.logprobs]
        calls = [dict(call) for delta in deltas for call in delta.tool_calls]
        choice: dict[str, Any] = {"index": index, "finish_reason": finish}
        if self.chat:
            delta: dict[str, Any] = {"role": "assistant", "content": ""} if first else {}
            delta |= {"reasoning_content": thought} if thought else {}
            delta |= {"content": text} if text else {}
            delta |= {"tool_calls": calls} if calls else {}
            logprobs: Any = {"content": chat_logprobs(scores), "refusal": None} if scores else None
            choice |= {"delta": delta, "logprobs": logprobs}
        else:
            choice |= {"text": text, "logprobs": completion_logprobs(scores) if scores else None}
        return self._encode([choice], None, usage)

    def last(self, choices: Sequence[ReplyChoice]) -> bytes:
        """The last event, which carries only the token counts."""
        return self._encode([], count_usage(choices), True)

    def _encode(self, choices: list[dict[str, Any]], usage: Any, with_usage: bool) -> bytes:
        kind = "chat.completion.chunk" if self.chat else self.kind
        body = {**self.head, "object": kind, "choices": choices}
        if with_usage:
            body["usage"] = usage
        return encode_event(body)


def encode_event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {_JSON.encode(body).translate(LINE_BREAKS)}\n\n".encode()


def count_usage(choices: Sequence[ReplyChoice]) -> dict[str, Any]:
    """The tokens of the prompt, counted once, and of all replies; of these, those of thoughts."""
    prompt = max((choice.usage.prompt_tokens for choice in choices), default=0)
    reply = sum(choice.usage.reply_tokens for choice in choices)
    usage: dict[str, Any] = {
        "prompt_tokens": prompt, "completion_tokens": reply, "total_tokens": prompt + reply,
    }  # fmt: skip
    if thought := sum(choice.usage.reasoning_tokens for choice in choices):
        usage["completion_tokens_details"] = {"reasoning_tokens": thought}
    return usage


def chat_logprobs(scores: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Log-probabilities in the form of chat completions."""
    return [
        {
            **_token_logprob(score),
            "top_logprobs": [_token_logprob(other) for other in score.alternatives],
        }
        for score in scores
    ]


def _token_logprob(score: TokenLogprob) -> dict[str, Any]:
    raw = list(score.token.encode("utf-8", "replace"))
    return {"token": score.token, "logprob": score.logprob, "bytes": raw}


def completion_logprobs(scores: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Log-probabilities in the form of plain completions."""
    return {
        "tokens": [score.token for score in scores],
        "token_logprobs": [score.logprob for score in scores],
        "top_logprobs": [{o.token: o.logprob for o in score.alternatives} for score in scores],
        "text_offset": [],
    }
