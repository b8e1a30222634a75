"""What a row became: one conversation, or the two of a preference pair, and where it came from.

Knows nothing of how rows are read, or of tokens.
"""

from __future__ import annotations

from typing import NamedTuple

from elysia.core.messages import Message
from elysia.core.templates import TextPiece
from elysia.data.tokenize.encoder import EncodedSample


class Sample(NamedTuple):
    """One conversation, and the file and row (from 1) it came from.

    A row that no template is to touch has no messages: it brings `turns`, its own marked-up text
    (the first group is what stands before the first turn), or `encoded`, its tokens.
    """

    messages: list[Message]
    file: str
    row: int
    turns: tuple[tuple[TextPiece, ...], ...] = ()
    encoded: EncodedSample | None = None


SampleGroup = tuple[
    Sample, ...
]  # what stays together: one sample, or a pair's two (chosen, rejected)
