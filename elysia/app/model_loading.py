"""A model, perhaps with an adapter, and the run card beside it become an engine, a chat model or a session.

`load_engine` chooses the engine that suits the model and the device. What can be refused is refused before
any weights are loaded.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elysia.chat.chat_model import ChatModel
from elysia.chat.prompt.character_state import CharacterState
from elysia.chat.session import ChatSession
from elysia.core import templates
from elysia.core.card_file import read_card
from elysia.core.errors import ModelError, RunCardError, UsageError
from elysia.core.persona import UserPersona
from elysia.core.run_card import FILE, RunCard
from elysia.engines.base import Sampling
from elysia.models.chat_format import ChatFormat, resolve_chat_format
from elysia.models.template_marks import describe_unknown_marks

if TYPE_CHECKING:
    from elysia.engines.base import Engine
    from elysia.engines.transformers import TransformersEngine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelConfig:
    """What to load, and how it is spoken to. None: as the run card says, or the engine's default."""

    model: str  # a folder, a name on the hub, a .gguf file or the URL of a server
    adapter: str | None = None
    hub: str = "huggingface"
    dtype: str = "auto"
    bits: int | None = None  # 4: NF4, 8: int8
    device: str = "auto"
    prompt_template: str | None = None
    system: str | None = None
    stop_words: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    engine: str | None = None
    threads: int | None = None  # of llama_cpp
    context: int | None = None  # tokens
    slots: int = 1  # replies at the same time
    gpu_layers: int = 0  # of llama_cpp
    remote_model: str | None = None  # which of a server's models
    persona: str | None = None  # a card's file; None: no character
    user: UserPersona = field(default_factory=UserPersona)
    greeting: int = 0
    thinking: bool | None = None  # whether a template that takes it asks for thoughts


ENGINES = ("llama_cpp", "transformers", "openai")
# The key for another server: never on a command line, which every program on the machine can read.
KEY_VARIABLE = "ELYSIA_REMOTE_KEY"
GGUF_KINDS = ("q4_k_m", "q8_0", "f16", "f32")


def load_chat_session(config: ModelConfig) -> ChatSession:
    """Load everything for a new conversation in memory. A card that cannot be used is refused before the
    model is loaded.
    """
    character = None
    if config.persona:
        card, seed = read_card(config.persona), config.sampling.seed or 0
        character = CharacterState(card, config.user, greeting=config.greeting, seed=seed)
    engine, chat_format = load_engine(config)
    return ChatSession(
        engine,
        chat_format.template,
        system=chat_format.system,
        stop=chat_format.stop,
        sampling=config.sampling,
        character=character,
    )


def load_chat_model(config: ModelConfig) -> ChatModel:
    """Load an engine with its chat format, for the chat service."""
    return ChatModel(*load_engine(config))


def load_engine(config: ModelConfig) -> tuple[Engine, ChatFormat]:
    """Load the model and resolve its chat format; what can be refused is refused before that."""
    kind, model = choose_engine(config)
    if kind == "openai":
        return connect_remote(config)
    if kind == "llama_cpp":
        return load_gguf(config, Path(model))
    return load_model_folder(config)


def choose_engine(config: ModelConfig) -> tuple[str, str]:
    """(engine, what it is to open): what was asked for, else what suits the model and the device.

    A URL belongs to another server. A .gguf is for llama.cpp, and so is a folder on a CPU that has one
    beside it, unless the request needs the weights themselves (an adapter, bits, a dtype). Raises
    UsageError for an engine that cannot serve the model.
    """
    name, requested = config.model, config.engine
    if requested not in (None, *ENGINES):
        raise UsageError("app.unknown_engine", engine=requested, engines=list(ENGINES))
    is_url = name.startswith(("http://", "https://"))
    suitable = "openai" if is_url else "llama_cpp" if name.endswith(".gguf") else "transformers"
    if suitable != "transformers":
        if requested not in (None, suitable):
            raise UsageError(
                "app.engine_cannot_serve", engine=requested, model=name, suitable=suitable
            )
        if config.adapter or config.bits:
            raise UsageError("app.no_adapter_here", model=name)
        return suitable, name
    if requested == "openai":
        raise UsageError("app.not_a_url", model=name)
    if requested == "transformers":
        return requested, name
    gguf = find_gguf(Path(name))
    if requested == "llama_cpp":
        if gguf is None or config.adapter:
            raise UsageError("app.needs_gguf", model=name)
        return requested, str(gguf)
    is_plain = not (config.adapter or config.bits) and config.dtype == "auto"
    if gguf is not None and is_plain and config.device in ("auto", "cpu") and not _has_gpu():
        log.info("Using %s, which is faster on a CPU (or say --engine transformers).", gguf)
        return "llama_cpp", str(gguf)
    return "transformers", name


def find_gguf(folder: Path) -> Path | None:
    """The smallest GGUF beside a model folder, as `quantize gguf` writes them, unless it is older."""
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
    """Whether torch might find a GPU; without importing it, which takes seconds."""
    drivers = Path("/dev/dxg"), Path("/dev/kfd")
    nvidia = Path("/proc/driver/nvidia/gpus")
    return any(nvidia.glob("*")) or any(driver.exists() for driver in drivers)


def connect_remote(config: ModelConfig) -> tuple[Engine, ChatFormat]:
    """Another server, which puts its own template around the messages."""
    from elysia.engines import openai

    engine = openai.build_engine(
        config.model,
        model=config.remote_model,
        key=os.environ.get(KEY_VARIABLE),
        context=config.context,
        thinking=config.thinking,
    )
    template = templates.get_template(config.prompt_template or "default")
    return engine, ChatFormat(template, config.system or "", config.stop_words)


def load_gguf(config: ModelConfig, file: Path) -> tuple[Engine, ChatFormat]:
    """A GGUF in llama.cpp, with the chat format of the run card beside it or inside it, else its own."""
    from elysia.engines import llama_cpp
    from elysia.models.gguf.gguf_reader import read_gguf_header
    from elysia.models.own_template import read_gguf_template

    header = read_gguf_header(file)
    chat_format = resolve_chat_format(
        read_gguf_run_card(file, header),
        model_type=str(header.get("general.architecture", "")),
        name=str(file),
        own=read_gguf_template(header),
        prompt_template=config.prompt_template,
        system=config.system,
        stop_words=config.stop_words,
        thinking=config.thinking,
    )
    log.info("Loading %s", file)
    engine = llama_cpp.build_engine(
        file,
        context=config.context,
        slots=config.slots,
        threads=config.threads,
        gpu_layers=config.gpu_layers,
    )
    _warn_about_marks(config, chat_format, engine.tokenizer)
    return engine, chat_format


def _warn_about_marks(config: ModelConfig, chat_format: ChatFormat, tokenizer: Any) -> None:
    """Warn of a template that was asked for and that the model's tokenizer does not know."""
    if config.prompt_template:
        warning = describe_unknown_marks(chat_format.template, tokenizer)
        if warning:
            log.warning("%s", warning)


def read_gguf_run_card(file: Path, header: dict[str, Any]) -> RunCard | None:
    """The run card beside a GGUF, else the one inside it."""
    beside = RunCard.read(file.parent, f"{file.stem}.{FILE}")
    if beside or "elysia.run_card" not in header:
        return beside
    try:
        values = json.loads(header["elysia.run_card"])
    except (ValueError, TypeError) as error:
        raise RunCardError("app.damaged_gguf_card", file=file, error=error) from error
    return RunCard.from_dict(values, where=f"The run card inside {file}")


def load_model_folder(config: ModelConfig) -> tuple[TransformersEngine, ChatFormat]:
    """A model folder in transformers, perhaps with an adapter."""
    from elysia.export.lora_deltas import check_base_fingerprint
    from elysia.models.loading import read_config, resolve_model
    from elysia.models.own_template import read_own_template

    model = resolve_model(config.model, config.hub)
    adapter = resolve_model(config.adapter, config.hub) if config.adapter else None
    refuse_lone_adapter(model, adapter)
    card = RunCard.read(adapter) if adapter else None
    if adapter:
        check_base_fingerprint(card, model, adapter)
    chat_format = resolve_chat_format(
        card or RunCard.read(model),
        model_type=read_config(model)["model_type"],
        name=config.model,
        own=read_own_template(model),
        prompt_template=config.prompt_template,
        system=config.system,
        stop_words=config.stop_words,
        thinking=config.thinking,
    )
    from elysia.engines import transformers

    log.info("Loading %s", config.model + (f" under {adapter}" if adapter else ""))
    engine = transformers.build_engine(
        model, adapter=adapter, dtype=config.dtype, device=config.device, bits=config.bits
    )
    _warn_about_marks(config, chat_format, engine.tokenizer)
    return engine, chat_format


def refuse_lone_adapter(model: Path, adapter: Path | None) -> None:
    """ModelError when the folders were confused: an adapter given as the model, or the reverse."""
    if (model / "adapter_config.json").is_file() and not (model / "config.json").is_file():
        card = RunCard.read(model)
        base = card.base_model if card else "BASE"
        raise ModelError("app.adapter_as_model", model=model, base=base)
    if adapter and not (adapter / "adapter_config.json").is_file():
        raise ModelError("app.not_an_adapter", adapter=adapter)
