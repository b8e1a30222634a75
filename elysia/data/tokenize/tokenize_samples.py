"""Samples as flat arrays of ids and labels; what is too long, or teaches nothing, is refused, and a
long document is divided.

Knows nothing of models, files or torch; ids come from encode.py, the arrays are those of tokens.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from elysia.core.errors import DataError
from elysia.core.messages import Conversation, Message
from elysia.core.templates import PromptTemplate, TextPiece, is_document, render_training_pieces
from elysia.data.schema import Sample, SampleGroup
from elysia.data.tokenize.arrays import (
    IdArray,
    TokenizedSet,
    TokenizedSource,
    concatenate,
    select_samples,
)
from elysia.data.tokenize.encoder import (
    IGNORE,
    ConversationEncoder,
    EncodedBatch,
    EncodedSample,
    count_learned,
    encode,
    encode_prompt,
)

__all__ = [
    "IGNORE",
    "EncodedSample",
    "TokenizeOptions",
    "TokenizedSet",
    "encode",
    "encode_prompt",
    "tokenize_samples",
]

Overlong = Literal["error", "drop", "cut", "truncate"]

SAMPLES_PER_BATCH = (
    1024  # samples: Python's objects take many times the memory of the arrays they become
)


@dataclass(frozen=True)
class TokenizeOptions:
    """How samples become tokens.

    `system` goes in front of conversations without a system message (never of plain documents). A
    sample of more than `max_length` tokens is refused ("error"), left out ("drop"), loses whole
    last turns until it fits ("cut"), or every token past the limit ("truncate"); it is left out
    when nothing learned would remain. A document has no turns: one that is too long becomes several
    samples, whatever `overlong` says. For `pairs` `max_length` is of both together, and an overlong
    pair is refused or left out whole: a cut would take the very reply that is compared.
    """

    template: PromptTemplate
    max_length: int
    system: str = ""
    overlong: Overlong = "error"
    pairs: bool = False

    def __post_init__(self) -> None:
        if self.pairs and self.overlong not in ("error", "drop"):
            raise DataError(f"overlong must be 'error' or 'drop' for pairs, not {self.overlong!r}.")
        if self.overlong not in get_args(Overlong):
            raise DataError(
                f"overlong must be 'error', 'drop', 'cut' or 'truncate', not {self.overlong!r}."
            )


def tokenize_samples(
    units: Sequence[Sample | SampleGroup],
    template: PromptTemplate,
    tokenizer: Any,
    *,
    max_length: int,
    **options: Any,
) -> TokenizedSet:
    """Samples, or pairs, as ids and labels, in memory; arguments as of `TokenizeOptions`. Pair i is samples 2i
    (chosen) and 2i + 1 (rejected).

    DataError, with file and row, for a sample that is refused or would teach nothing, and when no
    sample is left.
    """
    way = TokenizeOptions(template, max_length, **options)
    every = [(unit,) if isinstance(unit, Sample) else unit for unit in units]
    names = tuple(dict.fromkeys(unit[0].file for unit in every))
    encoder = ConversationEncoder(tokenizer)
    tokens = concatenate(
        [
            encode_groups(every[start : start + SAMPLES_PER_BATCH], way, encoder, names)
            for start in range(0, len(every), SAMPLES_PER_BATCH)
        ]
    )
    return select_samples([tokens], [np.arange(len(every))], way.max_length, way.overlong)


def encode_groups(
    units: Sequence[SampleGroup],
    way: TokenizeOptions,
    encoder: ConversationEncoder,
    names: tuple[str, ...],
) -> TokenizedSource:
    """Some units as arrays. `names`: the files of the source, among which are the units'."""
    samples = [sample for unit in units for sample in unit]
    talks = [_with_system(sample.messages, way.system) for sample in samples]
    flat = encoder.encode_flat(
        [_pieces(s, t, way.template) for s, t in zip(samples, talks, strict=True)],
        [sample.encoded for sample in samples],
    )
    learned = count_learned(flat.labels, flat.lengths)
    _check_samples(samples, learned, len(encoder.tokenizer))
    number = {name: index for index, name in enumerate(names)}
    tokens = TokenizedSource(
        ids=flat.ids,
        labels=flat.labels,
        lengths=flat.lengths,
        labelled=learned,
        samples=np.full(len(units), 2 if way.pairs else 1, np.int32),
        files=np.array([number[unit[0].file] for unit in units], np.int32),
        rows=np.array([unit[0].row for unit in units], np.int32),
        states=np.zeros(len(units), np.int32),
        names=names,
    )
    sizes = flat.lengths.reshape(len(units), 2 if way.pairs else 1).sum(1)
    long = np.flatnonzero(sizes > way.max_length)
    return (
        _apply_limit(tokens, long, sizes, units, talks, flat, way, encoder) if len(long) else tokens
    )


def _apply_limit(
    tokens: TokenizedSource,
    long: Any,
    sizes: Any,
    units: Sequence[SampleGroup],
    talks: Sequence[Conversation],
    flat: EncodedBatch,
    way: TokenizeOptions,
    encoder: ConversationEncoder,
) -> TokenizedSource:
    """`tokens` with what is kept of the units that are too `long`; the others stay as they are."""
    each = 2 if way.pairs else 1
    states, counts = tokens.states.copy(), tokens.samples.copy()
    kept: list[tuple[IdArray, IdArray]] = []  # runs of what fits, and what was made of the rest
    lengths: list[Any] = []
    done = 0
    for i in [*long, len(units)]:
        start, end = flat.offsets[done * each], flat.offsets[i * each]
        kept.append((flat.ids[start:end], flat.labels[start:end]))
        lengths.append(flat.lengths[done * each : i * each])
        done = i + 1
        if i < len(units):
            whole = flat.of(i * each)
            fitted = _fit_group(units[i], talks[i * each], whole, int(sizes[i]), way, encoder)
            divides = not way.pairs and is_document(talks[i * each])
            states[i] = 0 if divides else 2 if fitted else 1
            counts[i] = len(fitted)
            kept += fitted
            lengths.append([len(ids) for ids, _ in fitted])
    ids, labels = (np.concatenate(part) for part in zip(*kept, strict=True))
    sample_lengths = np.concatenate([np.asarray(part, np.int32) for part in lengths])
    return dataclasses.replace(
        tokens,
        ids=ids,
        labels=labels,
        lengths=sample_lengths,
        labelled=count_learned(labels, sample_lengths),
        samples=counts,
        states=states,
    )


def _fit_group(
    unit: SampleGroup,
    talk: Conversation,
    encoded: EncodedSample,
    size: int,
    way: TokenizeOptions,
    encoder: ConversationEncoder,
) -> list[tuple[IdArray, IdArray]]:
    """(ids, labels) of what is kept of a unit that is too long; DataError when it is refused."""
    sample, limit = unit[0], way.max_length
    if way.pairs:
        if way.overlong == "error":
            raise DataError(
                f"{sample.file}, row {sample.row}: chosen and rejected have {size} tokens "
                f"together, and max_length is {limit}. Raise max_length to {size} or more, "
                "or set overlong='drop'."
            )
        return []
    if is_document(talk):
        return list(split_document(encoded, limit))
    if way.overlong == "error":
        raise DataError(_too_long_message(sample, size, limit))
    fits: EncodedSample | None = None
    if way.overlong == "cut":
        fits = _drop_last_turns(sample, talk, way.template, encoder, limit)
    elif way.overlong == "truncate":
        fits = _none_if_unlearned(EncodedSample(encoded.ids[:limit], encoded.labels[:limit]))
    return [(np.array(fits.ids, np.int32), np.array(fits.labels, np.int32))] if fits else []


def _pieces(sample: Sample, talk: Conversation, template: PromptTemplate) -> Sequence[TextPiece]:
    """What there is to encode of a row: its own markup, else its talk in the template."""
    if sample.encoded or sample.turns:
        return [piece for turn in sample.turns for piece in turn]
    return render_training_pieces(talk, template)


def split_document(document: EncodedSample, max_length: int) -> Iterator[tuple[IdArray, IdArray]]:
    """(ids, labels) of pieces of at most `max_length` tokens.

    A piece begins with the last token of the one before it, unlearned, so that every token is
    learned once and from what stands before it. Only the first piece has the bos, the last the eos.

    >>> [(list(map(int, i)), list(map(int, n))) for i, n in split_document(EncodedSample([1, 2, 3], [-100, 2, 3]), 2)]
    [([1, 2], [-100, 2]), ([2, 3], [-100, 3])]
    """
    ids, labels = (np.array(part, dtype=np.int32) for part in document)
    for start in range(0, max(len(ids) - 1, 1), max_length - 1):
        some = labels[start : start + max_length].copy()
        if start:
            some[0] = IGNORE
        yield ids[start : start + max_length], some


def _with_system(messages: Conversation, system: str) -> Conversation:
    if (
        not system
        or not messages
        or is_document(messages)
        or any(m.role == "system" for m in messages)
    ):
        return messages
    return [Message("system", system), *messages]


def _check_samples(samples: Sequence[Sample], learned: IdArray, size: int) -> None:
    """DataError for the first sample that teaches nothing, or whose tokens are another tokenizer's."""
    for index in np.flatnonzero(learned == 0):
        sample = samples[int(index)]
        raise DataError(
            f"{sample.file}, row {sample.row}: nothing in this row would be learned, since "
            "every reply is marked as not to be learned. Mark one to be learned, or "
            "take the row out."
        )
    for sample in samples:
        odd = [n for n in sample.encoded.ids if not 0 <= n < size] if sample.encoded else []
        if odd:
            raise DataError(
                f"{sample.file}, row {sample.row}: token {odd[0]}, and the tokenizer has {size}. "
                "The row was written with another tokenizer; tokenize the text anew."
            )


def _too_long_message(sample: Sample, tokens: int, max_length: int) -> str:
    return (
        f"{sample.file}, row {sample.row}: {tokens} tokens, and max_length is {max_length}. "
        f"Raise max_length to {tokens} or more, or set overlong='cut' (drops whole last turns) or "
        "overlong='drop' (drops the row)."
    )


def _none_if_unlearned(encoded: EncodedSample) -> EncodedSample | None:
    """`encoded`, or None when it would teach nothing."""
    return encoded if any(label != IGNORE for label in encoded.labels) else None


def _drop_last_turns(
    sample: Sample,
    talk: Conversation,
    template: PromptTemplate,
    encoder: ConversationEncoder,
    max_length: int,
) -> EncodedSample | None:
    """The most whole turns from the start that fit; None when they would teach nothing."""
    if sample.encoded:
        return None  # tokens alone do not say where a turn ends
    for count in range(len(sample.turns) - 1, 1, -1):
        fewer = sample._replace(turns=sample.turns[:count])
        encoded = encoder.encode_many([_pieces(fewer, talk, template)])[0]
        if len(encoded.ids) <= max_length:
            return _none_if_unlearned(encoded)
    ends = [i for i, message in enumerate(talk, start=1) if message.role == "assistant"]
    for end in reversed(ends[:-1]):
        encoded = encoder.encode_many([render_training_pieces(talk[:end], template)])[0]
        if len(encoded.ids) <= max_length:
            return _none_if_unlearned(encoded)
    return None
