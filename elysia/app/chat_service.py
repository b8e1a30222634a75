"""The chat service put together: a model, a database, the cast, memory, knowledge.

Every choice may come from an environment variable, so that a page is one command. Knows nothing of
terminals or pages.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from elysia.app.malloc import limit_malloc_arenas
from elysia.app.model_loading import ModelConfig, load_engine
from elysia.chat.characters import CharacterRegistry
from elysia.chat.chat_model import ChatModel
from elysia.chat.prompt.context import ContextProviders
from elysia.chat.service import ChatService
from elysia.core.errors import UsageError
from elysia.core.paths import CHAT_DATABASE, get_configs_folder
from elysia.knowledge.base import KnowledgeBase
from elysia.store.database import Database, get_database_folder, open_database

log = logging.getLogger(__name__)

PREFIX = "ELYSIA_"
SLOTS = 2  # replies side by side where an engine can


@dataclass(frozen=True)
class ChatServiceConfig:
    """Where a chat service finds its things. None: the default, or none at all.

    Each is read from ELYSIA_MODEL, ELYSIA_ADAPTER and so on.
    """

    model: str | None = None
    adapter: str | None = None
    engine: str | None = None
    remote_model: str | None = None
    prompt_template: str | None = None
    context: int | None = None
    threads: int | None = None
    database: str = CHAT_DATABASE
    personas: str | None = None
    knowledge_base: str | None = None
    embedder: str | None = None
    chroma: str | None = None  # a Chroma server's URL; without one, vectors lie beside the database

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] = os.environ, **given: object
    ) -> ChatServiceConfig:
        """From the environment, with what is `given` in front. UsageError for a number that is none."""
        values: dict[str, object] = {}
        for name in cls.__dataclass_fields__:
            value = given.get(name) or environ.get(PREFIX + name.upper())
            if value and name in ("context", "threads"):
                if not str(value).isdigit():
                    raise UsageError(f"{PREFIX}{name.upper()} is {value!r}; it must be a number.")
                value = int(str(value))
            if value:
                values[name] = value
        return cls(**values)  # type: ignore[arg-type]


def find_newest_model(work_dirs: Path = Path("work_dirs")) -> str | None:
    """The model that was merged last below `work_dirs`, which `make demo` or a training has left."""
    found = [file.parent for file in work_dirs.glob("*/merged/config.json")]
    found += [file.parent for file in work_dirs.glob("*/*/merged/config.json")]
    newest = max(found, key=lambda folder: (folder / "config.json").stat().st_mtime, default=None)
    return str(newest) if newest else None


def build_chat_service(home: ChatServiceConfig) -> ChatService:
    """Everything opened; an ElysiaError with a sentence when something cannot be."""
    name = home.model or find_newest_model()
    if name is None:
        raise UsageError(
            "There is no model to talk to yet. `make demo` trains a small one in some minutes; or name "
            "one: a folder, a .gguf file, or the URL of a server, in ELYSIA_MODEL or with --model."
        )
    limit_malloc_arenas()
    database = open_database(home.database)
    try:
        cast = CharacterRegistry(
            database, Path(home.personas) if home.personas else get_configs_folder() / "personas"
        )
        surroundings = build_context_providers(home, database)
        settings = ModelConfig(
            name, adapter=home.adapter, engine=home.engine, remote_model=home.remote_model,
            prompt_template=home.prompt_template, context=home.context, threads=home.threads,
            slots=SLOTS,
        )  # fmt: skip
        engine, manner = load_engine(settings)
    except BaseException:
        database.close()
        raise
    model = ChatModel(engine, manner.template, manner.system, manner.stop)
    return ChatService(database, cast, model, surroundings)


def build_context_providers(home: ChatServiceConfig, database: Database) -> ContextProviders:
    """Memory and knowledge over the database; the characters' own documents are taken in."""
    from elysia.knowledge import document_store
    from elysia.memory import long_term
    from elysia.retrieval.embedders import open_embedder

    embedder, server = open_embedder(home.embedder), home.chroma
    folder = get_database_folder(home.database) / "index"
    memory = long_term.open_memory(database, folder / "memory", embedder, server=server)
    knowledge = document_store.open_document_store(
        database, folder / "knowledge", embedder, server=server
    )
    beside = get_configs_folder().parent / "knowledge_base"
    sync_documents(knowledge, Path(home.knowledge_base) if home.knowledge_base else beside)
    return ContextProviders(memory, knowledge)


def sync_documents(knowledge: KnowledgeBase, folder: Path) -> None:
    """Bring every `folder/<character>` onto its shelf. What did not change is left as it is."""
    for shelf in sorted(folder.iterdir()) if folder.is_dir() else []:
        if shelf.is_dir():
            changed, removed, _ = knowledge.sync(f"character/{shelf.name}", shelf)
            if changed or removed:
                log.info("%s: %d documents taken in, %d removed", shelf, changed, removed)
