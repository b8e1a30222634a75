"""Finding texts by their vectors, kept in Chroma: in a folder of this machine, or at a server.

A scope is a collection of its own, so a search cannot see another's; at a server, which others may
use too, an index's collections bear a name of its own. The embedded Chroma bears one process at a
time: a lock keeps the others out. Chroma never embeds anything itself (its default would download a
model). Knows nothing of words.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from elysia.core.errors import StoreError
from elysia.retrieval.embedders import Embedder

log = logging.getLogger(__name__)

BATCH_SIZE = 256  # texts handed to Chroma at once


class VectorIndex:
    """Vectors of texts under scopes. StoreError when Chroma is missing, held or out of reach."""

    def __init__(self, folder: Path, embedder: Embedder, server: str | None = None) -> None:
        self.was_reset = False  # what was there was damaged or lost, and is gone
        self._embedder = embedder
        self._kind = folder.parent.name
        self._lock: int | None = None
        self._client: Any = None
        if server:
            self._client = _connect_to_server(server)
            self._kind = _load_index_name(folder)
            self.was_reset = self._is_new_there()
        else:
            self._lock = _lock_folder(folder)
            try:
                self._client = self._opened(folder)
            except BaseException:
                self.close()
                raise

    def add(self, scope: str, items: Sequence[tuple[str, str]]) -> None:
        """Embed and keep (id, text); what is there with the same text is left as it is."""
        collection = self._collection(scope, make=True)
        for start in range(0, len(items), BATCH_SIZE):
            part = items[start : start + BATCH_SIZE]
            marks = [
                hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() for _, text in part
            ]
            there = collection.get(ids=[identity for identity, _ in part], include=["metadatas"])
            known = {
                identity: (metadata or {}).get("sha256")
                for identity, metadata in zip(there["ids"], there["metadatas"], strict=True)
            }
            new = [place for place, (one, _) in enumerate(part) if known.get(one) != marks[place]]
            if new:
                collection.upsert(
                    ids=[part[place][0] for place in new],
                    embeddings=self._embedder.embed([part[place][1] for place in new]),
                    metadatas=[{"sha256": marks[place]} for place in new],
                )

    def remove(self, scope: str, ids: Iterable[str]) -> None:
        """Take vectors out; ids that are not there are passed over."""
        collection, gone = self._collection(scope), list(ids)
        if collection is not None:
            for start in range(0, len(gone), BATCH_SIZE):
                collection.delete(ids=gone[start : start + BATCH_SIZE])

    def remove_scope(self, scope: str) -> None:
        """Take every vector of a scope out."""
        if self._collection(scope) is not None:
            self._client.delete_collection(self._name(scope))

    def search(self, scopes: Sequence[str], question: str, k: int) -> list[tuple[str, float]]:
        """The nearest `k` of these scopes as (id, cosine), nearest first."""
        collections = [found for scope in scopes if (found := self._collection(scope)) is not None]
        collections = [collection for collection in collections if collection.count()]
        if not collections or not question.strip() or k < 1:
            return []
        [vector] = self._embedder.embed([question], question=True)
        hits: list[tuple[str, float]] = []
        for collection in collections:
            found = collection.query(query_embeddings=[vector], n_results=k, include=["distances"])
            pairs = zip(found["ids"][0], found["distances"][0], strict=True)
            hits += [(identity, 1.0 - distance) for identity, distance in pairs]
        return sorted(hits, key=lambda hit: -hit[1])[:k]

    def count(self, scope: str) -> int:
        """How many vectors a scope has."""
        collection = self._collection(scope)
        return 0 if collection is None else int(collection.count())

    def close(self) -> None:
        """Let another process have the folder."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _opened(self, folder: Path) -> Any:
        chroma = _import_chroma()
        store = folder / "chroma"
        try:
            return _open_embedded(chroma, store)
        except Exception as error:
            log.warning("The vectors in %s are damaged (%s) and are made anew.", store, error)
        _clear_client_cache()
        shutil.rmtree(store, ignore_errors=True)
        self.was_reset = True
        return _open_embedded(chroma, store)

    def _is_new_there(self) -> bool:
        """Whether the server does not know this index: a new one, or the server has lost its data."""
        from chromadb.errors import NotFoundError

        known = f"elysia-{self._kind}"
        try:
            self._client.get_collection(known, embedding_function=None)
        except NotFoundError:
            self._client.get_or_create_collection(known, embedding_function=None)
            return True
        return False

    def _collection(self, scope: str, make: bool = False) -> Any:
        name = self._name(scope)
        if make:
            return self._client.get_or_create_collection(
                name, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
            )
        from chromadb.errors import NotFoundError

        try:
            return self._client.get_collection(name, embedding_function=None)
        except NotFoundError:
            return None

    def _name(self, scope: str) -> str:
        whose = f"{self._kind}\n{self._embedder.name}\n{self._embedder.dimensions}\n{scope}"
        return "elysia-" + hashlib.sha256(whose.encode("utf-8", "replace")).hexdigest()[:48]


def _import_chroma() -> Any:
    os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
    try:
        import chromadb
    except ImportError as error:
        raise StoreError(
            f"Chroma is not installed here ({error}); pip install -r requirements/chat.lock. "
            "Texts are found by their words until then."
        ) from error
    return chromadb


def _open_embedded(chroma: Any, folder: Path) -> Any:
    settings = chroma.Settings(anonymized_telemetry=False, allow_reset=False)
    client = chroma.PersistentClient(path=str(folder), settings=settings)
    for collection in client.list_collections():
        collection.count()  # reads: what is damaged shows here
    return client


def _connect_to_server(server: str) -> Any:
    chroma = _import_chroma()
    where = urlparse(server)
    try:
        return chroma.HttpClient(
            host=where.hostname or "127.0.0.1",
            port=where.port or (443 if where.scheme == "https" else 8000),
            ssl=where.scheme == "https",
            settings=chroma.Settings(anonymized_telemetry=False),
        )
    except Exception as error:
        raise StoreError(
            f"No Chroma server answers at {where.hostname}:{where.port or ''} ({error}). "
            "Texts are found by their words until it does."
        ) from error


def _load_index_name(folder: Path) -> str:
    """The index's own name, made at first use."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "name"
    try:
        with file.open("x", encoding="ascii") as stream:
            stream.write(secrets.token_hex(16))
    except FileExistsError:
        pass
    return file.read_text(encoding="ascii")


def _lock_folder(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreError(
            f"The vectors in {folder} are in use by another process, and Chroma's folder bears one; "
            "texts are found by their words here. A Chroma server bears many."
        ) from error
    return descriptor


def _clear_client_cache() -> None:
    """Chroma keeps what it opened at a path, damaged or not, for the life of the process."""
    from chromadb.api.shared_system_client import SharedSystemClient

    SharedSystemClient.clear_system_cache()
