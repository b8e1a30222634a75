"""Composition: a model, perhaps an adapter, and the run card beside them, become an engine and a
session.

Decides how a model wants to be spoken to. Knows nothing of terminals or pages, nor how an engine
works.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from elysia.chat.character import Character
from elysia.chat.session import Session
from elysia.core import templates
from elysia.core.card import read_card
from elysia.core.errors import ModelError, UsageError
from elysia.core.run_card import RunCard
from elysia.core.templates import PromptTemplate
from elysia.core.user_persona import UserPersona
from elysia.engines.base import Sampling

if TYPE_CHECKING:
    from elysia.engines.transformers import TransformersEngine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChatSettings:
    """What to talk to, and how. None means: as the run card says, or the engine's default."""

    model: str
    adapter: str | None = None
    hub: str = "huggingface"
    dtype: str = "auto"
    bits: int | None = None
    device: str = "auto"
    prompt_template: str | None = None
    system: str | None = None
    stop_words: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    persona: str | None = None  # a card's file; None: no character
    user: UserPersona = field(default_factory=UserPersona)
    greeting: int = 0


@dataclass(frozen=True)
class Manner:
    """How a model wants to be spoken to."""

    template: PromptTemplate
    system: str
    stop: tuple[str, ...]


def open_session(settings: ChatSettings) -> Session:
    """Load everything; a fresh session. A card that cannot be used is refused before the model is
    loaded.
    """
    character = None
    if settings.persona:
        card, seed = read_card(settings.persona), settings.sampling.seed or 0
        character = Character(card, settings.user, greeting=settings.greeting, seed=seed)
    engine, manner = open_engine(settings)
    return Session(
        engine,
        manner.template,
        system=manner.system,
        stop=manner.stop,
        sampling=settings.sampling,
        character=character,
    )


def open_engine(settings: ChatSettings) -> tuple[TransformersEngine, Manner]:
    """Load the model and decide its manner; what can be refused is refused before that."""
    from elysia.export.fit import refuse_other_base
    from elysia.models.load import read_config, resolve

    model = resolve(settings.model, settings.hub)
    adapter = resolve(settings.adapter, settings.hub) if settings.adapter else None
    refuse_lone_adapter(model, adapter)
    card = RunCard.read(adapter) if adapter else None
    if adapter:
        refuse_other_base(card, model, adapter)
    manner = choose_manner(
        card or RunCard.read(model),
        model_type=read_config(model)["model_type"],
        name=settings.model,
        prompt_template=settings.prompt_template,
        system=settings.system,
        stop_words=settings.stop_words,
    )
    from elysia.engines import transformers

    log.info("Loading %s", settings.model + (f" under {adapter}" if adapter else ""))
    engine = transformers.build(
        model,
        adapter=adapter,
        dtype=settings.dtype,
        device=settings.device,
        bits=settings.bits,
    )
    return engine, manner


def choose_manner(
    card: RunCard | None,
    *,
    model_type: str,
    name: str,
    prompt_template: str | None = None,
    system: str | None = None,
    stop_words: Sequence[str] = (),
) -> Manner:
    """Template, system prompt and stop texts: what was asked for, else the card's.

    UsageError without either, naming what would suit the model where that is known. Warns, with
    both names, of a template that contradicts the card or is another model family's.
    """
    fitting = templates.fitting(model_type, name)
    carried = PromptTemplate.from_dict(card.template) if card and card.template else None
    if prompt_template:
        template = templates.get_template(prompt_template)
        warn_of_mismatch(template, carried, fitting, model_type)
    elif carried:
        template = carried
    else:
        some = f" Its type is {model_type}, which takes {' or '.join(fitting)}." if fitting else ""
        raise UsageError(
            f"There is no run card beside {name}, so the template of its training is unknown: "
            f"say which with --prompt-template.{some}"
        )
    own = card.stop_words if card and (template == carried) else []
    return Manner(
        template,
        system if system is not None else (card.system if card else ""),
        tuple(dict.fromkeys([*templates.all_stop_words(template), *own, *stop_words])),
    )


def warn_of_mismatch(
    template: PromptTemplate,
    carried: PromptTemplate | None,
    fitting: Sequence[str],
    model_type: str,
) -> None:
    """Say so when the template asked for is not the one trained with, or not the model family's."""
    if carried and carried != template:
        log.warning(
            "The model was trained with the template '%s', not '%s': expect worse answers.",
            carried.name, template.name,
        )  # fmt: skip
    elif not carried and fitting and template.name not in fitting:
        log.warning(
            "The template '%s' is not one for %s models, which take '%s'.",
            template.name, model_type, "' or '".join(fitting),
        )  # fmt: skip


def refuse_lone_adapter(model: Path, adapter: Path | None) -> None:
    """ModelError when the folders were confused: an adapter for the model, or the reverse."""
    if (model / "adapter_config.json").is_file() and not (model / "config.json").is_file():
        card = RunCard.read(model)
        base = card.base_model if card else "BASE"
        raise ModelError(f"{model} is an adapter. Say: elysia chat {base} --adapter {model}")
    if adapter and not (adapter / "adapter_config.json").is_file():
        raise ModelError(f"{adapter} has no adapter_config.json: it is not an adapter folder.")
