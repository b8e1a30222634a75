"""Lines of a byte stream as server-sent events define them.

A line ends at a line feed and nowhere else. Python's splitlines, and with it httpx's iter_lines, also
cuts at U+2028 and U+0085, which JSON may contain unescaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def iter_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    r"""The lines in `chunks` without their line ends, decoded from UTF-8; an unfinished last line, too.

    >>> list(iter_lines([b"data: a", b"b\r\n\nda", "ta: \x85\n".encode(), b"end"]))
    ['data: ab', '', 'data: \x85', 'end']
    """
    pending: list[bytes] = []  # parts of a line whose end has not come yet
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        pending.append(first)
        for other in others:
            yield _decode_line(pending)
            pending = [other]
    if any(pending):
        yield _decode_line(pending)


def _decode_line(parts: list[bytes]) -> str:
    return b"".join(parts).removesuffix(b"\r").decode("utf-8", "replace")
