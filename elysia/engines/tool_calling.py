"""Function calling for models that were never trained for it.

Three parts: what the model reads about the functions, the grammar that restricts its reply, and the
call parsed from the reply. For engines that can apply a grammar. Functions and calls have OpenAI's
shapes.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from elysia.core.messages import Conversation, Message
from elysia.engines import json_grammar
from elysia.engines.base import Delta

# Sent to the model, and therefore the same in every language of the interface.
TOOLS_INTRODUCTION = """\
You may call one of these functions. To call one, answer with {"name": ..., "arguments": {...}} and \
nothing else."""
CALL_REQUIRED = "\nCall one now."
# Text is anything that does not begin as a call does.
TEXT_RULE = r"said: /\s*[^{\s](.|\n)*/"


@dataclass(frozen=True)
class ToolSet:
    """The functions of one request, by name, and whether one of them must be called."""

    functions: Mapping[str, Mapping[str, Any]]
    required: bool

    def describe_tools(self, messages: Conversation) -> list[Message]:
        """`messages` with the functions described after their system messages."""
        descriptions = [json.dumps(dict(f), ensure_ascii=False) for f in self.functions.values()]
        text = "\n".join([TOOLS_INTRODUCTION, *descriptions])
        text += CALL_REQUIRED if self.required else ""
        at = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
        return [*messages[:at], Message("system", text), *messages[at:]]

    def grammar(self, schema: Mapping[str, Any] | None = None) -> str:
        """What a reply may be: a call, or text (JSON of `schema` where one is given)."""
        rules = ["start: call" if self.required else "start: call | said"]
        rules.append(f"call: {' | '.join(f'call_{n}' for n in range(len(self.functions)))}")
        for number, function in enumerate(self.functions.values()):
            rules += _build_call_rules(number, function)
        if not self.required:
            rule = TEXT_RULE if schema is None else f"said: {json_grammar.build_json_rule(schema)}"
            rules.append(rule)
        return "\n".join([json_grammar.GRAMMAR_HEADER, *rules])

    def parse_stream(self, deltas: Iterable[Delta]) -> Iterator[Delta]:
        """The reply with a call in place of the text that spells it.

        Plain text passes as it comes. What may be a call is held back until the reply ends, and stays
        text if it was cut short.
        """
        held: list[Delta] = []
        text, is_plain = "", False
        for delta in deltas:
            if is_plain or (delta.reasoning and not delta.text and not delta.finish):
                yield delta
                continue
            held.append(delta)
            text += delta.text
            start = text.lstrip()[:1]
            if start and start != "{":
                is_plain = True
                yield from held
        if is_plain or not held:
            return
        call = self._parse_call(text)
        if call is None:
            yield from held
            return
        scores = tuple(score for delta in held for score in delta.logprobs)
        yield Delta("", logprobs=scores, tool_calls=(call,))
        yield Delta("", held[-1].finish, held[-1].usage)

    def _parse_call(self, text: str) -> dict[str, Any] | None:
        try:
            reply = json.loads(text)
            name, arguments = reply["name"], reply["arguments"]
            is_call = name in self.functions and len(reply) == 2
        except (ValueError, TypeError, KeyError):  # no JSON, no object, or no name at all
            return None
        if not is_call:
            return None
        identifier = f"call_{secrets.token_hex(12)}"
        return {"index": 0, "id": identifier, **_build_function_call(name, arguments)}


def get_tool_set(tools: Mapping[str, Any] | None) -> ToolSet | None:
    """The functions of `GenerationRequest.tools`; None where there are none, or none may be called."""
    if not tools or tools.get("tool_choice") == "none":
        return None
    functions = {tool["function"]["name"]: tool["function"] for tool in tools["tools"]}
    choice = tools.get("tool_choice") or "auto"
    if isinstance(choice, str):
        return ToolSet(functions, choice == "required")
    name = choice["function"]["name"]
    return ToolSet({name: functions[name]}, True)


def render_tool_messages(messages: Conversation) -> Conversation:
    """`messages` with earlier calls and their results as plain text, which any template can hold."""
    if not any(message.calls or message.answers for message in messages):
        return messages
    names = {call["id"]: call["function"]["name"] for m in messages for call in m.calls}
    return [_render_tool_message(message, names) for message in messages]


def _render_tool_message(message: Message, names: Mapping[str, str]) -> Message:
    if message.calls:
        calls = [
            f'{{"name": {json.dumps(f["name"])}, "arguments": {f["arguments"]}}}'
            for f in (call["function"] for call in message.calls)
        ]
        return replace(message, text="\n".join(filter(None, [message.text, *calls])))
    if message.answers:
        name = names.get(message.answers, "The function")
        return replace(message, text=f"{name} returned: {message.text}")
    return message


def _build_call_rules(number: int, function: Mapping[str, Any]) -> list[str]:
    """The grammar of a call of `function`.

    Arguments that it does not name are not allowed, unless its schema says otherwise. The schema gets
    a rule of its own, since it may refer to its own parts ("#/$defs/...").
    """
    parameters = function.get("parameters") or {"additionalProperties": True}
    arguments = {"type": "object", "additionalProperties": False, **parameters}
    head = json.dumps(f'{{"name":"{function["name"]}","arguments":')
    return [
        f'call_{number}: {head} arguments_{number} "}}"',
        f"arguments_{number}: {json_grammar.build_json_rule(arguments)}",
    ]


def _build_function_call(name: str, arguments: Any) -> dict[str, Any]:
    text = json.dumps(arguments, ensure_ascii=False)
    return {"type": "function", "function": {"name": name, "arguments": text}}
