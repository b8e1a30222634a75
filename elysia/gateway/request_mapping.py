"""From what a client sent to what an engine is asked: persona, stop texts, sampling, and refusals.

Knows nothing of HTTP answers.
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

ROLE_ALIASES = {"developer": "system"}


async def build_chat_request(
    ask: ChatRequest, served: ServedModel, defaults: Sampling
) -> GenerationRequest:
    """The first of the `n` requests to the engine; ApiError 400 for what it cannot honour."""
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
        served.manner.template,
        (*served.manner.stop, *ask.stops()),
        build_sampling(ask, defaults, limit),
        logprobs=(ask.top_logprobs or 0) if ask.logprobs else None,
        json_schema=schema,
        tools=tools if ask.tools else None,
    )
    _refuse_unable(request, served)
    await _refuse_overlong(request, served)
    return request


def _build_message(told: ChatMessage) -> Message:
    return Message(
        ROLE_ALIASES.get(told.role, told.role),
        told.text(),
        images=told.images(),
        calls=tuple(call.model_dump() for call in told.tool_calls or ()),
        answers=told.tool_call_id if told.role == "tool" else None,
    )


async def build_completion_request(
    ask: CompletionRequest, served: ServedModel, defaults: Sampling
) -> GenerationRequest:
    """As `build_chat_request`, for plain text: neither template nor persona."""
    request = GenerationRequest(
        (),
        served.manner.template,
        (*served.manner.stop, *ask.stops()),
        build_sampling(ask, defaults, ask.max_tokens),
        text=ask.prompt,
        logprobs=ask.logprobs,
    )
    _refuse_unable(request, served)
    return request


async def build_simple_request(
    ask: SimpleRequest, served: ServedModel, defaults: Sampling
) -> GenerationRequest:
    """As `build_chat_request`, for the simple endpoint."""
    messages = []
    for said, reply in ask.history:
        messages += [Message("user", said), Message("assistant", reply)]
    messages.append(Message("user", ask.prompt))
    changes = ask.model_dump(include={"top_p", "temperature"}, exclude_none=True)
    if ask.max_length:
        changes["max_new_tokens"] = ask.max_length
    request = GenerationRequest(
        with_persona(messages, served),
        served.manner.template,
        served.manner.stop,
        replace(defaults, **changes),
    )
    await _refuse_overlong(request, served)
    return request


def with_persona(messages: Sequence[Message], served: ServedModel) -> Sequence[Message]:
    """`messages` behind the model's own system prompt, unless they bring one."""
    if not served.manner.system or any(m.role == "system" for m in messages):
        return messages
    return [Message("system", served.manner.system), *messages]


def build_sampling(ask: SamplingFields, defaults: Sampling, limit: int | None) -> Sampling:
    """What the client set, over the server's defaults; without a seed every reply is drawn anew."""
    names = {
        "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty",
        "frequency_penalty",
    }  # fmt: skip
    changes = ask.model_dump(include=names, exclude_none=True)
    return replace(
        defaults,
        **changes,
        seed=ask.seed,
        max_new_tokens=limit or defaults.max_new_tokens,
    )


def with_choice_seed(request: GenerationRequest, index: int) -> GenerationRequest:
    """The request for choice `index`: with a seed of its own where one was given."""
    seed = request.sampling.seed
    if seed is None or index == 0:
        return request
    return replace(request, sampling=replace(request.sampling, seed=seed + index))


def require_capability(served: ServedModel, ability: Capability, param: str) -> None:
    """ApiError 400 when the engine cannot do what `param` asks."""
    if ability not in served.engine.capabilities:
        raise ApiError(
            400, f"The engine of '{served.name}' does not serve {param}.", param=param,
            code="unsupported_parameter",
        )  # fmt: skip


def _refuse_unable(request: GenerationRequest, served: ServedModel) -> None:
    wanted: tuple[tuple[bool, Capability, str], ...] = (
        (request.logprobs is not None, "logprobs", "logprobs"),
        (request.json_schema is not None, "json_schema", "response_format"),
        (request.tools is not None, "tools", "tools"),
        (any(message.images for message in request.messages), "images", "images"),
        (request.sampling.penalizes, "penalties", "presence_penalty"),
        (request.text is not None, "text", "prompt"),
    )
    for asked, ability, param in wanted:
        if asked:
            require_capability(served, ability, param)


async def _refuse_overlong(request: GenerationRequest, served: ServedModel) -> None:
    engine = served.engine
    try:
        used = await run_in_threadpool(engine.count_tokens, request.messages, request.template)
    except TemplateError as error:
        raise ApiError(400, str(error), param="messages") from error
    if used >= engine.context_length:
        raise ApiError(
            400,
            f"The conversation has {used} tokens and the context is {engine.context_length}: there "
            "is no room for a reply. Shorten it.",
            code="context_length_exceeded",
            param="messages",
        )
