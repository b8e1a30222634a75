"""Samples as flat arrays of ids and labels; what is too long, or teaches nothing, is refused, and a
long document is divided.

Knows nothing of models, batches or torch; ids come from encode.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from elysia.core.errors import DataError
from elysia.core.messages import Conversation, Message
from elysia.core.templates import Piece, PromptTemplate, is_document, render
from elysia.data.encode import IGNORE, Encoded, Encoder, encode, encode_prompt
from elysia.data.read import Sample

__all__ = [
    "IGNORE",
    "Encoded",
    "TokenizedSet",
    "encode",
    "encode_prompt",
    "tokenize",
    "tokenize_pairs",
]

Ids = npt.NDArray[np.int32]
Overlong = Literal["error", "drop", "cut", "truncate"]

log = logging.getLogger(__name__)

_AT_ONCE = 2048  # samples a batch: lists of ids take ten times the memory of the arrays they become


@dataclass(frozen=True)
class TokenizedSet:
    """Samples end to end in flat arrays; sample i is [offsets[i], offsets[i + 1]).

    ids, labels: int32 of shape (tokens,); offsets: int64 of shape (samples + 1,). `origin[i]` is
    the (file, row) that sample i came from. `dropped` and `cut` count overlong samples.
    """

    ids: Ids
    labels: Ids
    offsets: npt.NDArray[np.int64]
    origin: tuple[tuple[str, int], ...]
    dropped: int = 0
    cut: int = 0
    _labelled: npt.NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.labels) == self.offsets[-1], "arrays of one length"
        assert len(self.offsets) == len(self.origin) + 1, "an origin for every sample"
        learned = np.concatenate([[0], np.cumsum(self.labels != IGNORE)])
        object.__setattr__(self, "_labelled", np.diff(learned[self.offsets]))

    def __len__(self) -> int:
        return len(self.origin)

    def __getitem__(self, index: int) -> tuple[Ids, Ids]:
        """(ids, labels) of one sample, views of the flat arrays."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.ids[start:end], self.labels[start:end]

    def __iter__(self) -> Iterator[tuple[Ids, Ids]]:
        return (self[index] for index in range(len(self)))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each sample."""
        return np.diff(self.offsets)

    @property
    def labelled(self) -> npt.NDArray[np.int64]:
        """Learned tokens of each sample."""
        return self._labelled

    def subset(self, indices: Iterable[int]) -> TokenizedSet:
        """The samples at `indices`, in that order; an index may come twice."""
        chosen = list(indices)
        return _gather([self[i] for i in chosen], [self.origin[i] for i in chosen])

    def sha256(self) -> str:
        """Hex digest of what is trained on: ids, labels and where samples begin (not of file
        names).
        """
        digest = hashlib.sha256()
        for array, kind in ((self.offsets, "<i8"), (self.ids, "<i4"), (self.labels, "<i4")):
            digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
        return digest.hexdigest()


def tokenize(
    samples: Sequence[Sample],
    template: PromptTemplate,
    tokenizer: Any,
    *,
    system: str = "",
    max_length: int,
    overlong: Overlong = "error",
) -> TokenizedSet:
    """All samples as ids and labels.

    `system` goes in front of conversations without a system message (never of plain documents). A
    sample of more than `max_length` tokens is refused ("error"), left out ("drop"), loses whole
    last turns until it fits ("cut"), or every token past the limit ("truncate"); it is left out
    when nothing learned would remain. A document has no turns: one that is too long becomes several
    samples, whatever `overlong` says. DataError, with file and row, also for a sample that would
    teach nothing, and when no sample is left.
    """
    if overlong not in get_args(Overlong):
        raise DataError(f"overlong must be 'error', 'drop', 'cut' or 'truncate', not {overlong!r}.")
    if not samples:
        raise DataError("There is no row to train on.")
    encoder = Encoder(tokenizer)
    kept: list[tuple[Ids, Ids]] = []
    origin: list[tuple[str, int]] = []
    dropped = cut = 0
    for sample, talk, encoded in _encode_all(samples, system, template, encoder):
        _refuse_unlearned(sample, encoded)
        if sample.encoded:
            _refuse_foreign(sample, encoded, len(tokenizer))
        if is_document(talk):
            pieces = list(divided(encoded, max_length))
            kept += pieces
            origin += [(sample.file, sample.row)] * len(pieces)
            continue
        fits: Encoded | None = encoded
        if len(encoded.ids) > max_length:
            if overlong == "error":
                raise DataError(_too_long(sample, len(encoded.ids), max_length))
            fits = None
            if overlong == "cut":
                fits = _cut(sample, talk, template, encoder, max_length)
            elif overlong == "truncate":
                fits = _learning(Encoded(encoded.ids[:max_length], encoded.labels[:max_length]))
            dropped += fits is None
            cut += fits is not None
        if fits is not None:
            kept.append((np.array(fits.ids, dtype=np.int32), np.array(fits.labels, dtype=np.int32)))
            origin.append((sample.file, sample.row))
    _note_overlong(len(samples), dropped, cut, max_length, overlong)
    return _gather(kept, origin, dropped, cut)


def tokenize_pairs(
    pairs: Sequence[tuple[Sample, Sample]],
    template: PromptTemplate,
    tokenizer: Any,
    *,
    system: str = "",
    max_length: int,
    overlong: Overlong = "error",
) -> TokenizedSet:
    """Preference pairs as ids and labels: pair i is samples 2i (chosen) and 2i + 1 (rejected).

    As `tokenize`, but `max_length` is of both together, and an overlong pair is refused or left out
    whole: a cut would take the very reply that is compared.
    """
    if overlong not in ("error", "drop"):
        raise DataError(f"overlong must be 'error' or 'drop' for pairs, not {overlong!r}.")
    if not pairs:
        raise DataError("There is no row to train on.")
    kept: list[tuple[Ids, Ids]] = []
    origin: list[tuple[str, int]] = []
    dropped = 0
    samples = [sample for pair in pairs for sample in pair]
    halves = _encode_all(samples, system, template, Encoder(tokenizer))
    for (sample, _, chosen), (_, _, rejected) in zip(halves, halves, strict=True):
        length = len(chosen.ids) + len(rejected.ids)
        if length > max_length and overlong == "error":
            raise DataError(
                f"{sample.file}, row {sample.row}: chosen and rejected have {length} tokens "
                f"together, and max_length is {max_length}. Raise max_length to {length} or more, "
                "or set overlong='drop'."
            )
        if length > max_length:
            dropped += 1
            continue
        for half in (chosen, rejected):
            kept.append((np.array(half.ids, dtype=np.int32), np.array(half.labels, dtype=np.int32)))
            origin.append((sample.file, sample.row))
    _note_overlong(len(pairs), dropped, 0, max_length, overlong)
    return _gather(kept, origin, dropped)


def _encode_all(
    samples: Sequence[Sample], system: str, template: PromptTemplate, encoder: Encoder
) -> Iterator[tuple[Sample, Conversation, Encoded]]:
    """(sample, its conversation with `system`, ids and labels), encoded so many at a time."""
    for start in range(0, len(samples), _AT_ONCE):
        some = samples[start : start + _AT_ONCE]
        talks = [_with_system(sample.messages, system) for sample in some]
        encoded = encoder.encode_many(
            [_pieces(s, t, template) for s, t in zip(some, talks, strict=True)]
        )
        ready = [s.encoded or e for s, e in zip(some, encoded, strict=True)]
        yield from zip(some, talks, ready, strict=True)


def _pieces(sample: Sample, talk: Conversation, template: PromptTemplate) -> Sequence[Piece]:
    """What there is to encode of a row: its own markup, else its talk in the template."""
    if sample.encoded or sample.turns:
        return [piece for turn in sample.turns for piece in turn]
    return render(talk, template)


def divided(document: Encoded, max_length: int) -> Iterator[tuple[Ids, Ids]]:
    """(ids, labels) of pieces of at most `max_length` tokens.

    A piece begins with the last token of the one before it, unlearned, so that every token is
    learned once and from what stands before it. Only the first piece has the bos, the last the eos.

    >>> [(list(map(int, i)), list(map(int, n))) for i, n in divided(Encoded([1, 2, 3], [-100, 2, 3]), 2)]
    [([1, 2], [-100, 2]), ([2, 3], [-100, 3])]
    """
    ids, labels = (np.array(part, dtype=np.int32) for part in document)
    for start in range(0, max(len(ids) - 1, 1), max_length - 1):
        some = labels[start : start + max_length].copy()
        if start:
            some[0] = IGNORE
        yield ids[start : start + max_length], some


def _note_overlong(total: int, dropped: int, cut: int, max_length: int, overlong: str) -> None:
    if dropped or cut:
        log.warning(
            "Of %d rows, %d were left out and %d lost their last %s: longer than "
            "max_length=%d tokens.",
            total,
            dropped,
            cut,
            "turns" if overlong == "cut" else "tokens",
            max_length,
        )
    if dropped == total:
        raise DataError(
            f"No row is left: all {total} are longer than max_length={max_length} tokens. "
            "Raise max_length."
        )


def _gather(
    samples: Sequence[tuple[Ids, Ids]],
    origin: Sequence[tuple[str, int]],
    dropped: int = 0,
    cut: int = 0,
) -> TokenizedSet:
    offsets = np.zeros(len(samples) + 1, dtype=np.int64)
    np.cumsum([len(ids) for ids, _ in samples], out=offsets[1:])
    ids = np.empty(offsets[-1], dtype=np.int32)
    labels = np.empty(offsets[-1], dtype=np.int32)
    for index, (some_ids, some_labels) in enumerate(samples):
        ids[offsets[index] : offsets[index + 1]] = some_ids
        labels[offsets[index] : offsets[index + 1]] = some_labels
    return TokenizedSet(ids, labels, offsets, tuple(origin), dropped, cut)


def _with_system(messages: Conversation, system: str) -> Conversation:
    if (
        not system
        or not messages
        or is_document(messages)
        or any(m.role == "system" for m in messages)
    ):
        return messages
    return [Message("system", system), *messages]


def _refuse_unlearned(sample: Sample, encoded: Encoded) -> None:
    if all(label == IGNORE for label in encoded.labels):
        raise DataError(
            f"{sample.file}, row {sample.row}: nothing in this row would be learned, since "
            "every reply is marked as not to be learned. Mark one to be learned, or "
            "take the row out."
        )


def _refuse_foreign(sample: Sample, encoded: Encoded, size: int) -> None:
    """Rows of tokens are another tokenizer's when this one has no such number."""
    odd = next((number for number in encoded.ids if not 0 <= number < size), None)
    if odd is not None:
        raise DataError(
            f"{sample.file}, row {sample.row}: token {odd}, and the tokenizer has {size}. The row "
            "was written with another tokenizer; tokenize the text anew."
        )


def _too_long(sample: Sample, tokens: int, max_length: int) -> str:
    return (
        f"{sample.file}, row {sample.row}: {tokens} tokens, and max_length is {max_length}. "
        f"Raise max_length to {tokens} or more, or set overlong='cut' (drops whole last turns) or "
        "overlong='drop' (drops the row)."
    )


def _learning(encoded: Encoded) -> Encoded | None:
    """`encoded`, or None when it would teach nothing."""
    return encoded if any(label != IGNORE for label in encoded.labels) else None


def _cut(
    sample: Sample,
    talk: Conversation,
    template: PromptTemplate,
    encoder: Encoder,
    max_length: int,
) -> Encoded | None:
    """The most whole turns from the start that fit; None when they would teach nothing."""
    if sample.encoded:
        return None  # tokens alone do not say where a turn ends
    for count in range(len(sample.turns) - 1, 1, -1):
        fewer = dataclasses.replace(sample, turns=sample.turns[:count])
        encoded = encoder.encode_many([_pieces(fewer, talk, template)])[0]
        if len(encoded.ids) <= max_length:
            return _learning(encoded)
    ends = [i for i, message in enumerate(talk, start=1) if message.role == "assistant"]
    for end in reversed(ends[:-1]):
        encoded = encoder.encode_many([render(talk[:end], template)])[0]
        if len(encoded.ids) <= max_length:
            return _learning(encoded)
    return None
