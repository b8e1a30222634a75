"""Tokens on disk, so that data is tokenized once: found again by what they were made of, and only
whole.

A folder an entry, under `$ELYSIA_CACHE` or `~/.cache/elysia`: not in a work dir, since training, the
held-out rows, the checks and the next run with another learning rate all read the same tokens.
Knows nothing of how tokens are made.
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
ABOUT = "about.json"


def get_cache_folder() -> Path:
    """Where entries lie, and what else is kept from run to run (train/roofline.py)."""
    named = os.environ.get("ELYSIA_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "elysia"


def load_or_build(
    made_of: dict[str, Any], make: Callable[[], Iterable[TokenizedSource]], room: float
) -> TokenizedSource:
    """The tokens that are made of `made_of`: an entry's, mapped from disk, else those that `make`
    gives part by part, kept as a new entry.

    made_of: JSON-ready; two that differ never share an entry. room: GB that entries may take; those
    that were not used for longest go first. Several processes may ask at once: one makes the entry
    while the others wait for it. Where nothing can be written, or the disk becomes full, the tokens
    are kept in memory, with a warning.
    """
    text = json.dumps(made_of | {"format": FORMAT, "code": _code_digest()}, sort_keys=True)
    entry = get_cache_folder() / "tokens" / hashlib.sha256(text.encode()).hexdigest()[:32]
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock = open(entry.with_suffix(".lock"), "w")  # noqa: SIM115
    except OSError as error:
        return _build_in_memory(make, error)
    with lock, _locked(lock):
        if entry.is_dir():
            try:
                found = read_entry(entry, text)
                os.utime(entry / ABOUT)  # used now
                _log_on_first_rank("Tokens taken from %s", entry)
                return found
            except DataError as error:
                log.warning("%s They are made anew.", error)
        try:
            with staged_folder(entry, DataError, replaces=lambda _: True) as staging:
                write_entry(make(), staging, text)
        except DataError as error:
            if not isinstance(error.__cause__, OSError):
                raise  # a row's fault, not the disk's
            return _build_in_memory(make, error.__cause__)
        _log_on_first_rank("Tokens kept in %s", entry)
        _evict(entry, room)
        return read_entry(entry, text)


def _build_in_memory(
    make: Callable[[], Iterable[TokenizedSource]], error: OSError
) -> TokenizedSource:
    place = error.filename or get_cache_folder()
    log.warning("Tokens are not kept but held in memory: %s (%s).", place, error.strerror)
    return concatenate(list(make()))


def write_entry(parts: Iterable[TokenizedSource], place: Path, text: str) -> None:
    """Parts of one source into an empty folder, one after another: memory holds one at a time."""
    names: tuple[str, ...] = ()
    digests = {name: hashlib.sha256() for name in ARRAYS}
    with ExitStack() as stack:
        files = {name: stack.enter_context((place / f"{name}.i4").open("wb")) for name in ARRAYS}
        for part in parts:
            names = part.names
            for name, file in files.items():
                content = np.ascontiguousarray(getattr(part, name), dtype="<i4").data
                file.write(content)
                digests[name].update(content)
    sums = {name: digest.hexdigest() for name, digest in digests.items()}
    about = {"made_of": text, "names": names, "sha256": sums}
    (place / ABOUT).write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")


def _evict(entry: Path, room: float) -> None:
    """Remove entries beside `entry` until all take at most `room` GB, the longest unused first.

    One that another process reads at this moment stays; what is mapped already outlives its name.
    """
    found = []
    for other in entry.parent.iterdir():
        try:
            size = sum(file.stat().st_size for file in other.iterdir())
            found.append(((other / ABOUT).stat().st_mtime, size, other))
        except OSError:
            continue  # a lock, or gone meanwhile
    total = sum(size for _, size, _ in found)
    for _, size, other in sorted(found):
        if total <= room * 1e9:
            return
        if other != entry and _try_remove(other):
            total -= size
            _log_on_first_rank("Tokens not used for longest removed: %s", other)


def _try_remove(entry: Path) -> bool:
    with open(entry.with_suffix(".lock"), "w") as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (ImportError, OSError):
            return False  # in use, or nobody can tell
        shutil.rmtree(entry, ignore_errors=True)
        return not entry.exists()


def read_entry(entry: Path, text: str) -> TokenizedSource:
    """An entry, mapped; DataError when it is damaged or made of something else."""
    try:
        about = json.loads((entry / ABOUT).read_text(encoding="utf-8"))
        whole = about["made_of"] == text and all(
            compute_sha256(entry / f"{name}.i4") == about["sha256"][name] for name in ARRAYS
        )
        if not whole:
            raise DataError(f"The kept tokens in {entry} are damaged.")
        arrays: dict[str, Any] = {name: _map_array(entry / f"{name}.i4") for name in ARRAYS}
        return TokenizedSource(**arrays, names=tuple(about["names"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"The kept tokens in {entry} cannot be read ({error}).") from error


def _map_array(path: Path) -> Any:
    if not path.stat().st_size:
        return np.zeros(0, np.int32)  # nothing cannot be mapped
    return np.memmap(path, dtype="<i4", mode="r")


def _code_digest() -> str:
    """A digest of the code that makes tokens: another version's are never taken for ours."""
    here = Path(__file__).parent
    files = [*sorted(here.glob("*.py")), *sorted((here.parent / "core").glob("template*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@contextmanager
def _locked(lock: IO[str]) -> Iterator[None]:
    """Alone with an entry, among the processes of this machine. The system lets go for a process
    that is killed. Where there are no such locks, each makes its own and the last one stays."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:  # a file system without locks
        raise ElysiaError(
            f"{lock.name} cannot be locked ({error.strerror}): set ELYSIA_CACHE to a folder on a "
            "local disk, or token_cache = False."
        ) from error
    yield


def _log_on_first_rank(text: str, entry: Path) -> None:
    if os.environ.get("RANK", "0") == "0":
        log.info(text, entry)
