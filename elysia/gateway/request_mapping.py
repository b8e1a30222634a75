"""From a client's body to an engine's request: system prompt, stop texts, sampling, and refusals.

A request that the engine cannot honour is refused with ApiError 400, naming the field, never cut down
silently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from starlette.concurrency import run_in_threadpool

from elysia.core.errors import TemplateError
from elysia.core.messages import Message
from elysia.engines.base import Capability, GenerationRequest, Sampling
from elysia.gateway.api_errors import ApiError
from elysia.gateway.model_registry import ServedModel
from elysia.gateway.schemas import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    SamplingFields,
    SimpleRequest,
)
from elysia.models.chat_format import ask_for_thinking

ROLE_ALIASES = {"developer": "system"}


async def build_chat_request(
    ask: ChatRequest, served: ServedModel, defaults: Sampling
) -> GenerationRequest:
    """The engine's request for the first of `n` choices; ApiError 400 for what it cannot honour."""
    messages = [_build_message(m) for m in ask.messages]
    limit = ask.max_completion_tokens or ask.max_tokens
    form = ask.response_format
    schema = None
    if form is not None and form.type != "text":
        schema = form.json_schema.json_schema if form.json_schema else {}
    tools = ask.model_dump(
        include={"tools", "tool_choice", "parallel_tool_calls"}, exclude_none=True
    )
    request = GenerationRequest(
        with_persona(messages, served),
        ask_for_thinking(served.chat_format.template, ask.thinks(), ask.effort()),
        (*served.chat_format.stop, *ask.stops()),
        build_sampling(ask, defaults, limit),
        logprobs=(ask.top_logprobs or 0) if ask.logprobs else None,
        json_schema=schema,
        tools=tools if ask.tools else None,
        thinking=ask.thinks(),
        reasoning_effort=ask.effort(),
    )
    _refuse_unable(request, served)
    await _refuse_overlong(request, served)
    return request


def _build_message(message: ChatMessage) -> Message:
    return Message(
        ROLE_ALIASES.get(message.role, message.role),
        message.text(),
        images=message.images(),
        calls=tuple(call.model_dump() for call in message.tool_calls or ()),
        answers=message.tool_call_id if message.role == "tool" else None,
    )


async def build_completion_request(
    ask: CompletionRequest, served: ServedModel, defaults: Sampling
) -> GenerationRequest:
    """Like `build_chat_request`, for plain text: without template and system prompt."""
    request = GenerationRequest(
        (),
        served.chat_format.template,
        (*served.chat_format.stop, *ask.stops()),
        build_sampling(ask, defaults, ask.max_tokens),
        text=ask.prompt,
        logprobs=ask.logprobs,
    )
    _refuse_unable(request, served)
    return request


async def build_simple_request(
    ask: SimpleRequest, served: ServedModel, defaults: Sampling
) -> GenerationRequest:
    """Like `build_chat_request`, for the simple endpoint."""
    messages = []
    for prompt, reply in ask.history:
        messages += [Message("user", prompt), Message("assistant", reply)]
    messages.append(Message("user", ask.prompt))
    changes = ask.model_dump(include={"top_p", "temperature"}, exclude_none=True)
    if ask.max_length:
        changes["max_new_tokens"] = ask.max_length
    request = GenerationRequest(
        with_persona(messages, served),
        served.chat_format.template,
        served.chat_format.stop,
        replace(defaults, **changes),
    )
    await _refuse_overlong(request, served)
    return request


def with_persona(messages: Sequence[Message], served: ServedModel) -> Sequence[Message]:
    """`messages` with the model's own system prompt before them, unless they bring one."""
    if not served.chat_format.system or any(m.role == "system" for m in messages):
        return messages
    return [Message("system", served.chat_format.system), *messages]


def build_sampling(ask: SamplingFields, defaults: Sampling, limit: int | None) -> Sampling:
    """The client's values over the server's defaults; without a seed every reply is sampled anew."""
    names = {
        "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty",
        "frequency_penalty",
    }  # fmt: skip
    changes = ask.model_dump(include=names, exclude_none=True)
    return replace(
        defaults, **changes, seed=ask.seed, max_new_tokens=limit or defaults.max_new_tokens
    )


def with_choice_seed(request: GenerationRequest, index: int) -> GenerationRequest:
    """The request for choice `index`: with a seed of its own, if the client set one."""
    seed = request.sampling.seed
    if seed is None or index == 0:
        return request
    return replace(request, sampling=replace(request.sampling, seed=seed + index))


def require_capability(served: ServedModel, capability: Capability, param: str) -> None:
    """ApiError 400 when the engine lacks what the field `param` asks for."""
    if capability not in served.engine.capabilities:
        raise ApiError(
            "gateway.unsupported", 400, api_code="unsupported_parameter", param=param,
            model=served.name, field=param,
        )  # fmt: skip


def _refuse_unable(request: GenerationRequest, served: ServedModel) -> None:
    # (whether the request asks for it, the capability it needs, the field to blame)
    needs: tuple[tuple[bool, Capability, str], ...] = (
        (request.logprobs is not None, "logprobs", "logprobs"),
        (request.json_schema is not None, "json_schema", "response_format"),
        (request.tools is not None, "tools", "tools"),
        (any(message.images for message in request.messages), "images", "images"),
        (request.sampling.penalizes, "penalties", "presence_penalty"),
        (request.text is not None, "text", "prompt"),
    )
    for is_needed, capability, param in needs:
        if is_needed:
            require_capability(served, capability, param)


async def _refuse_overlong(request: GenerationRequest, served: ServedModel) -> None:
    engine = served.engine
    try:
        used = await run_in_threadpool(engine.count_tokens, request.messages, request.template)
    except TemplateError as error:
        raise ApiError(str(error), 400, param="messages") from error
    if used >= engine.context_length:
        raise ApiError(
            "gateway.context_exceeded", 400, api_code="context_length_exceeded", param="messages",
            used=used, limit=engine.context_length,
        )  # fmt: skip
