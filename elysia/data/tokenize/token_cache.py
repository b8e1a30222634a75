"""Tokens on disk, so that data is tokenized once.

One folder per entry, under `$ELYSIA_CACHE` or `~/.cache/elysia`. It is not in a work dir, since
training, evaluation rows, checks and the next run with another learning rate read the same tokens. An
entry is named by a digest of what it was made of, and appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from elysia.core.errors import DataError, ElysiaError
from elysia.core.files import compute_sha256, staged_folder
from elysia.data.tokenize.arrays import ARRAYS, TokenizedSource, concatenate

log = logging.getLogger(__name__)

FORMAT = "elysia-tokens/1"
ABOUT_FILE = "about.json"
# Code that decides what tokens a row becomes: the parts of elysia/ that a digest is taken of.
_CODE = (
    "data/*.py",
    "data/formats/*.py",
    "data/readers/*.py",
    "data/tokenize/*.py",
    "core/template*.py",
    "core/turn_rendering.py",
    "models/jinja_*.py",
)


def get_cache_folder() -> Path:
    """Where entries lie, and whatever else outlives a run (measurements of the hardware)."""
    named = os.environ.get("ELYSIA_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "elysia"


def load_or_build(
    key: dict[str, Any], build: Callable[[], Iterable[TokenizedSource]], limit: float
) -> TokenizedSource:
    """The tokens of `key`: those of an entry, mapped from disk, else those that `build` gives part by
    part, which become a new entry.

    key: what the tokens are made of, JSON-ready; different keys never share an entry. limit: GB that
    all entries may take; the least recently used go first. Several processes may ask at once: one
    builds the entry while the others wait. Where nothing can be written, or the disk fills up, the
    tokens stay in memory, with a warning.
    """
    text = json.dumps(key | {"format": FORMAT, "code": _code_digest()}, sort_keys=True)
    entry = get_cache_folder() / "tokens" / hashlib.sha256(text.encode()).hexdigest()[:32]
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock = open(entry.with_suffix(".lock"), "w")  # noqa: SIM115
    except OSError as error:
        return _build_in_memory(build, error)
    with lock, _locked(lock):
        if entry.is_dir():
            try:
                tokens = read_entry(entry, text)
                os.utime(entry / ABOUT_FILE)  # marks it as just used
                _log_on_first_rank("Tokens taken from %s", entry)
                return tokens
            except DataError as error:
                log.warning("%s They are built again.", error)
        try:
            with staged_folder(entry, DataError, replaces=lambda _: True) as staging:
                write_entry(build(), staging, text)
        except DataError as error:
            if not isinstance(error.__cause__, OSError):
                raise  # the fault of a row, not of the disk
            return _build_in_memory(build, error.__cause__)
        _log_on_first_rank("Tokens kept in %s", entry)
        _evict(entry, limit)
        return read_entry(entry, text)


def _build_in_memory(
    build: Callable[[], Iterable[TokenizedSource]], error: OSError
) -> TokenizedSource:
    place = error.filename or get_cache_folder()
    log.warning("Tokens are not cached but held in memory: %s (%s).", place, error.strerror)
    return concatenate(list(build()))


def write_entry(parts: Iterable[TokenizedSource], folder: Path, key: str) -> None:
    """Write the parts of a source into an empty folder, one after another: memory holds one at a
    time."""
    names: tuple[str, ...] = ()
    digests = {name: hashlib.sha256() for name in ARRAYS}
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / f"{name}.i4").open("wb")) for name in ARRAYS}
        for part in parts:
            names = part.names
            for name, file in files.items():
                content = np.ascontiguousarray(getattr(part, name), dtype="<i4").data
                file.write(content)
                digests[name].update(content)
    sums = {name: digest.hexdigest() for name, digest in digests.items()}
    about = {"made_of": key, "names": names, "sha256": sums}
    (folder / ABOUT_FILE).write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")


def read_entry(entry: Path, key: str) -> TokenizedSource:
    """An entry, mapped from disk; DataError when it is damaged or made of something else."""
    try:
        about = json.loads((entry / ABOUT_FILE).read_text(encoding="utf-8"))
        whole = about["made_of"] == key and all(
            compute_sha256(entry / f"{name}.i4") == about["sha256"][name] for name in ARRAYS
        )
        if not whole:
            raise DataError("data.cache_damaged", path=entry)
        arrays: dict[str, Any] = {name: _map_array(entry / f"{name}.i4") for name in ARRAYS}
        return TokenizedSource(**arrays, names=tuple(about["names"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("data.cache_unreadable", path=entry, detail=str(error)) from error


def _map_array(path: Path) -> Any:
    if not path.stat().st_size:
        return np.zeros(0, np.int32)  # an empty file cannot be mapped
    return np.memmap(path, dtype="<i4", mode="r")


def _evict(entry: Path, limit: float) -> None:
    """Remove entries beside `entry`, least recently used first, until all take at most `limit` GB.

    An entry that another process reads at this moment stays; what is mapped outlives its name.
    """
    entries = []
    for other in entry.parent.iterdir():
        try:
            size = sum(file.stat().st_size for file in other.iterdir())
            entries.append(((other / ABOUT_FILE).stat().st_mtime, size, other))
        except OSError:
            continue  # a lock file, or removed meanwhile
    total = sum(size for _, size, _ in entries)
    for _, size, other in sorted(entries):
        if total <= limit * 1e9:
            return
        if other != entry and _try_remove(other):
            total -= size
            _log_on_first_rank("Least recently used tokens removed: %s", other)


def _try_remove(entry: Path) -> bool:
    with open(entry.with_suffix(".lock"), "w") as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (ImportError, OSError):
            return False  # in use, or there is no way to know
        shutil.rmtree(entry, ignore_errors=True)
        return not entry.exists()


def _code_digest() -> str:
    """A digest of the code that makes tokens: those of another version are never reused."""
    package = Path(__file__).parents[2]
    files = [file for pattern in _CODE for file in sorted(package.glob(pattern))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@contextmanager
def _locked(lock: IO[str]) -> Iterator[None]:
    """Exclude the other processes of this machine from an entry. The system releases the lock of a
    killed process. Where there are no such locks, each process builds its own entry and the last one
    stays."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:  # a file system without locks
        raise ElysiaError("data.cache_no_locks", path=lock.name, detail=error.strerror) from error
    yield


def _log_on_first_rank(text: str, entry: Path) -> None:
    if os.environ.get("RANK", "0") == "0":
        log.info(text, entry)
