"""From a conversation to text: one pass says which text is learned and where a chat prompt ends.

`render` gives training text and `prompt_pieces` the chat prompt; both come from one function, so
a prompt is always a prefix of the text that was trained on. What people wrote is data: it is put
in by position, braces pass through as they are, and each piece says which part of it is markup
and which part is content (so that a typed `<|im_end|>` can be kept from becoming a control
token). Knows nothing of token ids (data/tokenize.py).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from elysia.core.errors import TemplateError
from elysia.core.messages import Conversation, Message
from elysia.core.template_fit import fitting
from elysia.core.template_table import (
    SYSTEM_TEMPLATES,
    TEMPLATES,
    PromptTemplate,
    get_template,
)

__all__ = [
    "SYSTEM_TEMPLATES",
    "TEMPLATES",
    "Piece",
    "PromptTemplate",
    "all_stop_words",
    "fitting",
    "get_template",
    "is_document",
    "prompt",
    "prompt_pieces",
    "render",
]


class Piece(NamedTuple):
    """A run of text that is encoded as one, and whether it is learned.

    `special` pieces stand for the tokenizer's bos or eos token and have text "". `content` are
    the (start, end) spans of `text`, in characters, that people wrote; the rest is the template's
    markup. A tuple, since millions are made and looked up by what they hold.
    """

    text: str
    learn: bool
    special: Literal["bos", "eos"] | None = None
    content: tuple[tuple[int, int], ...] = ()


_BOS = Piece("", False, "bos")


class _Turn(NamedTuple):
    """What comes before one reply, and the reply (None while it is awaited)."""

    system: str | None
    input: str
    reply: Message | None


def render(conversation: Conversation, template: PromptTemplate) -> list[Piece]:
    """The training text: bos, prompt, learned reply, eos and separator, turn by turn.

    A reply without a message before it (or right after another reply) answers an empty input. A
    conversation of one assistant message and nothing else is a document (`is_document`): its text
    is learned as it is, without any template. Messages after the last reply are rendered,
    unlearned, as in a prompt.
    """
    if is_document(conversation):
        return _document(conversation[0])
    return _pieces(_turns(conversation), template)


def prompt_pieces(conversation: Conversation, template: PromptTemplate) -> list[Piece]:
    """The chat prompt: ends where the assistant's reply begins. TemplateError when the last
    message is a reply.
    """
    if conversation and conversation[-1].role == "assistant":
        raise TemplateError(
            "The last message is already the assistant's reply, so there is nothing to answer; "
            "end the conversation with a user's message."
        )
    turns = _turns(conversation)
    if not turns or turns[-1].reply is not None:
        turns.append(_Turn(None, "", None))
    return _pieces(turns, template)


def prompt(conversation: Conversation, template: PromptTemplate) -> str:
    """The chat prompt as text, without the bos and eos tokens that `prompt_pieces` marks."""
    return "".join(piece.text for piece in prompt_pieces(conversation, template))


def is_document(conversation: Conversation) -> bool:
    """Whether this is plain text to learn whole (pretraining): one assistant message alone."""
    return len(conversation) == 1 and conversation[0].role == "assistant"


def all_stop_words(template: PromptTemplate) -> tuple[str, ...]:
    """Texts that end a reply: the template's stop words, and its suffix where they lack it.

    >>> all_stop_words(get_template("internlm2_chat"))
    ('<|im_end|>',)
    """
    words = [*template.stop_words, template.suffix]
    return tuple(dict.fromkeys(word for word in words if word))


def _document(message: Message) -> list[Piece]:
    learn = message.learned
    return [
        _BOS,
        Piece(message.text, learn, content=((0, len(message.text)),)),
        Piece("", learn, "eos"),
    ]


def _turns(conversation: Conversation) -> list[_Turn]:
    """Groups messages into turns; several system or input messages of one turn join by newline."""
    turns: list[_Turn] = []
    system: list[str] = []
    inputs: list[str] = []
    for message in conversation:
        role = message.role
        if role == "assistant":
            turns.append(_Turn("\n".join(system) or None, "\n".join(inputs), message))
            system, inputs = [], []
        elif message.learned:
            raise TemplateError(f"A {role} message is marked to be learned; only replies can be.")
        elif role == "system":
            system.append(message.text)
        else:  # what a tool returned reaches the model the way a user's words do
            inputs.append(message.text)
    if system or inputs:
        turns.append(_Turn("\n".join(system) or None, "\n".join(inputs), None))
    return turns


def _pieces(turns: list[_Turn], template: PromptTemplate) -> list[Piece]:
    pieces: list[Piece] = []
    needs_bos = True
    asked = _plan(template.instruction)
    opened = _plan(template.system) + asked
    for number, (system, input, reply) in enumerate(turns, start=1):
        if needs_bos:
            pieces.append(_BOS)
        values = {"system": system or "", "input": input, "round": str(number)}
        pieces.append(_fill(asked if system is None else opened, values))
        if reply is None:
            break
        learn, text = reply.learned, reply.text
        pieces.append(Piece(text + template.suffix, learn, None, ((0, len(text)),)))
        if not template.suffix_as_eos:
            pieces.append(Piece("", learn, "eos"))
        # After an eos the next turn is a new sequence to the model, so it gets its own bos.
        needs_bos = not template.suffix_as_eos
        if template.sep:
            pieces.append(Piece(template.sep, False))
    return pieces


def _fill(plan: tuple[tuple[str, str], ...], values: dict[str, str]) -> Piece:
    """One unlearned piece from markup and fields, with the spans of people's words."""
    text, spans = "", []
    for markup, field in plan:
        text += markup
        if field:
            before = len(text)
            text += values[field]
            if field != "round":
                spans.append((before, len(text)))
    return Piece(text, False, None, tuple(spans))


@lru_cache(maxsize=256)
def _plan(pattern: str) -> tuple[tuple[str, str], ...]:
    """Splits "a{input}b" into (markup, the field behind it): ("a", "input"), ("b", "")."""
    parts = [*re.split(r"\{(system|input|round)\}", pattern), ""]
    return tuple(zip(parts[::2], parts[1::2], strict=True))
