"""Nearest neighbours by embedding, stored in Chroma: in a folder of this machine, or at a server.

Each scope is a Chroma collection of its own, so a search cannot see another scope's texts. At a
server, which others may use too, an index's collections carry a name of its own. Embedded Chroma
bears one process at a time; a lock keeps others out. Vectors are always computed here: Chroma's
default embedder would download a model.
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
    """Vectors of texts under scopes. StoreError when Chroma is missing, locked or unreachable.

    `was_reset` is true when vectors were lost: the folder was damaged, or a server is new or has
    lost its data.
    """

    def __init__(self, folder: Path, embedder: Embedder, server: str | None = None) -> None:
        self.was_reset = False
        self._embedder = embedder
        self._namespace = folder.parent.name
        self._lock: int | None = None
        self._client: Any = None
        if server:
            self._client = _connect_to_server(server)
            self._namespace = _load_index_name(folder)
            self.was_reset = self._is_new_at_server()
        else:
            self._lock = _lock_folder(folder)
            try:
                self._client = self._open_folder(folder)
            except BaseException:
                self.close()
                raise

    def add(self, scope: str, items: Sequence[tuple[str, str]]) -> None:
        """Embed and store (id, text) pairs; one that is stored with the same text is skipped."""
        collection = self._get_collection(scope, create=True)
        for start in range(0, len(items), BATCH_SIZE):
            batch = items[start : start + BATCH_SIZE]
            checksums = [
                hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() for _, text in batch
            ]
            stored = collection.get(ids=[identity for identity, _ in batch], include=["metadatas"])
            known = {
                identity: (metadata or {}).get("sha256")
                for identity, metadata in zip(stored["ids"], stored["metadatas"], strict=True)
            }
            new = [
                n for n, (identity, _) in enumerate(batch) if known.get(identity) != checksums[n]
            ]
            if new:
                collection.upsert(
                    ids=[batch[n][0] for n in new],
                    embeddings=self._embedder.embed([batch[n][1] for n in new]),
                    metadatas=[{"sha256": checksums[n]} for n in new],
                )

    def remove(self, scope: str, ids: Iterable[str]) -> None:
        """Remove vectors; unknown ids are ignored."""
        collection, ids = self._get_collection(scope), list(ids)
        if collection is not None:
            for start in range(0, len(ids), BATCH_SIZE):
                collection.delete(ids=ids[start : start + BATCH_SIZE])

    def remove_scope(self, scope: str) -> None:
        """Remove every vector of a scope."""
        if self._get_collection(scope) is not None:
            self._client.delete_collection(self._collection_name(scope))

    def search(self, scopes: Sequence[str], question: str, k: int) -> list[tuple[str, float]]:
        """The nearest `k` of these scopes as (id, cosine similarity), nearest first."""
        collections = [
            collection
            for scope in scopes
            if (collection := self._get_collection(scope)) is not None and collection.count()
        ]
        if not collections or not question.strip() or k < 1:
            return []
        [vector] = self._embedder.embed([question], question=True)
        hits: list[tuple[str, float]] = []
        for collection in collections:
            answer = collection.query(query_embeddings=[vector], n_results=k, include=["distances"])
            pairs = zip(answer["ids"][0], answer["distances"][0], strict=True)
            hits += [(identity, 1.0 - distance) for identity, distance in pairs]
        return sorted(hits, key=lambda hit: -hit[1])[:k]

    def count(self, scope: str) -> int:
        """How many vectors a scope has."""
        collection = self._get_collection(scope)
        return 0 if collection is None else int(collection.count())

    def close(self) -> None:
        """Release the folder for other processes."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open_folder(self, folder: Path) -> Any:
        chroma = _import_chroma()
        store = folder / "chroma"
        try:
            return _open_embedded(chroma, store)
        except Exception as error:
            log.warning("The vectors in %s are damaged (%s) and are computed again.", store, error)
        _clear_client_cache()
        shutil.rmtree(store, ignore_errors=True)
        self.was_reset = True
        return _open_embedded(chroma, store)

    def _is_new_at_server(self) -> bool:
        """Whether the server does not know this index: it is new, or the server lost its data."""
        from chromadb.errors import NotFoundError

        marker = f"elysia-{self._namespace}"
        try:
            self._client.get_collection(marker, embedding_function=None)
        except NotFoundError:
            self._client.get_or_create_collection(marker, embedding_function=None)
            return True
        return False

    def _get_collection(self, scope: str, create: bool = False) -> Any:
        """The scope's collection; None when it does not exist and is not to be created."""
        name = self._collection_name(scope)
        if create:
            return self._client.get_or_create_collection(
                name, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
            )
        from chromadb.errors import NotFoundError

        try:
            return self._client.get_collection(name, embedding_function=None)
        except NotFoundError:
            return None

    def _collection_name(self, scope: str) -> str:
        # Vectors of another model or length never share a collection with these.
        parts = f"{self._namespace}\n{self._embedder.name}\n{self._embedder.dimensions}\n{scope}"
        return "elysia-" + hashlib.sha256(parts.encode("utf-8", "replace")).hexdigest()[:48]


def _import_chroma() -> Any:
    os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
    try:
        import chromadb
    except ImportError as error:
        raise StoreError("retrieval.chroma_missing", fault=error) from error
    return chromadb


def _open_embedded(chroma: Any, folder: Path) -> Any:
    settings = chroma.Settings(anonymized_telemetry=False, allow_reset=False)
    client = chroma.PersistentClient(path=str(folder), settings=settings)
    for collection in client.list_collections():
        collection.count()  # reads the files, so that damage shows here and not in a search
    return client


def _connect_to_server(server: str) -> Any:
    chroma = _import_chroma()
    url = urlparse(server)
    try:
        return chroma.HttpClient(
            host=url.hostname or "127.0.0.1",
            port=url.port or (443 if url.scheme == "https" else 8000),
            ssl=url.scheme == "https",
            settings=chroma.Settings(anonymized_telemetry=False),
        )
    except Exception as error:
        address = f"{url.hostname}:{url.port or ''}"
        raise StoreError("retrieval.chroma_unreachable", address=address, fault=error) from error


def _load_index_name(folder: Path) -> str:
    """The index's own name at a server, generated at first use."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "name"
    try:
        with file.open("x", encoding="ascii") as stream:
            stream.write(secrets.token_hex(16))
    except FileExistsError:
        pass
    return file.read_text(encoding="ascii")


def _lock_folder(folder: Path) -> int:
    """Lock the folder for this process; the lock's file descriptor. StoreError when it is locked."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreError("retrieval.vectors_in_use", folder=folder) from error
    return descriptor


def _clear_client_cache() -> None:
    """Chroma caches what it opened at a path, damaged or not, for the life of the process."""
    from chromadb.api.shared_system_client import SharedSystemClient

    SharedSystemClient.clear_system_cache()
