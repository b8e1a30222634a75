"""Composition: a model, perhaps an adapter, and the run card beside them, become an engine and a
session.

Decides how a model wants to be spoken to. Knows nothing of terminals or pages, nor how an engine
works.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elysia.chat.prompt.character_state import CharacterState
from elysia.chat.session import ChatSession
from elysia.core import templates
from elysia.core.card_file import read_card
from elysia.core.errors import ModelError, RunCardError, UsageError
from elysia.core.persona import UserPersona
from elysia.core.run_card import FILE, RunCard
from elysia.core.templates import PromptTemplate
from elysia.engines.base import Sampling

if TYPE_CHECKING:
    from elysia.engines.base import Engine
    from elysia.engines.transformers import TransformersEngine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelConfig:
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
    engine: str | None = None
    threads: int | None = None
    context: int | None = None
    slots: int = 1
    gpu_layers: int = 0
    remote_model: str | None = None
    persona: str | None = None  # a card's file; None: no character
    user: UserPersona = field(default_factory=UserPersona)
    greeting: int = 0


ENGINES = ("llama_cpp", "transformers", "openai")
KEY_VARIABLE = "ELYSIA_REMOTE_KEY"  # the key for another server; never on a command line
GGUF_KINDS = ("q4_k_m", "q8_0", "f16", "f32")


@dataclass(frozen=True)
class ChatFormat:
    """How a model wants to be spoken to."""

    template: PromptTemplate
    system: str
    stop: tuple[str, ...]


def load_chat_session(settings: ModelConfig) -> ChatSession:
    """Load everything; a fresh session. A card that cannot be used is refused before the model is
    loaded.
    """
    character = None
    if settings.persona:
        card, seed = read_card(settings.persona), settings.sampling.seed or 0
        character = CharacterState(card, settings.user, greeting=settings.greeting, seed=seed)
    engine, manner = load_engine(settings)
    return ChatSession(
        engine,
        manner.template,
        system=manner.system,
        stop=manner.stop,
        sampling=settings.sampling,
        character=character,
    )


def load_engine(settings: ModelConfig) -> tuple[Engine, ChatFormat]:
    """Load the model and decide its manner; what can be refused is refused before that."""
    kind, model = choose_engine(settings)
    if kind == "openai":
        return connect_remote(settings)
    if kind == "llama_cpp":
        return load_gguf(settings, Path(model))
    return load_model_folder(settings)


def choose_engine(settings: ModelConfig) -> tuple[str, str]:
    """(engine, what it is to open): what was asked for, else what suits the model and the device.

    A URL is another server's. A .gguf is llama.cpp's, and so is a folder on a CPU that has one beside
    it, unless the request needs the weights themselves (an adapter, bits, a dtype). Raises UsageError
    for an engine that cannot take the model.
    """
    name, asked = settings.model, settings.engine
    if asked not in (None, *ENGINES):
        raise UsageError(f"There is no engine '{asked}', only {', '.join(ENGINES)}.")
    url = name.startswith(("http://", "https://"))
    natural = "openai" if url else "llama_cpp" if name.endswith(".gguf") else "transformers"
    if natural != "transformers":
        if asked not in (None, natural):
            raise UsageError(f"The engine {asked} cannot serve {name}; {natural} can.")
        if settings.adapter or settings.bits:
            raise UsageError(f"{name} takes no adapter and no bits: name the model's folder.")
        return natural, name
    if asked == "openai":
        raise UsageError(f"{name} is no URL; the engine openai wants http://... or https://...")
    if asked == "transformers":
        return asked, name
    beside = find_gguf(Path(name))
    if asked == "llama_cpp":
        if beside is None or settings.adapter:
            raise UsageError(
                f"The engine llama_cpp wants a GGUF without an adapter. Say: elysia quantize gguf {name}"
            )
        return asked, str(beside)
    plain = not (settings.adapter or settings.bits) and settings.dtype == "auto"
    if beside is not None and plain and settings.device in ("auto", "cpu") and not _has_gpu():
        log.info("Using %s, which is faster on a CPU (--engine transformers is the other).", beside)
        return "llama_cpp", str(beside)
    return "transformers", name


def find_gguf(folder: Path) -> Path | None:
    """The smallest GGUF that `quantize gguf` left beside a model folder and that is not older."""
    config = folder / "config.json"
    if not config.is_file():
        return None
    folder = folder.resolve()
    for kind in GGUF_KINDS:
        file = folder.parent / f"{folder.name}.{kind}.gguf"
        if file.is_file() and file.stat().st_mtime >= config.stat().st_mtime:
            return file
    return None


def _has_gpu() -> bool:
    """Whether torch might find a GPU, without importing it."""
    drivers = Path("/dev/dxg"), Path("/dev/kfd")
    nvidia = Path("/proc/driver/nvidia/gpus")
    return any(nvidia.glob("*")) or any(driver.exists() for driver in drivers)


def connect_remote(settings: ModelConfig) -> tuple[Engine, ChatFormat]:
    """Another server. It puts its own template around the messages."""
    from elysia.engines import openai

    engine = openai.build_engine(
        settings.model,
        model=settings.remote_model,
        key=os.environ.get(KEY_VARIABLE),
        context=settings.context,
    )
    template = templates.get_template(settings.prompt_template or "default")
    return engine, ChatFormat(template, settings.system or "", settings.stop_words)


def load_gguf(settings: ModelConfig, file: Path) -> tuple[Engine, ChatFormat]:
    """A GGUF in llama.cpp, spoken to as the card beside it or inside it says."""
    from elysia.engines import llama_cpp
    from elysia.models.gguf.gguf_reader import read_gguf_header

    header = read_gguf_header(file)
    manner = resolve_chat_format(
        read_gguf_run_card(file, header),
        model_type=str(header.get("general.architecture", "")),
        name=str(file),
        prompt_template=settings.prompt_template,
        system=settings.system,
        stop_words=settings.stop_words,
    )
    log.info("Loading %s", file)
    engine = llama_cpp.build_engine(
        file,
        context=settings.context,
        slots=settings.slots,
        threads=settings.threads,
        gpu_layers=settings.gpu_layers,
    )
    return engine, manner


def read_gguf_run_card(file: Path, header: dict[str, Any]) -> RunCard | None:
    """The run card beside a GGUF, else the one inside it."""
    beside = RunCard.read(file.parent, f"{file.stem}.{FILE}")
    if beside or "elysia.run_card" not in header:
        return beside
    try:
        values = json.loads(header["elysia.run_card"])
    except (ValueError, TypeError) as error:
        raise RunCardError(f"The run card inside {file} is damaged: {error}.") from error
    return RunCard.from_dict(values, where=f"The run card inside {file}")


def load_model_folder(settings: ModelConfig) -> tuple[TransformersEngine, ChatFormat]:
    """A model folder, perhaps under an adapter, in transformers."""
    from elysia.export.lora_deltas import check_base_fingerprint
    from elysia.models.loading import read_config, resolve_model

    model = resolve_model(settings.model, settings.hub)
    adapter = resolve_model(settings.adapter, settings.hub) if settings.adapter else None
    refuse_lone_adapter(model, adapter)
    card = RunCard.read(adapter) if adapter else None
    if adapter:
        check_base_fingerprint(card, model, adapter)
    manner = resolve_chat_format(
        card or RunCard.read(model),
        model_type=read_config(model)["model_type"],
        name=settings.model,
        prompt_template=settings.prompt_template,
        system=settings.system,
        stop_words=settings.stop_words,
    )
    from elysia.engines import transformers

    log.info("Loading %s", settings.model + (f" under {adapter}" if adapter else ""))
    engine = transformers.build_engine(
        model,
        adapter=adapter,
        dtype=settings.dtype,
        device=settings.device,
        bits=settings.bits,
    )
    return engine, manner


def resolve_chat_format(
    card: RunCard | None,
    *,
    model_type: str,
    name: str,
    prompt_template: str | None = None,
    system: str | None = None,
    stop_words: Sequence[str] = (),
) -> ChatFormat:
    """Template, system prompt and stop texts: what was asked for, else the card's.

    UsageError without either, naming what would suit the model where that is known. Warns, with
    both names, of a template that contradicts the card or is another model family's.
    """
    fitting = templates.suggest_templates(model_type, name)
    carried = PromptTemplate.from_dict(card.template) if card and card.template else None
    if prompt_template:
        template = templates.get_template(prompt_template)
        warn_about_mismatch(template, carried, fitting, model_type)
    elif carried:
        template = carried
    else:
        some = f" Its type is {model_type}, which takes {' or '.join(fitting)}." if fitting else ""
        raise UsageError(
            f"There is no run card beside {name}, so the template of its training is unknown: "
            f"say which with --prompt-template.{some}"
        )
    own = card.stop_words if card and (template == carried) else []
    return ChatFormat(
        template,
        system if system is not None else (card.system if card else ""),
        tuple(dict.fromkeys([*templates.get_stop_words(template), *own, *stop_words])),
    )


def warn_about_mismatch(
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
