"""ModelScope-Agent rows as ReAct turns: Thought, Action, Response, Final Answer.

The wording of the system text is the format's own, as XTuner writes it. What a tool returned
becomes the system text of the next turn. A row whose calls cannot be read is left out (an empty
list), as in XTuner.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from elysia.core.errors import DataError
from elysia.core.messages import Message
from elysia.data.values import object_at, reply_at, text_at

_THINK = re.compile(r"(.*?)<\|startofthink\|>(.*?)<\|endofthink\|>", re.DOTALL)
_EXEC = re.compile(r"<\|startofexec\|>(.*?)<\|endofexec\|>(.*?)$", re.DOTALL)
_EXEC_START = "<|startofexec|>"
_FINAL = "Final Answer:"

_HEAD = "你是一个可以调用外部工具的助手，可以使用的工具包括：\n"
_RULES = (
    "如果使用工具请遵循以下格式回复：\n```\n"
    "Thought:思考你当前步骤需要解决什么问题，是否需要使用工具\n"
    "Action:工具名称，你的工具必须从 [{names}] 选择\n"
    "Action Input:工具输入参数\n```\n工具返回按照以下格式回复：\n```\n"
    "Response:调用工具后的结果\n```\n如果你已经知道了答案，或者你不需要工具，"
    "请遵循以下格式回复\n```\n"
    "Thought:给出最终答案的思考过程\n"
    "Final Answer:最终答案\n```\n开始!\n"
)


def msagent_react(row: Mapping[str, Any]) -> list[Message]:
    r"""The turns of one row; [] for a row without a talk or with a call that is not JSON.

    >>> talk = [{"from": "user", "value": "hi"}, {"from": "assistant", "value": "hello"}]
    >>> [m.text for m in msagent_react({"conversations": talk})]
    ['hi\n', 'Final Answer:hello\n']
    """
    said = _talk(row)
    messages: list[Message] = []
    system = asked = ""
    for number, item in enumerate(said if len(said) > 1 else [], start=1):
        where = f"conversations[{number}]"
        message = object_at(item, where)
        speaker = text_at(message, "from", where)
        if speaker == "system":
            system += _tools(text_at(message, "value", where))
        elif speaker == "user":
            asked += text_at(message, "value", where) + "\n"
        elif speaker == "assistant":
            try:
                reply, result = _reply(reply_at(message, "value", where))
            except (ValueError, KeyError, TypeError):
                return []
            messages += _turn(system, asked, reply)
            messages += _after(result) if result else []
            system = asked = ""
    return messages


def _talk(row: Mapping[str, Any]) -> list[Any]:
    talk = row.get("conversations")
    if isinstance(talk, str):  # the published data holds Python's repr of a list
        try:
            talk = ast.literal_eval(talk)
        except (ValueError, SyntaxError):
            raise DataError("'conversations' is a text that does not spell a list.") from None
    if not isinstance(talk, list):
        raise DataError("the key 'conversations' must hold a list of messages.")
    return talk


def _turn(system: str, asked: str, reply: str) -> list[Message]:
    head = [Message("system", system)] if system else []
    question = [Message("user", asked)] if asked else []
    return [*head, *question, Message("assistant", reply)]


def _reply(text: str) -> tuple[str, str]:
    """(the reply as ReAct writes it, the raw tool result that follows it or "")."""
    if text.count(_EXEC_START) > 1:
        raise ValueError("two tool results in one message")
    text, start, result = text.partition(_EXEC_START)
    reply, thoughts = _THINK.subn(_thought, text)
    return (f"{reply}\n" if thoughts else f"{_FINAL}{reply}\n"), start + result


def _thought(match: re.Match[str]) -> str:
    thought = f"Thought:{match[1].strip()}\n" if match[1].strip() else ""
    call = _fenced_json(match[2])
    return f"{thought}Action:{call['api_name']}\nAction Input:{call['parameters']}\n"


def _after(result: str) -> list[Message]:
    """The turn that answers from a tool's result, if it is readable and an answer follows it."""
    try:
        text = _EXEC.sub(_response, result)
    except (ValueError, KeyError, TypeError):
        return []
    if text.count(_FINAL) != 1:
        return []
    response, _, answer = text.partition(_FINAL)
    return _turn(response, "", _FINAL + answer)


def _response(match: re.Match[str]) -> str:
    answer = f"{_FINAL}{match[2].strip()}\n" if match[2].strip() else ""
    return f"Response:{_fenced_json(match[1])}\n{answer}"


def _fenced_json(text: str) -> Any:
    return json.loads(text.replace("```JSON", "").replace("```", "").replace("\n", ""))


def _tools(text: str) -> str:
    described: dict[str, str] = {}
    for tool in _json_objects(text):
        name = tool["name"]
        described[name] = tool["description"]
        try:
            inputs = {one["name"]: one["description"] for one in tool["paths"][0]["parameters"]}
        except (KeyError, IndexError, TypeError):
            continue
        described[name] += f"\n输入参数: {inputs}"
    return f"{_HEAD}{described}\n" + _RULES.replace("{names}", str(list(described)))


def _json_objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text that describe a tool."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        try:
            found, length = decoder.raw_decode(text[at:])
        except ValueError:
            found, length = {}, 1
        if "name" in found and "description" in found:
            yield found
        else:
            length = 1
        at = text.find("{", at + length)
