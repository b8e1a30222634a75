"""Reads a file of any kind: plain text here, every other kind in a child process with limits.

The child has limits of memory, time and output, so that a hostile file costs its sender an error and
nobody else anything. `python -m elysia.knowledge.sandbox KIND SECONDS BYTES` is the child: it reads one
file from stdin and writes one JSON object to stdout, the ParsedText or a `fault` with code and params.
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
from pathlib import PurePosixPath
from typing import Any

from elysia.core.errors import KnowledgeError
from elysia.core.paths import PACKAGE
from elysia.knowledge.readers import PLAIN_KINDS, READERS, ParsedText, SectionHeading

MAX_FILE = 32 << 20  # bytes
MAX_NAME = 200  # characters
MAX_OUTPUT = 64 << 20  # bytes that a child may write
CPU_SECONDS = 30  # of a child's processor time; three times as much by the clock
MEMORY_BYTES = 1 << 30  # of a child's address space
_CHILD_SLOTS = threading.BoundedSemaphore(2)  # each may take as much memory as its limit


def read_file(name: str, content: bytes) -> ParsedText:
    """The text of a file. KnowledgeError, which begins with the name, when it cannot be read."""
    kind = get_file_kind(name)
    try:
        _check_content(kind, content)
        source = _read_here(kind, content) if kind in PLAIN_KINDS else _read_in_child(kind, content)
        if not source.text.strip():
            raise KnowledgeError("knowledge.no_text")
    except KnowledgeError as error:
        raise KnowledgeError("knowledge.unreadable", name=name, fault=error) from error
    return source


def get_file_kind(name: str) -> str:
    """A name's ending, in lower case. KnowledgeError for an invalid name and an unknown kind."""
    if not is_valid_name(name):
        raise KnowledgeError("knowledge.bad_name", name=repr(name[:80]), limit=MAX_NAME)
    kind = PurePosixPath(name).suffix.lower()
    kinds = sorted(READERS)
    if not kind:
        raise KnowledgeError("knowledge.no_ending", name=name, kinds=kinds)
    if kind not in READERS:
        raise KnowledgeError("knowledge.unknown_kind", name=name, kind=kind, kinds=kinds)
    return kind


def is_valid_name(name: str) -> bool:
    """Whether a name is one file's (no path), not hidden, and can be shown as it is."""
    if not name.strip() or len(name) > MAX_NAME or name.startswith("."):
        return False
    return not any(
        letter in "/\\:" or unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        for letter in name
    )


def _check_content(kind: str, content: bytes) -> None:
    """Refuse what size and first bytes show to be wrong."""
    if not content.strip(b"\x00 \t\r\n"):
        raise KnowledgeError("knowledge.empty_file")
    if len(content) > MAX_FILE:
        raise KnowledgeError("knowledge.file_too_large", limit=MAX_FILE >> 20)
    # A PDF may begin with other bytes, which readers skip.
    is_pdf, is_zip = b"%PDF-" in content[:1024], content.startswith(b"PK\x03\x04")
    if kind == ".pdf" and not is_pdf:
        raise KnowledgeError("knowledge.not_of_kind", kind="PDF")
    if kind in (".docx", ".epub") and not is_zip:
        if content.startswith(b"\xd0\xcf\x11\xe0"):
            raise KnowledgeError("knowledge.old_word_format")
        raise KnowledgeError("knowledge.not_of_kind", kind=kind[1:])
    if kind not in (".pdf", ".docx", ".epub") and (content.startswith(b"%PDF-") or is_zip):
        actual = "PDF" if is_pdf else "zip/docx/epub"
        raise KnowledgeError("knowledge.other_kind", kind=kind[1:], actual=actual)


def _read_here(kind: str, content: bytes) -> ParsedText:
    module, function = READERS[kind].split(":")
    source: ParsedText = getattr(importlib.import_module(module), function)(content)
    return source


def _read_in_child(kind: str, content: bytes) -> ParsedText:
    paths = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    module = "elysia.knowledge.sandbox"
    command = [sys.executable, "-m", module, kind, str(CPU_SECONDS), str(MEMORY_BYTES)]
    # Files and not pipes: nobody has to read and write at once.
    with _CHILD_SLOTS, tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout:
        stdin.write(content)
        stdin.seek(0)
        child = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
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
                raise KnowledgeError("knowledge.too_slow") from error
            raise
        stdout.seek(0)
        return _parse_answer(code, stdout.read())


def _parse_answer(code: int, output: bytes) -> ParsedText:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        raise KnowledgeError("knowledge.too_slow_or_large")
    try:
        answer = json.loads(output)
    except ValueError as error:
        raise KnowledgeError("knowledge.reader_ended", code=code) from error
    if "fault" in answer:
        raise KnowledgeError(answer["fault"], **answer["params"])
    headings = [SectionHeading(*heading) for heading in answer["headings"]]
    return ParsedText(answer["text"], headings, answer["pages"], answer["rows"])


def main() -> None:
    """The child. The limits come first; only then are parsers imported and the file looked at."""
    kind, seconds, memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for what, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, MAX_OUTPUT),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(what, (limit, limit))
    sys.stdout.write(json.dumps(build_answer(kind, sys.stdin.buffer.read())))


def build_answer(kind: str, content: bytes) -> dict[str, Any]:
    """What the child answers: the text of a file, or why it cannot be read."""
    try:
        source = _read_here(kind, content)
    except KnowledgeError as error:
        params = {n: v if isinstance(v, str | int) else str(v) for n, v in error.params.items()}
        return {"fault": error.code, "params": params}
    except MemoryError:
        return {"fault": "knowledge.too_large", "params": {}}
    except Exception as error:  # a parser that a damaged file confuses
        fault = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return {"fault": "knowledge.damaged", "params": {"fault": fault}}
    return {
        "text": source.text,
        "headings": [[heading.at, heading.level, heading.title] for heading in source.headings],
        "pages": source.pages,
        "rows": source.rows,
    }


if __name__ == "__main__":
    main()
