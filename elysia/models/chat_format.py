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
    trained = PromptTemplate.from_dict(card.template) if card and card.template else None
    if prompt_template:
        template = templates.get_template(prompt_template)
        warn_about_mismatch(template, trained, suitable, model_type)
    elif trained:
        template = trained
    else:
        hint: Text | str = ""
        if suitable:
            params = {"model_type": model_type, "templates": list(suitable)}
            hint = Text("models.suitable_templates", params)
        raise UsageError("models.unknown_chat_format", model=name, hint=hint)
    # The card's own stop words are those of its template: they say nothing about another one.
    own = card.stop_words if card and template == trained else []
    return ChatFormat(
        template,
        system if system is not None else (card.system if card else ""),
        tuple(dict.fromkeys([*templates.get_stop_words(template), *own, *stop_words])),
    )


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
