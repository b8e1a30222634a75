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

from elysia.app.heap import few_arenas
from elysia.app.models import ChatSettings, open_engine
from elysia.chat.cast import Cast
from elysia.chat.model import Model
from elysia.chat.service import ChatService
from elysia.chat.surroundings import Surroundings
from elysia.core.errors import UsageError
from elysia.knowledge.base import Knowledge
from elysia.store.database import DEFAULT, Database, folder_beside, open_database
from elysia.train.bundled import configs_folder

log = logging.getLogger(__name__)

PREFIX = "ELYSIA_"
SLOTS = 2  # replies side by side where an engine can


@dataclass(frozen=True)
class TalkHome:
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
    database: str = DEFAULT
    personas: str | None = None
    knowledge_base: str | None = None
    embedder: str | None = None
    chroma: str | None = None  # a Chroma server's URL; without one, vectors lie beside the database

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ, **given: object) -> TalkHome:
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


def newest_model(work_dirs: Path = Path("work_dirs")) -> str | None:
    """The model that was merged last below `work_dirs`, which `make demo` or a training has left."""
    found = [file.parent for file in work_dirs.glob("*/merged/config.json")]
    found += [file.parent for file in work_dirs.glob("*/*/merged/config.json")]
    newest = max(found, key=lambda folder: (folder / "config.json").stat().st_mtime, default=None)
    return str(newest) if newest else None


def open_talk(home: TalkHome) -> ChatService:
    """Everything opened; an ElysiaError with a sentence when something cannot be."""
    name = home.model or newest_model()
    if name is None:
        raise UsageError(
            "There is no model to talk to yet. `make demo` trains a small one in some minutes; or name "
            "one: a folder, a .gguf file, or the URL of a server, in ELYSIA_MODEL or with --model."
        )
    few_arenas()
    database = open_database(home.database)
    try:
        cast = Cast(
            database, Path(home.personas) if home.personas else configs_folder() / "personas"
        )
        surroundings = open_surroundings(home, database)
        settings = ChatSettings(
            name, adapter=home.adapter, engine=home.engine, remote_model=home.remote_model,
            prompt_template=home.prompt_template, context=home.context, threads=home.threads,
            slots=SLOTS,
        )  # fmt: skip
        engine, manner = open_engine(settings)
    except BaseException:
        database.close()
        raise
    model = Model(engine, manner.template, manner.system, manner.stop)
    return ChatService(database, cast, model, surroundings)


def open_surroundings(home: TalkHome, database: Database) -> Surroundings:
    """Memory and knowledge over the database; the characters' own documents are taken in."""
    from elysia.knowledge import shelves
    from elysia.memory import hybrid
    from elysia.retrieval.embed import open_embedder

    embedder, server = open_embedder(home.embedder), home.chroma
    folder = folder_beside(home.database) / "index"
    memory = hybrid.build(database, folder / "memory", embedder, server=server)
    knowledge = shelves.build(database, folder / "knowledge", embedder, server=server)
    beside = configs_folder().parent / "knowledge_base"
    take_in(knowledge, Path(home.knowledge_base) if home.knowledge_base else beside)
    return Surroundings(memory, knowledge)


def take_in(knowledge: Knowledge, folder: Path) -> None:
    """Bring every `folder/<character>` onto its shelf. What did not change is left as it is."""
    for shelf in sorted(folder.iterdir()) if folder.is_dir() else []:
        if shelf.is_dir():
            changed, removed, _ = knowledge.sync(f"character/{shelf.name}", shelf)
            if changed or removed:
                log.info("%s: %d documents taken in, %d removed", shelf, changed, removed)
