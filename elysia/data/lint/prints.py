"""Fingerprints of rows: a mark of the whole text, and a MinHash signature of it and its questions.

The signature (rensa) is over runs of four characters. Of each of its numbers the lowest 8 bits are
kept: two that differ agree in those once in 256 times, which is far below what 64 of them can tell.
Knows nothing of files or rows.
"""

from __future__ import annotations

import sys
from array import array
from hashlib import blake2b
from typing import NamedTuple

from rensa import RMinHash

SIZE = 64  # numbers of a signature
ASKS = 32  # numbers of the signature of the questions alone
RUN = 4  # characters of a shingle
SHORTEST = 12  # characters; shorter texts are compared exactly only
LONGEST = 20_000  # characters of a text that are looked at
_LOWEST = slice(0 if sys.byteorder == "little" else 3, None, 4)  # byte of each number


class Print(NamedTuple):
    """64 bits that stand for a text, and SIZE + ASKS bytes of signature (none of a short text)."""

    mark: int
    signature: bytes


def print_of(text: str, asks: str) -> Print | None:
    """The print of a row's text and its questions; None where there is no text."""
    text = text.strip()
    if not text:
        return None
    signed = len(text) >= SHORTEST
    made = _signature(text, SIZE) + _signature(asks, ASKS) if signed else b""
    return Print(mark_of(text), made)


def mark_of(text: str) -> int:
    """64 bits that stand for a text."""
    raw = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little")


def _signature(text: str, size: int) -> bytes:
    signature = RMinHash(num_perm=size, seed=1)
    # Half surrogates are no UTF-8, which the library wants.
    text = text[:LONGEST].encode("utf-8", "replace").decode()
    # One text at a time: the library's calls for many start threads, which no fork survives.
    signature.update([text[at : at + RUN] for at in range(max(1, len(text) - RUN + 1))])
    return array("I", signature.digest()).tobytes()[_LOWEST]
