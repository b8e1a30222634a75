"""Prompt templates: which text a model is trained on, what of it is learned, and the chat prompt.

A template is an entry of the table (`PromptTemplate`, rendered by `turn_rendering`) or a model's own
(`elysia.models.jinja_template`). Whichever it is, a chat prompt is the beginning of the training text.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from elysia.core.messages import Conversation
from elysia.core.template_table import SYSTEM_TEMPLATES, TEMPLATES, PromptTemplate, get_template
from elysia.core.turn_rendering import TextPiece, is_document, render_document

__all__ = [
    "SYSTEM_TEMPLATES",
    "TEMPLATES",
    "ChatTemplate",
    "PromptTemplate",
    "TextPiece",
    "get_stop_words",
    "get_template",
    "is_document",
    "render_document",
    "render_prompt",
    "render_prompt_pieces",
    "render_training_pieces",
    "render_training_samples",
    "suggest_templates",
]


class ChatTemplate(Protocol):
    """What training and chat ask of a template: `PromptTemplate`, or a model's own in Jinja.

    A model's own is `elysia.models.jinja_template.JinjaTemplate`.
    """

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def stop_words(self) -> tuple[str, ...]:
        """Texts that end a reply, beside the template's own end of a reply."""

    def get_stop_words(self) -> tuple[str, ...]:
        """All texts that end a reply."""

    def render_training(self, conversation: Conversation) -> list[list[TextPiece]]:
        """The samples to learn from a conversation, at least one; the last one holds its last reply."""

    def render_prompt(self, conversation: Conversation) -> list[TextPiece]:
        """The chat prompt; TemplateError when the last message is a reply."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for a run card."""


def render_training_samples(
    conversation: Conversation, template: ChatTemplate
) -> list[list[TextPiece]]:
    """The training samples of a conversation: one, or one a reply where the template, as Qwen3's, writes
    earlier replies in another way once later ones follow.

    A conversation of one assistant message alone is a document (`is_document`), learned as it is, without a
    template.
    """
    return template.render_training(conversation)


def render_training_pieces(conversation: Conversation, template: ChatTemplate) -> list[TextPiece]:
    """The training text with the last reply: prompt, learned reply and its end, turn by turn.

    Where a conversation is several samples, the last of them.
    """
    return template.render_training(conversation)[-1]


def render_prompt_pieces(conversation: Conversation, template: ChatTemplate) -> list[TextPiece]:
    """The chat prompt, which ends where the assistant's reply begins.

    Raises TemplateError when the last message is a reply.
    """
    return template.render_prompt(conversation)


def render_prompt(conversation: Conversation, template: ChatTemplate) -> str:
    """The chat prompt as text, without the bos and eos tokens that `render_prompt_pieces` marks."""
    return "".join(piece.text for piece in render_prompt_pieces(conversation, template))


def get_stop_words(template: ChatTemplate) -> tuple[str, ...]:
    """The texts that end a reply: the template's stop words, and its end of a reply where not among them.

    >>> get_stop_words(get_template("internlm2_chat"))
    ('<|im_end|>',)
    """
    return template.get_stop_words()


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
