"""What a dataset row becomes: a conversation, or the two of a preference pair, with its origin."""

from __future__ import annotations

from typing import NamedTuple

from elysia.core.messages import Message
from elysia.core.templates import TextPiece

IGNORE = -100  # the label that a loss leaves out (torch's default)


class EncodedSample(NamedTuple):
    """Token ids, and as many labels: the id itself where it is learned, IGNORE elsewhere."""

    ids: list[int]
    labels: list[int]


class Sample(NamedTuple):
    """One conversation, and the file and row (from 1) it came from.

    A row that needs no template has no messages, but `turns`, text with its own markup (the first
    group stands before the first turn), or `encoded`, its tokens.
    """

    messages: list[Message]
    file: str
    row: int
    turns: tuple[tuple[TextPiece, ...], ...] = ()
    encoded: EncodedSample | None = None


# What stays together: a single sample, or the two of a pair (chosen, rejected).
SampleGroup = tuple[Sample, ...]
