"""Files and folders that appear whole or not at all.

Everything is built beside its target under a hidden temporary name and renamed when it is complete,
so a kill at any moment leaves what was there before. Knows nothing of what the bytes mean.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from elysia.core.errors import ElysiaError, ExportError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Rust's and torch's writers hide errno inside a message.
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

    Raises ElysiaError with a sentence when the disk refuses; no temporary file stays behind.
    """
    with staged_file(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def staged_file(path: str | Path) -> Iterator[BinaryIO]:
    """A binary stream to write; it becomes `path` when the block ends well, else nothing stays.

    Raises ElysiaError with a sentence when the disk refuses.
    """
    path = Path(path)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w+b") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
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
    """Give an empty folder beside `target`; rename it to `target` when the block ends well.

    On any failure it is removed and `target` is as it was. A target that exists and is not empty is
    refused with `fault`, unless `replaces(target)` says that an earlier run of the same step left
    it: then the new folder takes its place. A full disk is raised as `fault`, a sentence.
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
    """Turn what a disk says into a sentence; other faults pass through as they are."""
    try:
        yield
    except ElysiaError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise fault(
                f"{path} was not written: the disk is full. Nothing half-written was left; "
                f"make room on the disk of {path.parent} and run it again."
            ) from error
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError):
            where = error.filename or path
            raise fault(f"{path} was not written: {where}: {error.strerror}.") from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception, of Python or of a native writer, says that no room was left."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(words in str(error) for words in _FULL_WORDS)


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
        raise fault(f"{target} is a file; name a folder to write.")
    if any(target.iterdir()) and not replaces(target):
        raise fault(
            f"{target} is not empty and was not written by this command; "
            "name another folder, or remove it first."
        )


def _swap_in(staging: Path, target: Path) -> None:
    """Rename; the folder that was there is moved aside first and comes back if the rename fails."""
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
    """Clear what killed runs left beside `target`.

    A run killed between the two renames left the former folder aside: it comes back.
    """
    for left in sorted(target.parent.glob(f"{_get_staging_prefix(target)}*"), reverse=True):
        owner = left.name.removeprefix(_get_staging_prefix(target)).split(".")[0]
        if owner.isdigit() and _is_process_alive(int(owner)):
            continue
        if left.name.endswith(".old") and not target.exists():
            os.replace(left, target)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _get_staging_prefix(target: Path) -> str:
    return f".{target.name}.writing-"


def _is_process_alive(process: int) -> bool:
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _get_default_mode(mode: int) -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mode & ~mask
