"""The dataset formats by name: XTuner's 20, `xtuner` and `sharegpt`. Formats of one turn are defined here.

A format is a pure function from a row to messages. It gives the same turns as XTuner's map function
of that name, and refuses what that lets through: a missing key, an empty reply, a replacement
character. Its DataError names the key; conversion.py adds file and row. An empty list means that the
format leaves this row out. To add one: a function with a doctest, and its line in `FORMATS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from elysia.core.errors import DataError
from elysia.core.messages import Message
from elysia.core.templates import SYSTEM_TEMPLATES
from elysia.data.formats.fields import has_value, iter_objects, require_reply, require_text
from elysia.data.formats.multi_turn import (
    llava,
    llava_image_only,
    msagent_react,
    openai,
    sharegpt,
    wizardlm,
)

Row = Mapping[str, Any]
Format = Callable[[Row], list[Message]]


def _turn(user: str, reply: str, system: str = "", *, learn: bool | None = None) -> list[Message]:
    head = [Message("system", system)] if system else []
    return [*head, Message("user", user), Message("assistant", reply, learn=learn)]


def _single(user: str, reply: str, system: str = "") -> Format:
    """A format of one turn: the keys of question and reply, and the name of a system template."""

    def single(row: Row) -> list[Message]:
        return _turn(
            require_text(row, user), require_reply(row, reply), SYSTEM_TEMPLATES.get(system, "")
        )

    return single


def xtuner(row: Row) -> list[Message]:
    """XTuner's own shape: turns of `input`, `output` and, where there is one, `system`.

    >>> xtuner({"conversation": [{"system": "S", "input": "a", "output": "b"}]})[0].text
    'S'
    >>> [m.learned for m in xtuner({"conversation": [{"output": "b", "output_with_loss": False}]})]
    [False, False]
    """
    messages: list[Message] = []
    for where, turn in iter_objects(row, "conversation"):
        learn = turn.get("output_with_loss", True)
        if not isinstance(learn, bool):
            raise DataError(
                "data.value_not_boolean", key=f"{where}.output_with_loss", value=repr(learn)
            )
        messages += _turn(
            require_text(turn, "input", where, optional=True),
            require_reply(turn, "output", where),
            require_text(turn, "system", where, optional=True),
            learn=None if learn else False,
        )
    return messages


def alpaca(row: Row) -> list[Message]:
    r"""Alpaca: `instruction`, `input`, `output`; rows marked `<nooutput>` are left out.

    The question is "instruction\ninput" even where the input is empty, as in XTuner.

    >>> alpaca({"instruction": "Add.", "input": "1, 2", "output": "3"})[0].text
    'Add.\n1, 2'
    >>> alpaca({"instruction": "Add.", "input": "", "output": "<nooutput>"})
    []
    """
    if row.get("output") == "<nooutput>":
        return []
    return _turn(_instruction(row), require_reply(row, "output"))


def alpaca_zh(row: Row) -> list[Message]:
    r"""Alpaca in Chinese: the same three keys with `_zh`.

    >>> alpaca_zh({"instruction_zh": "加", "input_zh": "1, 2", "output_zh": "3"})[0].text
    '加\n1, 2'
    """
    return _turn(_instruction(row, "_zh"), require_reply(row, "output_zh"))


def medical(row: Row) -> list[Message]:
    r"""Alpaca's keys, answered by a doctor.

    >>> [m.role for m in medical({"instruction": "i", "input": "j", "output": "o"})]
    ['system', 'user', 'assistant']
    """
    return _turn(_instruction(row), require_reply(row, "output"), SYSTEM_TEMPLATES["medical"])


def _instruction(row: Row, ending: str = "") -> str:
    extra = require_text(row, f"input{ending}", optional=True)
    return f"{require_text(row, f'instruction{ending}')}\n{extra}"


def colors(row: Row) -> list[Message]:
    """`description` ("name: what it is like") and `color`.

    >>> [m.text for m in colors({"description": "Sea: deep: blue ", "color": "#000080"})][1:]
    ['deep: blue', '#000080']
    """
    described = require_text(row, "description").partition(":")[2].strip()
    return _turn(described, require_reply(row, "color"), SYSTEM_TEMPLATES["colorist"])


def sql(row: Row) -> list[Message]:
    r"""`context` (CREATE TABLE …), `question` and `answer`.

    >>> sql({"context": "CREATE TABLE t", "question": "all?", "answer": "SELECT"})[1].text
    'CREATE TABLE t\nall?'
    """
    question = f"{require_text(row, 'context')}\n{require_text(row, 'question')}"
    return _turn(question, require_reply(row, "answer"), SYSTEM_TEMPLATES["sql"])


def openorca(row: Row) -> list[Message]:
    """`system_prompt` (may be empty), `question`, `response`.

    >>> [m.text for m in openorca({"system_prompt": "", "question": "q", "response": "r"})]
    ['q', 'r']
    """
    system = require_text(row, "system_prompt", optional=True)
    return _turn(require_text(row, "question"), require_reply(row, "response"), system)


def pretrain(row: Row) -> list[Message]:
    """Plain `text`, all of it learned: a single assistant message, rendered without a template.

    >>> pretrain({"text": " 从前有座山。 "})
    [Message(role='assistant', text='从前有座山。', name=None, images=(), learn=None)]
    """
    return [Message("assistant", require_reply(row, "text").strip())]


def oasst1(row: Row) -> list[Message]:
    """One `text` of "### Human: … ### Assistant: …"; a last question without an answer is left out.

    >>> oasst1({"text": "### Human: a ### Assistant: b ### Human: c"})[-1].text
    'b'
    """
    messages: list[Message] = []
    for part in require_text(row, "text").split("###"):
        for mark, role in (("Human:", "user"), ("Assistant:", "assistant")):
            if part.strip().startswith(mark):
                messages.append(Message(role, part.strip()[len(mark) :].strip()))
    for index, message in enumerate(messages):
        if message.role != ("assistant" if index % 2 else "user"):
            raise DataError("data.oasst_turns")
        if message.role == "assistant" and not message.text:
            raise DataError("data.oasst_empty_answer", part=index + 1)
    if not messages:
        raise DataError("data.oasst_no_question")
    return messages[: len(messages) // 2 * 2]


FORMATS: dict[str, Format] = {
    "alpaca": alpaca,
    "alpaca_zh": alpaca_zh,
    "arxiv": _single("abstract", "title", "arxiv_gentile"),
    "code_alpaca": _single("prompt", "completion", "coder"),
    "colors": colors,
    "crime_kg_assitan": _single("input", "output", "lawyer"),  # spelt so in XTuner
    "crime_kg_assitant": _single("input", "output", "lawyer"),  # and so in its map functions
    "default": _single("input", "output"),
    "law_reference": _single("question", "answer", "lawyer"),
    "llava": llava,
    "llava_image_only": llava_image_only,
    "medical": medical,
    "msagent_react": msagent_react,
    "oasst1": oasst1,
    "openai": openai,
    "openorca": openorca,
    "pretrain": pretrain,
    "sharegpt": sharegpt,
    "sql": sql,
    "stack_exchange": _single("question", "response"),
    "tiny_codes": _single("prompt", "response", "coder"),
    "wizardlm": wizardlm,
    "xtuner": xtuner,
}

# Tried in order; the first whose keys are all present wins, so more keys come before fewer.
_KEYS_BY_FORMAT: tuple[tuple[tuple[str, ...], str], ...] = (
    (("conversation",), "xtuner"),
    (("messages",), "openai"),
    (("conversations", "image"), "llava"),
    (("conversations",), "sharegpt"),
    (("instruction", "output"), "alpaca"),
    (("instruction_zh", "output_zh"), "alpaca_zh"),
    (("abstract", "title"), "arxiv"),
    (("prompt", "completion"), "code_alpaca"),
    (("prompt", "response"), "tiny_codes"),
    (("description", "color"), "colors"),
    (("context", "question", "answer"), "sql"),
    (("question", "answer"), "law_reference"),
    (("system_prompt", "question", "response"), "openorca"),
    (("question", "response"), "stack_exchange"),
    (("input", "output"), "default"),
    (("text",), "pretrain"),
)

# Formats that read the same keys, so that a row cannot tell them apart.
_SHARED_KEYS = (
    {"sharegpt", "wizardlm", "llava", "llava_image_only", "msagent_react"},
    {"alpaca", "medical"},
    {"default", "crime_kg_assitan", "crime_kg_assitant"},
    {"pretrain", "oasst1"},
)


def detect_format(row: Row) -> str | None:
    """The format whose keys a row has, or None.

    >>> detect_format({"instruction": "a", "input": "", "output": "b"})
    'alpaca'
    """
    if any(key in row for key in ("chosen", "rejected")):
        return None  # preference pairs: see preference_pairs.py
    for keys, name in _KEYS_BY_FORMAT:
        if all(has_value(row, key) for key in keys):
            if name == "pretrain" and re.search(r"###\s*Human:", str(row["text"])):
                return "oasst1"
            return name
    return None


def is_same_shape(format: str, other: str) -> bool:
    """Whether two formats read the same keys, so that a row cannot tell them apart."""
    return format == other or any({format, other} <= shared for shared in _SHARED_KEYS)
