"""How a model expects to be spoken to: prompt template, stop texts, system prompt.

`resolve_chat_format` decides it from the run card beside the weights and from what the user asks for.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from elysia.core import templates
from elysia.core.errors import UsageError
from elysia.core.i18n import Text
from elysia.core.run_card import RunCard
from elysia.core.templates import PromptTemplate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChatFormat:
    """A model's prompt template, its default system prompt ('' for none) and the texts that end a reply."""

    template: PromptTemplate
    system: str = ""
    stop: tuple[str, ...] = ()

    @classmethod
    def from_run_card(cls, card: RunCard | None) -> ChatFormat | None:
        """The format that a model was trained with; None without a card, or for one without a template."""
        if card is None or not card.template:
            return None
        template = PromptTemplate.from_dict(card.template)
        words = [*templates.get_stop_words(template), *card.stop_words]
        return cls(template, card.system, tuple(dict.fromkeys(words)))


def resolve_chat_format(
    card: RunCard | None,
    *,
    model_type: str,
    name: str,
    prompt_template: str | None = None,
    system: str | None = None,
    stop_words: Sequence[str] = (),
) -> ChatFormat:
    """The chat format that was asked for, else the run card's.

    `model_type` is that of config.json, `name` the model's, for messages. UsageError without a template,
    naming those that would suit the model where that is known. A template that contradicts the card, or
    belongs to another model family, is warned of with both names.
    """
    suitable = templates.suggest_templates(model_type, name)
    trained = ChatFormat.from_run_card(card)
    if prompt_template:
        template = templates.get_template(prompt_template)
        warn_about_mismatch(template, trained.template if trained else None, suitable, model_type)
    elif trained:
        template = trained.template
    else:
        hint: Text | str = ""
        if suitable:
            params = {"model_type": model_type, "templates": list(suitable)}
            hint = Text("models.suitable_templates", params)
        raise UsageError("models.unknown_chat_format", model=name, hint=hint)
    # A card's further stop words say nothing about another template.
    is_trained = trained is not None and template == trained.template
    own = trained.stop if trained and is_trained else templates.get_stop_words(template)
    if system is None:
        system = card.system if card else ""
    return ChatFormat(template, system, tuple(dict.fromkeys([*own, *stop_words])))


def warn_about_mismatch(
    template: PromptTemplate,
    trained: PromptTemplate | None,
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
