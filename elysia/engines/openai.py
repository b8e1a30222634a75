"""The engine for any OpenAI-compatible server: LMDeploy, vLLM, a cloud service, our own gateway.

The server applies its own chat template, so the request's is not used, and token counts are only
estimated. The key goes into one header and nowhere else.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from elysia.core.errors import EngineError, RequestError
from elysia.core.messages import Conversation, Message
from elysia.core.sse import iter_lines
from elysia.core.templates import ChatTemplate
from elysia.engines.base import (
    Capability,
    Delta,
    FinishReason,
    GenerationRequest,
    TokenUsage,
    parse_logprobs,
)
from elysia.models.streaming_text import ReplyFilter

FINAL_STATUSES = (400, 413, 422)  # the same request would fail again
ROLE_ALIASES = {"tool": "user"}  # many servers refuse a tool's message without the id of its call
FINISH_REASONS: dict[str, FinishReason] = {"length": "length"}
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
DEFAULT_CONTEXT = 8192  # tokens, when the server does not say


def build_engine(
    url: str,
    *,
    model: str | None = None,
    key: str | None = None,
    context: int | None = None,
    thinking: bool | None = None,
) -> OpenAIEngine:
    """Connect to `url` (…/v1, or a host alone) and ask which models it has.

    Args:
        model: a name that the server lists; its first when None.
        key: sent as a Bearer token.
        context: tokens; when None what the server says, else DEFAULT_CONTEXT.
        thinking: whether requests that do not say it ask for thoughts; None leaves it to the server.

    Raises EngineError when nobody answers, the key is refused or the server lacks the model.
    """
    parts = urlsplit(url)
    base = url.rstrip("/") if parts.path.strip("/") else f"{url.rstrip('/')}/v1"
    client = httpx.Client(
        base_url=base,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(600.0, connect=10.0),
        trust_env=parts.hostname not in LOCAL_HOSTS,
    )
    try:
        listed = _list_models(client, base)
        names = [str(entry.get("id")) for entry in listed]
        if model is not None and model not in names:
            raise EngineError("engines.no_such_model", url=base, model=model, models=names or "-")
        chosen = next((e for e in listed if model in (None, e.get("id"))), None)
        if chosen is None:
            raise EngineError("engines.no_models", url=base)
    except BaseException:
        client.close()
        raise
    stated = chosen.get("max_model_len") or (chosen.get("meta") or {}).get("n_ctx")
    length = context or int(stated or DEFAULT_CONTEXT)
    return OpenAIEngine(client, str(chosen["id"]), length, thinking)


def _list_models(client: httpx.Client, base: str) -> list[dict[str, Any]]:
    try:
        answer = client.get("/models")
    except httpx.HTTPError as error:
        raise EngineError(
            "engines.nobody_answers", url=base, reason=type(error).__name__
        ) from error
    raise_for_status(answer, base)
    try:
        models: list[dict[str, Any]] = list(answer.json()["data"])
        return models
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError("engines.not_openai", url=base) from error


class OpenAIEngine:
    """An Engine over HTTP. Threads may share it; the server decides how many it serves at once."""

    capabilities: frozenset[Capability] = frozenset(
        {"logprobs", "json_schema", "tools", "penalties", "embeddings", "text", "images"}
    )
    slots = 64

    def __init__(
        self, client: httpx.Client, model: str, context: int, thinking: bool | None = None
    ) -> None:
        self._client = client
        self._thinking = thinking
        self.model = model
        self.context_length = context
        host = client.base_url.host
        # OpenAI itself refuses unknown fields; every server of open models accepts these two.
        self._takes_hf_sampling = not host.endswith("openai.com")

    def count_tokens(self, messages: Conversation, template: ChatTemplate) -> int:
        """An estimate on the safe side: a token per three bytes of UTF-8, and four per message."""
        return sum(4 + len(message.text.encode()) // 3 for message in messages)

    def stream(
        self, request: GenerationRequest, cancel: threading.Event | None = None
    ) -> Iterator[Delta]:
        """Generate one reply on the server. See Engine.stream."""
        path, body = self._build_body(request)
        pieces = ReplyFilter(request.stop, raw=request.text is not None)
        finish: FinishReason = "stop"
        usage = TokenUsage(0, 0)
        try:
            with self._client.stream("POST", path, json=body) as answer:
                if answer.status_code != 200:
                    answer.read()
                raise_for_status(answer, str(self._client.base_url))
                for event in iter_events(answer):
                    if counts := event.get("usage"):
                        usage = _parse_usage(counts)
                    for choice in event.get("choices", ())[:1]:
                        reason = choice.get("finish_reason")
                        finish = FINISH_REASONS.get(reason, "stop") if reason else finish
                        yield from self._parse_choice(choice, pieces)
                    if pieces.stopped:
                        break
                    if cancel is not None and cancel.is_set():
                        finish = "cancelled"
                        break
        except httpx.HTTPError as error:
            url, reason = self._client.base_url, type(error).__name__
            raise EngineError("engines.connection_lost", url=str(url), reason=reason) from error
        rest = pieces.rest()
        yield Delta(rest.text, finish, usage, reasoning=rest.reasoning)

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """The server's own embeddings."""
        try:
            body = {"model": self.model, "input": list(texts)}
            answer = self._client.post("/embeddings", json=body)
        except httpx.HTTPError as error:
            url = str(self._client.base_url)
            raise EngineError("engines.connection_lost", url=url, reason=str(error)) from error
        raise_for_status(answer, str(self._client.base_url))
        result = answer.json()
        vectors = [entry["embedding"] for entry in result["data"]]
        return vectors, int((result.get("usage") or {}).get("prompt_tokens", 0))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _build_body(self, request: GenerationRequest) -> tuple[str, dict[str, Any]]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            # Four is OpenAI's limit; `stream` itself watches for all of them.
            "stop": list(request.stop[:4]) or None,
            "seed": sampling.seed,
            "presence_penalty": sampling.presence_penalty or None,
            "frequency_penalty": sampling.frequency_penalty or None,
            "reasoning_effort": request.reasoning_effort,
            **dict(request.tools or {}),
        }
        if self._takes_hf_sampling:
            body["top_k"] = sampling.top_k or None
            body["repetition_penalty"] = sampling.repetition_penalty
            thinking = self._thinking if request.thinking is None else request.thinking
            if thinking is not None and request.text is None:
                # Qwen's templates read the first name, DeepSeek's the second.
                body["chat_template_kwargs"] = {"enable_thinking": thinking, "thinking": thinking}
        if request.json_schema is not None:
            body["response_format"] = build_response_format(request.json_schema)
        if request.text is not None:
            body |= {"prompt": request.text, "logprobs": request.logprobs}
        else:
            body["messages"] = [_to_openai_message(message) for message in request.messages]
            if request.logprobs is not None:
                body |= {"logprobs": True, "top_logprobs": request.logprobs}
        path = "/chat/completions" if request.text is None else "/completions"
        return path, {name: value for name, value in body.items() if value is not None}

    @staticmethod
    def _parse_choice(choice: Mapping[str, Any], pieces: ReplyFilter) -> Iterator[Delta]:
        delta = choice.get("delta") or {}
        # DeepSeek, llama.cpp, SGLang and LMDeploy call it reasoning_content, newer vLLM and Ollama reasoning.
        thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
        text, reasoning = pieces.push(delta.get("content") or choice.get("text") or "")
        reasoning = (thought if isinstance(thought, str) else "") + reasoning
        logprobs = parse_logprobs((choice.get("logprobs") or {}).get("content") or ())
        calls = tuple(delta.get("tool_calls") or ())
        if text or reasoning or logprobs or calls:
            yield Delta(text, logprobs=logprobs, tool_calls=calls, reasoning=reasoning)


def _parse_usage(counts: Mapping[str, Any]) -> TokenUsage:
    details = counts.get("completion_tokens_details") or {}
    return TokenUsage(
        counts.get("prompt_tokens", 0),
        counts.get("completion_tokens", 0),
        details.get("reasoning_tokens") or counts.get("reasoning_tokens") or 0,
    )


def _to_openai_message(message: Message) -> dict[str, Any]:
    """A message in OpenAI's shape."""
    if message.calls:
        return {
            "role": "assistant",
            "content": message.text or None,
            "tool_calls": [*message.calls],
        }
    if message.answers:
        return {"role": "tool", "tool_call_id": message.answers, "content": message.text}
    content: Any = message.text
    if message.images:
        images = [{"type": "image_url", "image_url": {"url": url}} for url in message.images]
        content = [{"type": "text", "text": message.text}, *images]
    return {"role": ROLE_ALIASES.get(message.role, message.role), "content": content}


def build_response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's `response_format` for a JSON schema; {} is any object."""
    if not schema:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": dict(schema)}}


def iter_events(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """The events of a server-sent stream, up to [DONE]; EngineError for an error among them."""
    for line in iter_lines(answer.iter_bytes()):
        if not line.startswith("data:"):
            continue
        text = line[5:].strip()
        if text == "[DONE]":
            return
        try:
            event = json.loads(text)
        except ValueError as error:
            raise EngineError("engines.event_not_json", text=text[:100]) from error
        if isinstance(event, dict) and event.get("error"):
            raise EngineError("engines.server_gave_up", reason=_get_error_text(event))
        yield event


def raise_for_status(answer: httpx.Response, base: str) -> None:
    """Raise an error with the server's own words unless the status is 200.

    RequestError for a fault of the request, EngineError otherwise.
    """
    if answer.status_code == 200:
        return
    if answer.status_code in (401, 403):
        raise EngineError("engines.key_refused", url=base, status=answer.status_code)
    try:
        reason = _get_error_text(answer.json())
    except ValueError:
        reason = answer.text[:200]
    kind = RequestError if answer.status_code in FINAL_STATUSES else EngineError
    raise kind("engines.request_refused", url=base, status=answer.status_code, reason=reason)


def _get_error_text(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    return str(error.get("message", error) if isinstance(error, dict) else error)[:300]
