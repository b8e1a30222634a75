"""Dataset formats of several turns: lists of messages (openai, sharegpt, wizardlm, llava) and the ReAct
turns of ModelScope-Agent (msagent_react).

Each is a pure function from a row to messages; registry.py gives them their names.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import dropwhile
from typing import Any

from elysia.core.errors import DataError, nearest
from elysia.core.messages import Message
from elysia.data.formats.fields import iter_objects, require_object, require_reply, require_text

Row = Mapping[str, Any]

IMAGE = "<image>"  # the place of an image in a text, as in LLaVA's data


def openai(row: Row) -> list[Message]:
    """`messages` of `role` and `content`, and `loss` (false makes a reply context).

    As in XTuner, replies at the very start are left out, and so is a last question
    without a reply; questions in a row are joined. `content` may be a list of text parts;
    `loss_weight` 0 means no loss.

    >>> ask = {"role": "user", "content": "a"}
    >>> reply = {"role": "assistant", "content": "b", "loss": False}
    >>> [(m.role, m.text, m.learned) for m in openai({"messages": [ask, reply]})]
    [('user', 'a', False), ('assistant', 'b', False)]
    """
    messages: list[Message] = []
    for where, message in iter_objects(row, "messages"):
        role = parse_role(require_text(message, "role", where), where)
        flat = {**message, "content": _flat(message.get("content"), where)}
        read = require_reply if role == "assistant" else require_text
        learned = message.get("loss_weight") != 0
        if role == "assistant":
            learned = learned and str(message.get("loss", True)).lower() == "true"
        learn = None if learned else False
        messages.append(Message(role, read(flat, "content", where), learn=learn))
    return _by_turns(messages)


def sharegpt(row: Row) -> list[Message]:
    """`conversations` of `from` and `value` (or `role`, `content`); `system` beside or among them.

    >>> talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    >>> [m.text for m in sharegpt({"system": "S", "conversations": talk})]
    ['S', 'a', 'b']
    """
    system = require_text(row, "system", optional=True)
    messages: list[Message] = []
    for where, message in iter_objects(row, "conversations"):
        speaker, words = ("from", "value") if "from" in message else ("role", "content")
        role = parse_role(require_text(message, speaker, where), where)
        read = require_reply if role == "assistant" else require_text
        messages.append(Message(role, read(message, words, where)))
    head = [Message("system", system)] if system else []
    return [*head, *_by_turns(messages)]


def wizardlm(row: Row) -> list[Message]:
    """`conversations` between `human` and `gpt`, and nobody else.

    >>> talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    >>> wizardlm({"conversations": talk})[1].text
    'b'
    """
    return _by_turns(list(_human_and_gpt(row)))


def llava(row: Row) -> list[Message]:
    r"""wizardlm's shape with `<image>` in a question, moved to its front; `image` names the file.

    >>> talk = [{"from": "human", "value": "what? <image>"}, {"from": "gpt", "value": "a cat"}]
    >>> llava({"image": "1.png", "conversations": talk})[0]
    Message(role='user', text='<image>\nwhat?', name=None, images=('1.png',), learn=None)
    """
    return _with_image(row, lambda text: f"{IMAGE}\n{text.replace(IMAGE, '').strip()}".strip())


def llava_image_only(row: Row) -> list[Message]:
    """As `llava`, but of a question only the image remains.

    >>> talk = [{"from": "human", "value": "<image> what?"}, {"from": "gpt", "value": "a cat"}]
    >>> llava_image_only({"image": "1.png", "conversations": talk})[0].text
    '<image>'
    """
    for where, message in iter_objects(row, "conversations"):
        if message.get("from") == "human" and IMAGE not in require_text(message, "value", where):
            raise DataError("data.image_mark_missing", key=f"{where}.value", mark=IMAGE)
    return _with_image(row, lambda text: IMAGE)


def _with_image(row: Row, place: Callable[[str], str]) -> list[Message]:
    image = require_text(row, "image", optional=True)
    files = (image,) if image else ()
    messages = [
        Message("user", place(m.text), images=files) if m.role == "user" and IMAGE in m.text else m
        for m in _human_and_gpt(row)
    ]
    return _by_turns(messages)


def _human_and_gpt(row: Row) -> Iterator[Message]:
    for where, message in iter_objects(row, "conversations"):
        speaker = require_text(message, "from", where)
        if speaker == "human":
            yield Message("user", require_text(message, "value", where))
        elif speaker == "gpt":
            yield Message("assistant", require_reply(message, "value", where))
        else:
            raise DataError("data.speaker_not_human_or_gpt", key=f"{where}.from", speaker=speaker)


_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}


def parse_role(speaker: str, where: str) -> str:
    """The role of a speaker as data spells it; DataError, naming `where`, for an unknown one."""
    if speaker.lower() not in _ROLES:
        raise DataError(
            "data.unknown_role",
            key=where,
            speaker=speaker,
            roles=list(_ROLES),
            hint=nearest(speaker, _ROLES),
        )
    return _ROLES[speaker.lower()]


def _by_turns(messages: list[Message]) -> list[Message]:
    """Drop replies at the very start and everything after the last reply; join adjacent questions."""
    messages = list(dropwhile(lambda message: message.role == "assistant", messages))
    while messages and messages[-1].role != "assistant":
        messages.pop()
    if not messages:
        raise DataError("data.no_reply")
    joined: list[Message] = []
    for message in messages:
        before = joined[-1] if joined else None
        if before and before.role == message.role == "user":
            images = before.images + message.images
            joined[-1] = Message("user", before.text + message.text, images=images)
        else:
            joined.append(message)
    return joined


def _flat(content: Any, where: str) -> Any:
    """OpenAI's list of text parts as a single text; anything else unchanged."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            raise DataError("data.part_not_text", key=f"{where}.content", kind=kind)
        texts.append(require_text(part, "text" if "text" in part else "value", f"{where}.content"))
    return "".join(texts)


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
    r"""ModelScope-Agent's rows as ReAct turns: Thought, Action, Response, Final Answer.

    The wording of the system text is XTuner's. What a tool returned becomes the system text of the
    next turn. As in XTuner, a row without a conversation, or with a call that is not JSON, is left
    out (an empty list).

    >>> talk = [{"from": "user", "value": "hi"}, {"from": "assistant", "value": "hello"}]
    >>> [m.text for m in msagent_react({"conversations": talk})]
    ['hi\n', 'Final Answer:hello\n']
    """
    items = _parse_talk(row)
    messages: list[Message] = []
    system = question = ""
    for number, item in enumerate(items if len(items) > 1 else [], start=1):
        where = f"conversations[{number}]"
        message = require_object(item, where)
        speaker = require_text(message, "from", where)
        if speaker == "system":
            system += _describe_tools(require_text(message, "value", where))
        elif speaker == "user":
            question += require_text(message, "value", where) + "\n"
        elif speaker == "assistant":
            try:
                reply, result = _split_reply(require_reply(message, "value", where))
            except (ValueError, KeyError, TypeError):
                return []
            messages += _turn(system, question, reply)
            messages += _answer_from_result(result) if result else []
            system = question = ""
    return messages


def _parse_talk(row: Mapping[str, Any]) -> list[Any]:
    talk = row.get("conversations")
    if isinstance(talk, str):  # the published data holds Python's repr of a list
        try:
            talk = ast.literal_eval(talk)
        except (ValueError, SyntaxError):
            raise DataError("data.conversations_no_list_text") from None
    if not isinstance(talk, list):
        raise DataError("data.conversations_not_list")
    return talk


def _turn(system: str, question: str, reply: str) -> list[Message]:
    head = [Message("system", system)] if system else []
    ask = [Message("user", question)] if question else []
    return [*head, *ask, Message("assistant", reply)]


def _split_reply(text: str) -> tuple[str, str]:
    """(the reply as ReAct writes it, the raw tool result that follows it or "")."""
    if text.count(_EXEC_START) > 1:
        raise ValueError("two tool results in one message")
    text, start, result = text.partition(_EXEC_START)
    reply, thoughts = _THINK.subn(_render_thought, text)
    return (f"{reply}\n" if thoughts else f"{_FINAL}{reply}\n"), start + result


def _render_thought(match: re.Match[str]) -> str:
    thought = f"Thought:{match[1].strip()}\n" if match[1].strip() else ""
    call = _fenced_json(match[2])
    return f"{thought}Action:{call['api_name']}\nAction Input:{call['parameters']}\n"


def _answer_from_result(result: str) -> list[Message]:
    """The turn that answers from a tool's result, if it is readable and an answer follows it."""
    try:
        text = _EXEC.sub(_render_response, result)
    except (ValueError, KeyError, TypeError):
        return []
    if text.count(_FINAL) != 1:
        return []
    response, _, answer = text.partition(_FINAL)
    return _turn(response, "", _FINAL + answer)


def _render_response(match: re.Match[str]) -> str:
    answer = f"{_FINAL}{match[2].strip()}\n" if match[2].strip() else ""
    return f"Response:{_fenced_json(match[1])}\n{answer}"


def _fenced_json(text: str) -> Any:
    return json.loads(text.replace("```JSON", "").replace("```", "").replace("\n", ""))


def _describe_tools(text: str) -> str:
    described: dict[str, str] = {}
    for tool in _json_objects(text):
        name = tool["name"]
        described[name] = tool["description"]
        try:
            parameters = tool["paths"][0]["parameters"]
            inputs = {item["name"]: item["description"] for item in parameters}
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
            value, length = decoder.raw_decode(text[at:])
        except ValueError:
            value, length = {}, 1
        if "name" in value and "description" in value:
            yield value
        else:
            length = 1
        at = text.find("{", at + length)
