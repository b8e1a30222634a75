"""Rendering of conversations: which text a model is trained on, what of it is learned, and the chat prompt.

`render_training_pieces` and `render_prompt_pieces` share one function, so that a prompt is always a prefix
of the training text. What people wrote is inserted by position: braces in it stay as they are, and every
piece tells markup from content, so that a typed `<|im_end|>` can be kept from becoming a control token.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from elysia.core.errors import TemplateError
from elysia.core.messages import Conversation, Message
from elysia.core.template_table import SYSTEM_TEMPLATES, TEMPLATES, PromptTemplate, get_template

__all__ = [
    "SYSTEM_TEMPLATES",
    "TEMPLATES",
    "PromptTemplate",
    "TextPiece",
    "get_stop_words",
    "get_template",
    "is_document",
    "render_prompt",
    "render_prompt_pieces",
    "render_training_pieces",
    "suggest_templates",
]


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


_BOS = TextPiece("", False, "bos")


class _PromptTurn(NamedTuple):
    """The system text and input before one reply, and the reply (None at the end of a prompt)."""

    system: str | None
    input: str
    reply: Message | None


def render_training_pieces(conversation: Conversation, template: PromptTemplate) -> list[TextPiece]:
    """The training text: bos, prompt, learned reply, eos and separator, turn by turn.

    A reply without a message before it (or right after another reply) answers an empty input. A
    conversation of one assistant message alone is a document (`is_document`), learned as it is, without a
    template. Messages after the last reply are rendered as in a prompt, without being learned.
    """
    if is_document(conversation):
        return _render_document(conversation[0])
    return _render_turns(_group_turns(conversation), template)


def render_prompt_pieces(conversation: Conversation, template: PromptTemplate) -> list[TextPiece]:
    """The chat prompt, which ends where the assistant's reply begins.

    Raises TemplateError when the last message is a reply.
    """
    if conversation and conversation[-1].role == "assistant":
        raise TemplateError("core.nothing_to_answer")
    turns = _group_turns(conversation)
    if not turns or turns[-1].reply is not None:
        turns.append(_PromptTurn(None, "", None))
    return _render_turns(turns, template)


def render_prompt(conversation: Conversation, template: PromptTemplate) -> str:
    """The chat prompt as text, without the bos and eos tokens that `render_prompt_pieces` marks."""
    return "".join(piece.text for piece in render_prompt_pieces(conversation, template))


def is_document(conversation: Conversation) -> bool:
    """Whether this is plain text to learn as a whole (pretraining): one assistant message alone."""
    return len(conversation) == 1 and conversation[0].role == "assistant"


def get_stop_words(template: PromptTemplate) -> tuple[str, ...]:
    """The texts that end a reply: the template's stop words, and its suffix where it is not among them.

    >>> get_stop_words(get_template("internlm2_chat"))
    ('<|im_end|>',)
    """
    words = [*template.stop_words, template.suffix]
    return tuple(dict.fromkeys(word for word in words if word))


def _render_document(message: Message) -> list[TextPiece]:
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


def _render_turns(turns: list[_PromptTurn], template: PromptTemplate) -> list[TextPiece]:
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


# Searched in order: the first rule decides whose patterns match the model type and the name. Llama models
# come with many formats, so the name must tell; InternLM2 and Qwen models use ChatML whatever their name.
_SUGGESTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (r"internlm[23]", "", ("internlm2_chat",)),
    (r"internlm", "", ("internlm_chat",)),
    (r"qwen", "", ("qwen_chat",)),
    (r"chatglm", r"chatglm2", ("chatglm2",)),
    (r"chatglm", r"chatglm3", ("chatglm3",)),
    (r"baichuan", r"baichuan-?2", ("baichuan2_chat",)),
    (r"baichuan", "", ("baichuan_chat",)),
    (r"gemma", "", ("gemma",)),
    (r"cohere", "", ("cohere_chat",)),
    (r"phi3", "", ("phi3_chat",)),
    (r"minicpm3", "", ("minicpm3",)),
    (r"minicpm", r"minicpm-?3", ("minicpm3",)),
    (r"minicpm", "", ("minicpm",)),
    (r"deepseek_v2", "", ("deepseek_v2",)),
    (r"deepseek", r"moe", ("deepseek_moe",)),
    (r"mixtral", "", ("mixtral", "mistral")),
    (r"mistral", r"zephyr", ("zephyr",)),
    (r"mistral", "", ("mistral", "mixtral")),
    (r"llama", r"llama-?3", ("llama3_chat",)),
    (r"llama", r"code-?llama", ("code_llama_chat",)),
    (r"llama", r"llama-?2", ("llama2_chat",)),
    (r"llama", r"vicuna", ("vicuna", "wizardlm")),
    (r"llama", r"wizard-?coder", ("wizardcoder",)),
    (r"llama", r"wizard", ("wizardlm", "vicuna")),
    (r"llama", r"deepseek-?coder", ("deepseek_coder", "deepseekcoder")),
)


def suggest_templates(model_type: str, name_or_path: str) -> tuple[str, ...]:
    """Names of the templates that suit a model, by its config's `model_type` and its name; or ().

    A guess for a warning ("this template is another model's"), never a choice made for the user.

    >>> suggest_templates("internlm2", "./tiny")
    ('internlm2_chat',)
    >>> suggest_templates("llama", "meta-llama/Meta-Llama-3-8B-Instruct")
    ('llama3_chat',)
    >>> suggest_templates("llama", "./my-model")
    ()
    """
    kind, name = model_type.lower(), name_or_path.lower().replace("_", "-")
    for type_pattern, name_pattern, templates in _SUGGESTIONS:
        if re.match(type_pattern, kind) and re.search(name_pattern, name):
            return templates
    return ()
