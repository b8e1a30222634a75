"""Lines of a stream of bytes, as server-sent events have them.

A line ends at a line feed and nowhere else: JSON may hold U+2028 or U+0085 as they are, at which
Python's splitlines (and so httpx's iter_lines) would cut it. Knows nothing of what a line says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def iter_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    r"""The lines in `chunks`, without their ends; the last one even if it has none.

    >>> list(iter_lines([b"data: a", b"b\r\n\nda", "ta: \x85\n".encode(), b"end"]))
    ['data: ab', '', 'data: \x85', 'end']
    """
    held: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        held.append(first)
        for other in others:
            yield _decode_line(held)
            held = [other]
    if any(held):
        yield _decode_line(held)


def _decode_line(parts: list[bytes]) -> str:
    return b"".join(parts).removesuffix(b"\r").decode("utf-8", "replace")
