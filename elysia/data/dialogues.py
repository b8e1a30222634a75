"""Dataset formats of many turns: messages with a speaker (openai, sharegpt, wizardlm, llava).

Each is a pure function from a row to messages; formats.py names them. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import dropwhile
from typing import Any

from elysia.core.errors import DataError, nearest
from elysia.core.messages import Message
from elysia.data.values import objects_at, reply_at, text_at

Row = Mapping[str, Any]

IMAGE = "<image>"  # where an image stands in a text, as LLaVA's data writes it


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
    said: list[Message] = []
    for where, message in objects_at(row, "messages"):
        role = role_of(text_at(message, "role", where), where)
        flat = {**message, "content": _flat(message.get("content"), where)}
        read = reply_at if role == "assistant" else text_at
        learned = message.get("loss_weight") != 0
        if role == "assistant":
            learned = learned and str(message.get("loss", True)).lower() == "true"
        said.append(Message(role, read(flat, "content", where), learn=None if learned else False))
    return _by_turns(said)


def sharegpt(row: Row) -> list[Message]:
    """`conversations` of `from` and `value` (or `role`, `content`); `system` beside or among them.

    >>> talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    >>> [m.text for m in sharegpt({"system": "S", "conversations": talk})]
    ['S', 'a', 'b']
    """
    system = text_at(row, "system", optional=True)
    said: list[Message] = []
    for where, message in objects_at(row, "conversations"):
        speaker, words = ("from", "value") if "from" in message else ("role", "content")
        role = role_of(text_at(message, speaker, where), where)
        read = reply_at if role == "assistant" else text_at
        said.append(Message(role, read(message, words, where)))
    head = [Message("system", system)] if system else []
    return [*head, *_by_turns(said)]


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
    """llava, of whose questions only the image is kept.

    >>> talk = [{"from": "human", "value": "<image> what?"}, {"from": "gpt", "value": "a cat"}]
    >>> llava_image_only({"image": "1.png", "conversations": talk})[0].text
    '<image>'
    """
    for where, message in objects_at(row, "conversations"):
        if message.get("from") == "human" and IMAGE not in text_at(message, "value", where):
            raise DataError(f"'{where}.value' must hold {IMAGE}.")
    return _with_image(row, lambda text: IMAGE)


def _with_image(row: Row, place: Callable[[str], str]) -> list[Message]:
    image = text_at(row, "image", optional=True)
    files = (image,) if image else ()
    said = [
        Message("user", place(m.text), images=files) if m.role == "user" and IMAGE in m.text else m
        for m in _human_and_gpt(row)
    ]
    return _by_turns(said)


def _human_and_gpt(row: Row) -> Iterator[Message]:
    for where, message in objects_at(row, "conversations"):
        speaker = text_at(message, "from", where)
        if speaker == "human":
            yield Message("user", text_at(message, "value", where))
        elif speaker == "gpt":
            yield Message("assistant", reply_at(message, "value", where))
        else:
            raise DataError(f"'{where}.from' must be 'human' or 'gpt', not '{speaker}'.")


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


def role_of(speaker: str, where: str) -> str:
    """The role of a speaker as data spells it; DataError, naming `where`, for an unknown one."""
    if speaker.lower() not in _ROLES:
        raise DataError(
            f"'{where}' is said by '{speaker}', and a role is one of {', '.join(_ROLES)}."
            f"{nearest(speaker, _ROLES)}"
        )
    return _ROLES[speaker.lower()]


def _by_turns(said: list[Message]) -> list[Message]:
    """Drops replies at the very start and all after the last; joins questions in a row."""
    kept = list(dropwhile(lambda message: message.role == "assistant", said))
    while kept and kept[-1].role != "assistant":
        kept.pop()
    if not kept:
        raise DataError("there is no reply after a question in it.")
    joined: list[Message] = []
    for message in kept:
        before = joined[-1] if joined else None
        if before and before.role == message.role == "user":
            images = before.images + message.images
            joined[-1] = Message("user", before.text + message.text, images=images)
        else:
            joined.append(message)
    return joined


def _flat(content: Any, where: str) -> Any:
    """OpenAI's list of text parts as one text; anything else as it is."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            raise DataError(f"'{where}.content' holds a part that is not text ({kind}).")
        texts.append(text_at(part, "text" if "text" in part else "value", f"{where}.content"))
    return "".join(texts)
