"""How a model expects to be spoken to: prompt template, stop texts, system prompt.

`resolve_chat_format` decides it: what the user asks for, else the run card beside the weights, else the
template that the model itself carries, else the one that its family uses.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elysia.core import templates
from elysia.core.errors import UsageError
from elysia.core.run_card import RunCard
from elysia.core.templates import ChatTemplate, PromptTemplate
from elysia.models.jinja_template import JinjaTemplate
from elysia.models.own_template import read_gguf_template as read_gguf_template
from elysia.models.own_template import read_own_template as read_own_template

log = logging.getLogger(__name__)

AUTO = "auto"  # a template's name: the model's own


def load_template(values: str | Mapping[str, Any]) -> ChatTemplate:
    """The template that a name of the table, or a run card's `template`, means.

    Raises TemplateError for an unknown name, and a missing or wrong field.
    """
    if isinstance(values, Mapping) and "jinja" in values:
        return JinjaTemplate.from_dict(values)
    return templates.get_template(values)


def resolve_base_template(
    chosen: str | Mapping[str, Any],
    tokenizer: Path,
    model: Path,
    *,
    name: str,
    thinking: bool | None = None,
) -> ChatTemplate:
    """The template that a base model is trained with: `chosen`, or for "auto" that of its run card, else
    its own, else its family's.

    `tokenizer` and `model` are folders, often the same; `name` is the model's, for messages. Raises as
    `resolve_chat_format`.
    """
    if chosen != AUTO:
        template = load_template(chosen)
        if isinstance(template, JinjaTemplate):
            return template.with_thinking(thinking)
        return template
    return resolve_chat_format(
        RunCard.read(model) or RunCard.read(tokenizer),
        model_type=_read_model_type(model) or _read_model_type(tokenizer),
        name=name,
        own=read_own_template(tokenizer) or read_own_template(model),
        thinking=thinking,
    ).template


def ask_for_thinking(
    template: ChatTemplate, thinking: bool | None, effort: str | None = None
) -> ChatTemplate:
    """`template`, asked for thoughts or for none, where it is one that can be asked; None changes nothing."""
    if isinstance(template, JinjaTemplate):
        return template.with_thinking(thinking, effort)
    return template


def _read_model_type(folder: Path) -> str:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(config.get("model_type", "")) if isinstance(config, dict) else ""


@dataclass(frozen=True)
class ChatFormat:
    """A model's prompt template, its default system prompt ('' for none) and the texts that end a reply."""

    template: ChatTemplate
    system: str = ""
    stop: tuple[str, ...] = ()

    @property
    def thinking(self) -> bool | None:
        """Whether the template asks for thoughts before a reply; None for one that cannot be asked."""
        template = self.template
        if isinstance(template, JinjaTemplate) and template.takes_thinking:
            return bool(template.thinking)
        return None

    @classmethod
    def from_run_card(cls, card: RunCard | None) -> ChatFormat | None:
        """The format that a model was trained with; None without a card, or for one without a template."""
        if card is None or not card.template:
            return None
        template = load_template(card.template)
        words = [*templates.get_stop_words(template), *card.stop_words]
        return cls(template, card.system, tuple(dict.fromkeys(words)))


def resolve_chat_format(
    card: RunCard | None,
    *,
    model_type: str,
    name: str,
    own: JinjaTemplate | None = None,
    prompt_template: str | None = None,
    system: str | None = None,
    stop_words: Sequence[str] = (),
    thinking: bool | None = None,
) -> ChatFormat:
    """The chat format that was asked for, else the run card's, else the model's own, else its family's.

    `model_type` is that of config.json, `name` the model's, for messages; `own` the template that the
    model carries (`models.own_template`). `thinking` asks a template that takes it for thoughts, or for
    none. UsageError without a template; TemplateError for an own one that cannot be used. A template that
    contradicts the card, or belongs to another model family, is warned of with both names.
    """
    suitable = templates.suggest_templates(model_type, name)
    trained = ChatFormat.from_run_card(card)
    template: ChatTemplate
    if prompt_template and prompt_template != AUTO:
        template = templates.get_template(prompt_template)
        if trained or own is None:
            warn_about_mismatch(
                template, trained.template if trained else None, suitable, model_type
            )
    elif trained:
        template = trained.template
    elif own:
        own.check()
        template = own
    elif suitable:
        template = templates.get_template(suitable[0])
        log.warning(
            "%s carries no chat template; '%s', which %s models use, is taken.",
            name, template.name, model_type,
        )  # fmt: skip
    else:
        raise UsageError("models.unknown_chat_format", model=name)
    # A card's further stop words say nothing about another template.
    is_trained = trained is not None and template == trained.template
    if isinstance(template, JinjaTemplate):
        template = template.with_thinking(thinking)
    own_words = trained.stop if trained and is_trained else templates.get_stop_words(template)
    if system is None:
        system = card.system if card else ""
    return ChatFormat(template, system, tuple(dict.fromkeys([*own_words, *stop_words])))


def warn_about_mismatch(
    template: PromptTemplate,
    trained: ChatTemplate | None,
    suitable: Sequence[str],
    model_type: str,
) -> None:
    """Warn of a template that is not the one trained with, or not one of the model family's."""
    if trained and trained != template:
        log.warning(
            "The model was trained with the template '%s', not '%s': expect worse answers.",
            trained.name, template.name,
        )  # fmt: skip
    elif not trained and suitable and template.name not in suitable:
        log.warning(
            "The template '%s' is not one for %s models, which take '%s'.",
            template.name, model_type, "' or '".join(suitable),
        )  # fmt: skip
