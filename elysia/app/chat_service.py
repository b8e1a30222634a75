"""The chat service put together: a model, a database, the characters, memory and knowledge.

Every choice may come from an environment variable, so that a page is one command.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from elysia.app.malloc import limit_malloc_arenas
from elysia.app.model_loading import ModelConfig, load_chat_model
from elysia.chat.characters import CharacterRegistry
from elysia.chat.prompt.context import ContextProviders
from elysia.chat.service import ChatService
from elysia.core.errors import UsageError
from elysia.core.paths import CHAT_DATABASE, get_configs_folder
from elysia.knowledge.base import KnowledgeBase
from elysia.store.database import Database, get_database_folder, open_database

log = logging.getLogger(__name__)

PREFIX = "ELYSIA_"
SWITCH_VALUES = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}
SLOTS = 2  # replies at the same time, where an engine can


@dataclass(frozen=True)
class ChatServiceConfig:
    """What a chat service is built from. None: the default, or none at all.

    Each field can be set by an environment variable: ELYSIA_MODEL, ELYSIA_ADAPTER and so on.
    """

    model: str | None = None
    adapter: str | None = None
    engine: str | None = None
    remote_model: str | None = None
    prompt_template: str | None = None
    context: int | None = None
    threads: int | None = None
    thinking: bool | None = None
    database: str = CHAT_DATABASE
    personas: str | None = None
    knowledge_base: str | None = None
    embedder: str | None = None
    chroma: str | None = None  # a Chroma server's URL; without one, vectors lie beside the database

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] = os.environ, **overrides: object
    ) -> ChatServiceConfig:
        """From the environment, except for `overrides` that are given. UsageError for a value that must be
        a number, or true or false, and is none.
        """
        values: dict[str, object] = {}
        for name in cls.__dataclass_fields__:
            value = overrides.get(name)
            if value in (None, ""):
                value = environ.get(PREFIX + name.upper())
            if value not in (None, ""):
                parse = PARSERS.get(name)
                values[name] = parse(PREFIX + name.upper(), str(value)) if parse else value
        return cls(**values)  # type: ignore[arg-type]


def _parse_number(variable: str, value: str) -> int:
    if not value.isdigit():
        raise UsageError("app.not_a_number", variable=variable, value=value)
    return int(value)


def _parse_switch(variable: str, value: str) -> bool:
    if value.lower() not in SWITCH_VALUES:
        raise UsageError("app.not_a_switch", variable=variable, value=value)
    return SWITCH_VALUES[value.lower()]


# How the settings that are no texts are read.
PARSERS: Mapping[str, Callable[[str, str], object]] = {
    "context": _parse_number, "threads": _parse_number, "thinking": _parse_switch,
}  # fmt: skip


def find_newest_model(work_dirs: Path = Path("work_dirs")) -> str | None:
    """The model that was merged last below `work_dirs`, by `make demo` or after a training."""
    folders = [file.parent for file in work_dirs.glob("*/merged/config.json")]
    folders += [file.parent for file in work_dirs.glob("*/*/merged/config.json")]
    newest = max(folders, key=lambda folder: (folder / "config.json").stat().st_mtime, default=None)
    return str(newest) if newest else None


def build_chat_service(config: ChatServiceConfig) -> ChatService:
    """Open everything. Raises an ElysiaError when a part cannot be opened."""
    name = config.model or find_newest_model()
    if name is None:
        raise UsageError("app.no_model")
    limit_malloc_arenas()
    database = open_database(config.database)
    try:
        personas = Path(config.personas) if config.personas else get_configs_folder() / "personas"
        characters = CharacterRegistry(database, personas)
        providers = build_context_providers(config, database)
        model = load_chat_model(
            ModelConfig(
                name, adapter=config.adapter, engine=config.engine,
                remote_model=config.remote_model, prompt_template=config.prompt_template,
                context=config.context, threads=config.threads, slots=SLOTS,
                thinking=config.thinking,
            )
        )  # fmt: skip
    except BaseException:
        database.close()
        raise
    return ChatService(database, characters, model, providers)


def build_context_providers(config: ChatServiceConfig, database: Database) -> ContextProviders:
    """Memory and knowledge over the database; the characters' own documents are brought up to date."""
    from elysia.knowledge import document_store
    from elysia.memory import long_term
    from elysia.retrieval.embedders import open_embedder

    embedder, server = open_embedder(config.embedder), config.chroma
    folder = get_database_folder(config.database) / "index"
    memory = long_term.open_memory(database, folder / "memory", embedder, server=server)
    knowledge = document_store.open_document_store(
        database, folder / "knowledge", embedder, server=server
    )
    bundled = get_configs_folder().parent / "knowledge_base"
    sync_documents(knowledge, Path(config.knowledge_base) if config.knowledge_base else bundled)
    return ContextProviders(memory, knowledge)


def sync_documents(knowledge: KnowledgeBase, folder: Path) -> None:
    """Bring each character's collection up to date with `folder/<character>`; only what changed is read."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_dir():
            changed, removed, _ = knowledge.sync(f"character/{path.name}", path)
            if changed or removed:
                log.info("%s: %d documents added or changed, %d removed", path, changed, removed)
