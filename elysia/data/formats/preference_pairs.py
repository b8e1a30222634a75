"""The preference formats by name: pure functions from a row to two conversations.

A pair is (the conversation with the chosen reply, the one with the rejected reply). They differ in
this last reply, which alone is learned; earlier replies are context. None leaves the row out. A
DataError names the key; conversion.py adds file and row. To add a format: a function with a doctest,
and its line in `PREFERENCES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from elysia.core.errors import DataError
from elysia.core.messages import Message
from elysia.data.formats.fields import (
    has_value,
    iter_objects,
    require_object,
    require_reply,
    require_text,
)
from elysia.data.formats.multi_turn import parse_role

Row = Mapping[str, Any]
PreferencePair = tuple[list[Message], list[Message]]
PreferenceFormat = Callable[[Row], PreferencePair | None]
REPLY_KEYS = ("chosen", "rejected")


def preference(row: Row) -> PreferencePair:
    """`prompt`, `chosen`, `rejected`, and optionally `system`.

    The prompt is a text or a list of messages (`role`, `content`); so are the replies, whose list may
    repeat the prompt before the reply.

    >>> [talk[-1].text for talk in preference({"prompt": "q", "chosen": "a", "rejected": "b"})]
    ['a', 'b']
    >>> chosen = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    >>> rejected = [chosen[0], {"role": "assistant", "content": "b"}]
    >>> [m.text for m in preference({"chosen": chosen, "rejected": rejected})[1]]
    ['q', 'b']
    """
    before = _prompt(row)
    talks = []
    for key in REPLY_KEYS:
        if isinstance(row.get(key), list):
            talk = _talk(row, key)
            talks.append((talk[:-1] or before, talk[-1].text))
        else:
            talks.append((before, require_reply(row, key)))
    if talks[0][0] != talks[1][0]:
        raise DataError("data.pair_different_prompts")
    return _pair(talks[0][0], talks[0][1], talks[1][1], "prompt")


def preference_alpaca(row: Row) -> PreferencePair:
    r"""Alpaca's `instruction` and `input`, with `chosen` and `rejected` for `output`.

    >>> preference_alpaca({"instruction": "i", "input": "x", "chosen": "a", "rejected": "b"})[0][0].text
    'i\nx'
    """
    question = "\n".join(
        filter(None, (require_text(row, "instruction"), require_text(row, "input", optional=True)))
    )
    before = [*_system(row), Message("user", question)]
    good, bad = (require_reply(row, key) for key in REPLY_KEYS)
    return _pair(before, good, bad, "instruction")


def preference_sharegpt(row: Row) -> PreferencePair:
    """`conversations` that end with a question; `chosen` and `rejected` are one message each.

    >>> talk = [{"from": "system", "value": "S"}, {"from": "human", "value": "q"}]
    >>> good, bad = {"from": "gpt", "value": "a"}, {"from": "gpt", "value": "b"}
    >>> row = {"conversations": talk, "chosen": good, "rejected": bad}
    >>> [m.role for m in preference_sharegpt(row)[0]]
    ['system', 'user', 'assistant']
    """
    before = [*_system(row), *_messages(row, "conversations")]
    return _pair(before, _reply(row, "chosen"), _reply(row, "rejected"), "conversations")


def orpo_dpo_mix_40k(row: Row) -> PreferencePair | None:
    """Two conversations, `chosen` and `rejected`, as XTuner's map function of that name reads them:
    the messages before the replies are those of `chosen`.

    >>> ask, good = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    >>> row = {"prompt": "-", "chosen": [ask, good], "rejected": [ask, good | {"content": "b"}]}
    >>> [m.text for m in orpo_dpo_mix_40k(row)[1]]
    ['q', 'b']
    >>> orpo_dpo_mix_40k(row | {"rejected": row["chosen"]})
    """
    chosen, rejected = (_talk(row, key) for key in REPLY_KEYS)
    if chosen[-1].text == rejected[-1].text:
        return None  # not an error: users cannot take a row out of a hub's dataset
    return _pair(chosen[:-1], chosen[-1].text, rejected[-1].text, "chosen")


def intel_orca_dpo(row: Row) -> PreferencePair | None:
    """`system`, `question`, `chosen`, `rejected`, as XTuner's map function of that name reads them.

    >>> [m.role for m in intel_orca_dpo({"system": "S", "question": "q", "chosen": "a", "rejected": "b"})[0]]
    ['system', 'user', 'assistant']
    """
    before = [*_system(row), Message("user", require_text(row, "question"))]
    good, bad = (require_reply(row, key) for key in REPLY_KEYS)
    return None if good == bad else _pair(before, good, bad, "question")


def _talk(row: Row, key: str) -> list[Message]:
    """The messages at `key`, which end with a reply."""
    if not has_value(row, key):
        require_text(row, key)  # raises: it is missing, or null
    messages = _messages(row, key)
    if messages[-1].role != "assistant":
        raise DataError("data.talk_without_reply", key=key)
    return messages


def _reply(row: Row, key: str) -> str:
    """The text of the one message at `key`."""
    if not has_value(row, key):
        require_text(row, key)  # raises: it is missing, or null
    message = require_object(row[key], key)
    return require_reply(message, "value" if "value" in message else "content", key)


def _prompt(row: Row) -> list[Message]:
    """The messages before the replies, as far as `prompt` holds them."""
    if isinstance(row.get("prompt"), list):
        return [*_system(row), *_messages(row, "prompt")]
    if has_value(row, "prompt") or not isinstance(row.get("chosen"), list):
        return [*_system(row), Message("user", require_text(row, "prompt"))]
    return []


def _system(row: Row) -> list[Message]:
    text = require_text(row, "system", optional=True)
    return [Message("system", text)] if text else []


def _messages(row: Row, key: str) -> list[Message]:
    """The messages of a list, in either spelling (`from` and `value`, `role` and `content`)."""
    messages = []
    for where, message in iter_objects(row, key):
        speaker, words = ("from", "value") if "from" in message else ("role", "content")
        role = parse_role(require_text(message, speaker, where), where)
        read = require_reply if role == "assistant" else require_text
        messages.append(Message(role, read(message, words, where)))
    return messages


def _pair(before: list[Message], chosen: str, rejected: str, key: str) -> PreferencePair:
    if not before or before[-1].role not in ("user", "tool"):
        raise DataError("data.pair_without_question", key=key)
    if chosen == rejected:
        raise DataError("data.pair_equal_replies")
    context = [Message(m.role, m.text, learn=False) if m.role == "assistant" else m for m in before]
    good, bad = ([*context, Message("assistant", text)] for text in (chosen, rejected))
    return good, bad


PREFERENCES: dict[str, PreferenceFormat] = {
    "preference": preference,
    "preference_alpaca": preference_alpaca,
    "preference_sharegpt": preference_sharegpt,
    "orpo_dpo_mix_40k": orpo_dpo_mix_40k,
    "intel_orca_dpo": intel_orca_dpo,
}


def detect_pair_format(row: Row) -> str | None:
    """The preference format whose keys a row has, or None when it holds no pair.

    >>> detect_pair_format({"conversations": [], "chosen": {}, "rejected": {}})
    'preference_sharegpt'
    """
    if not any(key in row for key in REPLY_KEYS):
        return None
    if "conversations" in row:
        return "preference_sharegpt"
    return "preference_alpaca" if "instruction" in row else "preference"
