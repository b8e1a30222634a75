"""Conversations as turns of a fixed pattern: how the table's prompt templates become text.

`render_turn_training` and `render_turn_prompt` share one function, so that a prompt is always a prefix of the
training text. What people wrote is inserted by position: braces in it stay as they are, and every piece tells
markup from content, so that a typed `<|im_end|>` can be kept from becoming a control token.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol

from elysia.core.errors import TemplateError
from elysia.core.messages import Conversation, Message


class TextPiece(NamedTuple):
    """A run of text that is tokenized as one, and whether it is learned.

    A `special` piece stands for the tokenizer's bos or eos token and has the text "". `content` holds the
    (start, end) spans of `text`, in characters, that people wrote; the rest is the template's markup. A
    named tuple, because millions are created and used as cache keys.
    """

    text: str
    learn: bool
    special: Literal["bos", "eos"] | None = None
    content: tuple[tuple[int, int], ...] = ()


class TurnFormat(Protocol):
    """The patterns of a turn, as `template_table.PromptTemplate` describes them."""

    @property
    def system(self) -> str: ...
    @property
    def instruction(self) -> str: ...
    @property
    def suffix(self) -> str: ...
    @property
    def suffix_as_eos(self) -> bool: ...
    @property
    def sep(self) -> str: ...


_BOS = TextPiece("", False, "bos")


class _PromptTurn(NamedTuple):
    """The system text and input before one reply, and the reply (None at the end of a prompt)."""

    system: str | None
    input: str
    reply: Message | None


def render_turn_training(conversation: Conversation, template: TurnFormat) -> list[list[TextPiece]]:
    """The training text: bos, prompt, learned reply, eos and separator, turn by turn.

    A reply without a message before it (or right after another reply) answers an empty input. Messages
    after the last reply are rendered as in a prompt, without being learned.
    """
    if is_document(conversation):
        return [render_document(conversation[0])]
    return [_render_turns(_group_turns(conversation), template)]


def render_turn_prompt(conversation: Conversation, template: TurnFormat) -> list[TextPiece]:
    """The chat prompt. Raises TemplateError when the last message is a reply."""
    if conversation and conversation[-1].role == "assistant":
        raise TemplateError("core.nothing_to_answer")
    turns = _group_turns(conversation)
    if not turns or turns[-1].reply is not None:
        turns.append(_PromptTurn(None, "", None))
    return _render_turns(turns, template)


def is_document(conversation: Conversation) -> bool:
    """Whether this is plain text to learn as a whole (pretraining): one assistant message alone."""
    return len(conversation) == 1 and conversation[0].role == "assistant"


def render_document(message: Message) -> list[TextPiece]:
    """A plain text to learn as a whole, between the tokenizer's bos and eos."""
    learn = message.learned
    return [
        _BOS,
        TextPiece(message.text, learn, content=((0, len(message.text)),)),
        TextPiece("", learn, "eos"),
    ]


def _group_turns(conversation: Conversation) -> list[_PromptTurn]:
    """The messages grouped into turns; several system or input messages of a turn are joined by newlines."""
    turns: list[_PromptTurn] = []
    system: list[str] = []
    inputs: list[str] = []
    for message in conversation:
        role = message.role
        if role == "assistant":
            turns.append(_PromptTurn("\n".join(system) or None, "\n".join(inputs), message))
            system, inputs = [], []
        elif message.learned:
            raise TemplateError("core.role_cannot_be_learned", role=role)
        elif role == "system":
            system.append(message.text)
        else:  # user and tool: a template has no markup of its own for what a tool returned
            inputs.append(message.text)
    if system or inputs:
        turns.append(_PromptTurn("\n".join(system) or None, "\n".join(inputs), None))
    return turns


def _render_turns(turns: list[_PromptTurn], template: TurnFormat) -> list[TextPiece]:
    pieces: list[TextPiece] = []
    needs_bos = True
    instruction = _split_pattern(template.instruction)
    with_system = _split_pattern(template.system) + instruction
    for number, (system, input, reply) in enumerate(turns, start=1):
        if needs_bos:
            pieces.append(_BOS)
        values = {"system": system or "", "input": input, "round": str(number)}
        pieces.append(_fill_pattern(instruction if system is None else with_system, values))
        if reply is None:
            break
        learn, text = reply.learned, reply.text
        pieces.append(TextPiece(text + template.suffix, learn, None, ((0, len(text)),)))
        if not template.suffix_as_eos:
            pieces.append(TextPiece("", learn, "eos"))
        # After an eos token the next turn is a new sequence for the model, so it gets its own bos.
        needs_bos = not template.suffix_as_eos
        if template.sep:
            pieces.append(TextPiece(template.sep, False))
    return pieces


def _fill_pattern(plan: tuple[tuple[str, str], ...], values: dict[str, str]) -> TextPiece:
    """One piece that is not learned, from the markup and fields of `plan`, with its content spans."""
    text, spans = "", []
    for markup, field in plan:
        text += markup
        if field:
            before = len(text)
            text += values[field]
            if field != "round":
                spans.append((before, len(text)))
    return TextPiece(text, False, None, tuple(spans))


@lru_cache(maxsize=256)
def _split_pattern(pattern: str) -> tuple[tuple[str, str], ...]:
    """A pattern as (markup, the field after it): "a{input}b" becomes ("a", "input"), ("b", "")."""
    parts = [*re.split(r"\{(system|input|round)\}", pattern), ""]
    return tuple(zip(parts[::2], parts[1::2], strict=True))
