"""From a file's name and bytes to its Source: what kind it is, and a child process that reads it.

The child has limits of memory, time and output, so that a hostile file costs its sender an error
and nobody else anything. Knows nothing of shelves, splitting or indexes.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import unicodedata
from pathlib import Path, PurePosixPath

from elysia.core.errors import KnowledgeError
from elysia.knowledge.readers import PLAIN_KINDS, READERS, ParsedText, SectionHeading

MAX_FILE = 32 << 20  # bytes
MAX_NAME = 200
CPU_SECONDS = 30  # of a child's processor time; three times as much by the clock
MEMORY_BYTES = 1 << 30  # bytes of a child's address space
_CHILD_SLOTS = threading.BoundedSemaphore(2)  # each may take as much memory as its limit


def read_file(name: str, content: bytes) -> ParsedText:
    """The text of a file. KnowledgeError, a sentence that begins with its name, for any that cannot
    be read.
    """
    kind = get_file_kind(name)
    try:
        _check_content(kind, content)
        source = _read_here(kind, content) if kind in PLAIN_KINDS else _read_in_child(kind, content)
        if not source.text.strip():
            raise KnowledgeError("there is no text in it.")
    except KnowledgeError as error:
        raise KnowledgeError(f"{name}: {error}") from error
    return source


def get_file_kind(name: str) -> str:
    """The ending of a name, in small letters. KnowledgeError for a name or kind that is not taken."""
    if not is_valid_name(name):
        raise KnowledgeError(
            f"{name[:80]!r} cannot be a document's name: no folders, no control characters, at most "
            f"{MAX_NAME} characters."
        )
    kind = PurePosixPath(name).suffix.lower()
    if kind not in READERS:
        raise KnowledgeError(
            f"{name}: {kind or 'a file without an ending'} is not read here; these are: "
            f"{', '.join(sorted(READERS))}."
        )
    return kind


def is_valid_name(name: str) -> bool:
    """Whether a name is one file's, and can be shown as it is."""
    plain = bool(name.strip()) and len(name) <= MAX_NAME and not name.startswith(".")
    return plain and not any(
        letter in "/\\:" or unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        for letter in name
    )


def _check_content(kind: str, content: bytes) -> None:
    """Raises for what can be told by size and first bytes."""
    if not content.strip(b"\x00 \t\r\n"):
        raise KnowledgeError("the file is empty.")
    if len(content) > MAX_FILE:
        raise KnowledgeError(f"the file has more than {MAX_FILE >> 20} MB; split it.")
    pdf, packed = b"%PDF-" in content[:1024], content.startswith(b"PK\x03\x04")
    if kind == ".pdf" and not pdf:
        raise KnowledgeError("it is no PDF, whatever its name says.")
    if kind in (".docx", ".epub") and not packed:
        old = content.startswith(b"\xd0\xcf\x11\xe0")
        raise KnowledgeError(
            "it is of Word's old kind, or encrypted; save it as .docx without a password."
            if old
            else f"it is no {kind[1:]}, whatever its name says."
        )
    if kind not in (".pdf", ".docx", ".epub") and (content.startswith(b"%PDF-") or packed):
        raise KnowledgeError(
            f"it is no {kind[1:]} but a {'PDF' if pdf else 'zip, docx or epub'}; name it so."
        )


def _read_here(kind: str, content: bytes) -> ParsedText:
    module, function = READERS[kind].split(":")
    source: ParsedText = getattr(importlib.import_module(module), function)(content)
    return source


def _read_in_child(kind: str, content: bytes) -> ParsedText:
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [
        sys.executable,
        "-m",
        "elysia.knowledge.sandbox",
        kind,
        str(CPU_SECONDS),
        str(MEMORY_BYTES),
    ]
    with _CHILD_SLOTS, tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as made:
        given.write(content)
        given.seek(0)
        child = subprocess.Popen(
            command,
            stdin=given,
            stdout=made,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,
        )
        try:
            code = child.wait(timeout=CPU_SECONDS * 3)
        except BaseException as error:
            child.kill()
            child.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise KnowledgeError(_too_much("time")) from error
            raise
        made.seek(0)
        return _parse_answer(code, made.read())


def _parse_answer(code: int, made: bytes) -> ParsedText:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        raise KnowledgeError(_too_much("time or memory"))
    try:
        said = json.loads(made)
    except ValueError as error:
        raise KnowledgeError(
            f"reading it ended the reader (code {code}); it is damaged, or needs more memory than "
            "is granted. Save it as plain text."
        ) from error
    if "fault" in said:
        raise KnowledgeError(said["fault"])
    headings = [SectionHeading(*heading) for heading in said["headings"]]
    return ParsedText(said["text"], headings, said["pages"], said["rows"])


def _too_much(what: str) -> str:
    return f"reading it takes more {what} than is granted; split it, or save it as plain text."


MAX_OUTPUT = 64 << 20  # bytes


def main() -> None:
    """Set the limits first; only then import parsers and look at the file."""
    kind, seconds, memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for what, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, MAX_OUTPUT),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(what, (limit, limit))
    import json

    sys.stdout.write(json.dumps(build_answer(kind, sys.stdin.buffer.read())))


def build_answer(kind: str, content: bytes) -> dict[str, object]:
    """What is said of a file."""
    import importlib

    from elysia.core.errors import KnowledgeError
    from elysia.knowledge.readers import READERS

    module, function = READERS[kind].split(":")
    try:
        source = getattr(importlib.import_module(module), function)(content)
    except KnowledgeError as error:
        return {"fault": str(error)}
    except MemoryError:
        return {
            "fault": "reading it takes more memory than is granted; split it, or save it as plain text."
        }
    except Exception as error:  # a parser's own mistake over a damaged file
        said = " ".join(str(error).split())[:200]
        return {"fault": f"it is damaged and cannot be read ({type(error).__name__}: {said})."}
    return {
        "text": source.text,
        "headings": [[one.at, one.level, one.title] for one in source.headings],
        "pages": source.pages,
        "rows": source.rows,
    }


if __name__ == "__main__":
    main()
