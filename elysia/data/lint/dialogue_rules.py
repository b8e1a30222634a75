"""Rules for a row as a dialogue: the order of speakers, empty texts, another assistant's identity."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from elysia.core.identity_claims import find_claimed_assistant
from elysia.data.lint.text_fields import OPTIONAL_KEYS, TextField, get_refusal

RuleHit = tuple[str, str, str]  # rule, path of the text in the row, what is wrong
MESSAGE_KEYS = ("messages", "conversations")
# Words that only an AI assistant uses of itself, whatever name it gives.
GIVEN_AWAY = re.compile(
    r"\bas an? (?:AI|artificial intelligence)(?: language)? (?:model|assistant|chatbot)\b"
    r"|\bas a (?:large )?language model\b|\bI(?:'m| am) (?:just |only )?an? (?:AI|large) language model\b"
    r"|作为(?:一[个名款位种])?(?:由\w{2,12}(?:开发|训练|研发)的)?(?:大型?|AI|人工智能)?(?:语言模型|人工智能|AI)(?:模型|助手|程序)?"
    r"|我(?:只|仅)?是(?:一[个款种名])?(?:大型?|AI|人工智能)?语言模型",
    re.I,
)
CLAIMS = (
    "我是",
    "我叫",
    "我的名字",
    "i am",
    "i'm",
    "i’m",
    "my name is",
    "call me",
    "我就是",
    "我其实",
)


def find_faults(
    row: Mapping[str, Any],
    format: str,
    parts: Sequence[TextField],
    ours: frozenset[str],
    damaged: bool,
) -> Iterator[RuleHit]:
    """Every fault of a row of a known format; `ours` are names the character may use for itself.

    `damaged`: its texts are reported as broken already, and the format's refusal of them would only
    repeat that.
    """
    empty = list(find_empty_texts(parts))
    order = (
        list(find_order_faults(parts))
        if any(isinstance(row.get(key), list) for key in MESSAGE_KEYS)
        else []
    )
    yield from empty
    yield from order
    if not (empty or order or damaged) and (reason := get_refusal(row, format)):
        yield "schema", "", reason
    replies = [
        part
        for part in parts
        if part.role == "assistant"
        and isinstance(part.text, str)
        and not part.where.startswith("rejected")
    ]
    together = "\n".join(part.text for part in replies)
    if _may_give_away(together) or _may_claim(together):
        for part in replies:
            yield from (
                (rule, part.where, what) for rule, what in find_other_identities(part.text, ours)
            )


def find_empty_texts(parts: Sequence[TextField]) -> Iterator[RuleHit]:
    """Texts that are null, missing or empty where they must not be."""
    for part in parts:
        key = part.where.rsplit(".", 1)[-1]
        if part.role and part.text is None and key not in OPTIONAL_KEYS:
            yield "empty-text", part.where, "is null or missing"
        elif isinstance(part.text, str) and not part.text.strip() and key not in OPTIONAL_KEYS:
            yield "empty-text", part.where, "is empty"


def find_order_faults(parts: Sequence[TextField]) -> Iterator[RuleHit]:
    """Speakers out of turn in a list of messages."""
    before = ""
    for place, part in enumerate(part for part in parts if part.where.startswith(MESSAGE_KEYS)):
        if part.role == "":
            return  # the format refuses the row and names the speaker
        if part.role == "system" and place > 0:
            yield "role-order", part.where, "a system message after others"
        elif part.role == "assistant" and before in ("", "system"):
            yield "role-order", part.where, "a reply before any question"
        elif part.role == before and part.role in ("user", "assistant"):
            yield "role-order", part.where, f"two messages of the {part.role} in a row"
        before = part.role
    is_pair = any(part.where.startswith(("chosen", "rejected")) for part in parts)
    if before == "user" and not is_pair:
        yield "role-order", "", "the talk ends with a question"


def find_other_identities(reply: str, ours: frozenset[str]) -> Iterator[tuple[str, str]]:
    """(rule, what) for each way in which a reply speaks as another assistant."""
    if _may_give_away(reply) and (match := GIVEN_AWAY.search(reply)):
        yield "other-assistant", f"speaks as an assistant: “{match.group()}”"
    elif _may_claim(reply) and (name := find_claimed_assistant(reply, ours)):
        yield "other-assistant", f"says that it is {name}"


def _may_give_away(text: str) -> bool:
    return any(word in text for word in ("odel", "assistant", "模型", "智能", "AI"))


def _may_claim(text: str) -> bool:
    low = text.lower()
    return any(words in low for words in CLAIMS)
