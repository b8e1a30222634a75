"""Atomic writes: a file or folder appears complete or not at all.

Everything is written beside its target under a hidden temporary name and renamed when it is complete, so
a kill at any moment leaves what was there before.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from elysia.core.errors import ElysiaError, ExportError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Writers in Rust and in torch put the errno into a message only.
_FULL_WORDS = (
    "No space left",
    "File too large",
    "quota exceeded",
    "os error 28",
    "os error 27",
    "file write failed",
    "unexpected pos",
)


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Write `content` (text as UTF-8) so that `path` is the old file or the whole new one.

    Raises ElysiaError when the disk is full or refuses; no temporary file stays behind.
    """
    with staged_file(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def staged_file(path: str | Path) -> Iterator[BinaryIO]:
    """A binary stream to write. It becomes `path` when the block ends without an error, else it is removed.

    Raises ElysiaError when the disk is full or refuses.
    """
    path = Path(path)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w+b") as stream:
                yield stream
                stream.flush()
                os.fsync(
                    stream.fileno()
                )  # else a power cut could leave an empty file under the new name
            os.chmod(name, _get_default_mode(0o666))  # mkstemp's 0600 would hide it from a group
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def staged_folder(
    target: str | Path,
    fault: type[ElysiaError] = ExportError,
    *,
    replaces: Callable[[Path], bool] = lambda _: False,
) -> Iterator[Path]:
    """An empty folder to fill. It is renamed to `target` when the block ends without an error.

    On an error it is removed, and `target` stays as it was. Raises `fault` when the disk is full, or when
    `target` exists and is not empty; unless `replaces(target)` says that an earlier run of the same step
    wrote it, in which case the new folder takes its place.
    """
    target = Path(os.path.abspath(target))
    _refuse_foreign_folder(target, fault, replaces)
    with explain_write_errors(target, fault):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        staging = Path(
            tempfile.mkdtemp(
                prefix=f"{_get_staging_prefix(target)}{os.getpid()}.", dir=target.parent
            )
        )
    try:
        with explain_write_errors(target, fault):
            yield staging
            os.chmod(staging, _get_default_mode(0o777))
            _swap_in(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def explain_write_errors(path: Path, fault: type[ElysiaError] = ElysiaError) -> Iterator[None]:
    """Raise `fault` for a full disk or a refused write; other exceptions pass through."""
    try:
        yield
    except ElysiaError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise fault("core.disk_full", path=path, folder=path.parent) from error
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError):
            where = error.filename or path
            raise fault(
                "core.write_refused", path=path, where=where, reason=error.strerror
            ) from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception, from Python or a native writer, means that the disk is full."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(words in str(error) for words in _FULL_WORDS)


def render_json_lines(rows: Iterable[Any]) -> str:
    """Rows as JSON, a line each, as .jsonl files hold them."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def compute_sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _refuse_foreign_folder(
    target: Path, fault: type[ElysiaError], replaces: Callable[[Path], bool]
) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise fault("core.target_is_file", path=target)
    if any(target.iterdir()) and not replaces(target):
        raise fault("core.target_not_empty", path=target)


def _swap_in(staging: Path, target: Path) -> None:
    """Rename `staging` to `target`; a former `target` is moved aside, and back if the rename fails."""
    if not target.exists():
        os.replace(staging, target)
        return
    old = staging.with_name(f"{staging.name}.old")
    os.replace(target, old)
    try:
        os.replace(staging, target)
    except BaseException:
        os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove_leftovers(target: Path) -> None:
    """Remove the staging folders of killed runs beside `target`.

    A run that was killed between the two renames of `_swap_in` left the former folder aside; it is put
    back.
    """
    for leftover in sorted(target.parent.glob(f"{_get_staging_prefix(target)}*"), reverse=True):
        owner = leftover.name.removeprefix(_get_staging_prefix(target)).split(".")[0]
        if owner.isdigit() and _is_process_alive(int(owner)):
            continue
        if leftover.name.endswith(".old") and not target.exists():
            os.replace(leftover, target)
        else:
            shutil.rmtree(leftover, ignore_errors=True)


def _get_staging_prefix(target: Path) -> str:
    return f".{target.name}.writing-"


def _is_process_alive(process: int) -> bool:
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is alive and another user's
        return True
    return True


def _get_default_mode(mode: int) -> int:
    mask = os.umask(0)  # there is no other way to read it
    os.umask(mask)
    return mode & ~mask
