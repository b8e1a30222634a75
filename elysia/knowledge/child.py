"""`python -m elysia.knowledge.child KIND SECONDS BYTES`: read one file from stdin, within limits.

Writes one JSON object to stdout: the Source, or `fault`, the end of a sentence. Knows nothing of who
asks.
"""

from __future__ import annotations

import resource
import sys

OUTPUT = 64 << 20  # bytes


def main() -> None:
    """Set the limits first; only then import parsers and look at the file."""
    kind, seconds, memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for what, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, OUTPUT),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(what, (limit, limit))
    import json

    sys.stdout.write(json.dumps(answer(kind, sys.stdin.buffer.read())))


def answer(kind: str, content: bytes) -> dict[str, object]:
    """What is said of a file."""
    import importlib

    from elysia.core.errors import KnowledgeError
    from elysia.knowledge.readers import KINDS

    module, function = KINDS[kind].split(":")
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
