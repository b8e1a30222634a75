"""Tokenize samples as flat arrays of ids and labels, under a limit of length.

A sample that is too long is refused, dropped or shortened, as the options say; one that would teach
nothing is refused; a long document is split.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from elysia.core.errors import DataError
from elysia.core.messages import Conversation, Message
from elysia.core.templates import (
    ChatTemplate,
    PromptTemplate,
    TextPiece,
    is_document,
    render_training_pieces,
)
from elysia.data.schema import IGNORE, EncodedSample, Sample, SampleGroup
from elysia.data.tokenize.arrays import (
    DROPPED,
    SHORTENED,
    WHOLE,
    IdArray,
    TokenizedSet,
    TokenizedSource,
    concatenate,
    select_samples,
)
from elysia.data.tokenize.encoder import ConversationEncoder, EncodedBatch, count_learned
from elysia.data.tokenize.reply_samples import ReplySamples, encode_talk, is_encoded_whole

Overlong = Literal["error", "drop", "cut", "truncate"]

# Python's objects take many times the memory of the arrays they become.
SAMPLES_PER_BATCH = 1024


@dataclass(frozen=True)
class TokenizeOptions:
    """How samples become tokens.

    `system` is put in front of conversations without a system message (never of plain documents). A
    sample of more than `max_length` tokens is refused ("error"), left out ("drop"), loses whole last
    turns until it fits ("cut"), or every token past the limit ("truncate"); it is left out when
    nothing learned would remain. A document has no turns: one that is too long becomes several
    samples, whatever `overlong` says. For `pairs`, `max_length` is for both samples together, and an
    overlong pair is refused or left out whole: a cut would remove the very reply that is compared.
    """

    template: ChatTemplate
    max_length: int
    system: str = ""
    overlong: Overlong = "error"
    pairs: bool = False

    def __post_init__(self) -> None:
        if self.pairs and self.overlong not in ("error", "drop"):
            raise DataError("data.overlong_of_pairs", overlong=repr(self.overlong))
        if self.overlong not in get_args(Overlong):
            raise DataError("data.unknown_overlong", overlong=repr(self.overlong))

    @property
    def group_size(self) -> int:
        """Samples of a group: two of a pair."""
        return 2 if self.pairs else 1


def tokenize_samples(
    groups: Sequence[Sample | SampleGroup],
    template: ChatTemplate,
    tokenizer: Any,
    *,
    max_length: int,
    **options: Any,
) -> TokenizedSet:
    """Samples, or pairs, as ids and labels, in memory; arguments as of `TokenizeOptions`. Pair i is
    samples 2i (chosen) and 2i + 1 (rejected).

    DataError, with file and row, for a sample that is refused or would teach nothing, and when no
    sample is left.
    """
    tokenize_options = TokenizeOptions(template, max_length, **options)
    every = [(group,) if isinstance(group, Sample) else group for group in groups]
    names = tuple(dict.fromkeys(group[0].file for group in every))
    encoder = ConversationEncoder(tokenizer)
    starts = range(0, len(every), SAMPLES_PER_BATCH)
    batches = (every[start : start + SAMPLES_PER_BATCH] for start in starts)
    source = concatenate(
        [encode_groups(batch, tokenize_options, encoder, names) for batch in batches]
    )
    return select_samples([source], [np.arange(len(every))], max_length, tokenize_options.overlong)


def encode_groups(
    groups: Sequence[SampleGroup],
    options: TokenizeOptions,
    encoder: ConversationEncoder,
    names: tuple[str, ...],
) -> TokenizedSource:
    """Some groups as arrays. `names`: the files of the source, among them those of the groups."""
    if isinstance(options.template, PromptTemplate):
        return _encode_groups(groups, options, encoder, names)
    if options.pairs:  # the last reply is compared, in whatever way the earlier ones are written
        groups = [tuple(_encode_last(s, options, encoder) for s in group) for group in groups]
        return _encode_groups(groups, options, encoder, names)
    units = [(sample, _with_system(sample.messages, options.system)) for (sample,) in groups]
    limit = options.max_length if options.overlong == "cut" else None
    replies = ReplySamples(units, options.template, encoder, limit)
    source = _encode_groups([(sample,) for sample in replies.samples], options, encoder, names)
    return replies.fold(source) if groups else source


def _encode_last(sample: Sample, options: TokenizeOptions, encoder: ConversationEncoder) -> Sample:
    talk = _with_system(sample.messages, options.system)
    if not is_encoded_whole(sample, talk, options.template):
        return sample
    return sample._replace(encoded=encode_talk(talk, options.template, encoder)[-1])


def _encode_groups(
    groups: Sequence[SampleGroup],
    options: TokenizeOptions,
    encoder: ConversationEncoder,
    names: tuple[str, ...],
) -> TokenizedSource:
    samples = [sample for group in groups for sample in group]
    talks = [_with_system(sample.messages, options.system) for sample in samples]
    batch = encoder.encode_batch(
        [_get_pieces(s, t, options.template) for s, t in zip(samples, talks, strict=True)],
        [sample.encoded for sample in samples],
    )
    learned = count_learned(batch.labels, batch.lengths)
    _check_samples(samples, learned, len(encoder.tokenizer))
    number = {name: index for index, name in enumerate(names)}
    source = TokenizedSource(
        ids=batch.ids,
        labels=batch.labels,
        lengths=batch.lengths,
        labelled=learned,
        samples=np.full(len(groups), options.group_size, np.int32),
        files=np.array([number[group[0].file] for group in groups], np.int32),
        rows=np.array([group[0].row for group in groups], np.int32),
        states=np.zeros(len(groups), np.int32),
        names=names,
    )
    sizes = batch.lengths.reshape(len(groups), options.group_size).sum(1)
    long = np.flatnonzero(sizes > options.max_length)
    if not len(long):
        return source
    return _apply_limit(source, long, sizes, groups, talks, batch, options, encoder)


def _apply_limit(
    source: TokenizedSource,
    long: Any,
    sizes: Any,
    groups: Sequence[SampleGroup],
    talks: Sequence[Conversation],
    batch: EncodedBatch,
    options: TokenizeOptions,
    encoder: ConversationEncoder,
) -> TokenizedSource:
    """`source` with what remains of the groups at the indices `long`, whose tokens are `sizes`."""
    each = options.group_size
    states, counts = source.states.copy(), source.samples.copy()
    parts: list[tuple[IdArray, IdArray]] = []  # runs of groups that fit, and what remains of others
    lengths: list[Any] = []
    first = 0  # group after the last long one
    for i in [*long, len(groups)]:
        start, end = batch.offsets[first * each], batch.offsets[i * each]
        parts.append((batch.ids[start:end], batch.labels[start:end]))
        lengths.append(batch.lengths[first * each : i * each])
        first = i + 1
        if i < len(groups):
            talk, encoded = talks[i * each], batch.get_sample(i * each)
            rest = _fit_group(groups[i], talk, encoded, int(sizes[i]), options, encoder)
            is_split = not options.pairs and is_document(talk)
            states[i] = WHOLE if is_split else SHORTENED if rest else DROPPED
            counts[i] = len(rest)
            parts += rest
            lengths.append([len(ids) for ids, _ in rest])
    ids, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    sample_lengths = np.concatenate([np.asarray(part, np.int32) for part in lengths])
    return dataclasses.replace(
        source,
        ids=ids,
        labels=labels,
        lengths=sample_lengths,
        labelled=count_learned(labels, sample_lengths),
        samples=counts,
        states=states,
    )


def _fit_group(
    group: SampleGroup,
    talk: Conversation,
    encoded: EncodedSample,
    size: int,
    options: TokenizeOptions,
    encoder: ConversationEncoder,
) -> list[tuple[IdArray, IdArray]]:
    """(ids, labels) of what remains of a group that is too long; DataError when it is refused."""
    sample, limit = group[0], options.max_length
    if not options.pairs and is_document(talk):
        return list(split_document(encoded, limit))
    if options.overlong == "error":
        code = "data.pair_too_long" if options.pairs else "data.sample_too_long"
        raise DataError(code, path=sample.file, row=sample.row, tokens=size, max_length=limit)
    fits: EncodedSample | None = None
    if options.overlong == "cut":
        fits = _drop_last_turns(sample, talk, options.template, encoder, limit)
    elif options.overlong == "truncate":
        fits = _none_if_unlearned(EncodedSample(encoded.ids[:limit], encoded.labels[:limit]))
    return [(np.array(fits.ids, np.int32), np.array(fits.labels, np.int32))] if fits else []


def _get_pieces(sample: Sample, talk: Conversation, template: ChatTemplate) -> Sequence[TextPiece]:
    """What there is to encode of a row: its own markup, else its conversation in the template."""
    if sample.encoded or sample.turns:
        return [piece for turn in sample.turns for piece in turn]
    return render_training_pieces(talk, template)


def split_document(document: EncodedSample, max_length: int) -> Iterator[tuple[IdArray, IdArray]]:
    """(ids, labels) of parts of at most `max_length` tokens.

    A part begins with the last token of the one before it, unlearned, so that every token is learned
    once and with the token before it. Only the first part has the bos, only the last the eos.

    >>> parts = split_document(EncodedSample([1, 2, 3], [-100, 2, 3]), 2)
    >>> [(ids.tolist(), labels.tolist()) for ids, labels in parts]
    [([1, 2], [-100, 2]), ([2, 3], [-100, 3])]
    """
    ids, labels = (np.array(part, dtype=np.int32) for part in document)
    for start in range(0, max(len(ids) - 1, 1), max_length - 1):
        part = labels[start : start + max_length].copy()
        if start:
            part[0] = IGNORE
        yield ids[start : start + max_length], part


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
    """DataError for the first sample that teaches nothing, or holds tokens of another tokenizer."""
    for index in np.flatnonzero(learned == 0):
        sample = samples[int(index)]
        raise DataError("data.nothing_learned", path=sample.file, row=sample.row)
    for sample in samples:
        odd = [n for n in sample.encoded.ids if not 0 <= n < size] if sample.encoded else []
        if odd:
            raise DataError(
                "data.token_out_of_range",
                path=sample.file,
                row=sample.row,
                token=odd[0],
                size=size,
            )


def _none_if_unlearned(encoded: EncodedSample) -> EncodedSample | None:
    return encoded if any(label != IGNORE for label in encoded.labels) else None


def _drop_last_turns(
    sample: Sample,
    talk: Conversation,
    template: ChatTemplate,
    encoder: ConversationEncoder,
    max_length: int,
) -> EncodedSample | None:
    """The most whole turns from the start that fit; None when they would teach nothing."""
    if sample.encoded:
        return None  # tokens alone do not show where a turn ends
    for count in range(len(sample.turns) - 1, 1, -1):
        fewer = sample._replace(turns=sample.turns[:count])
        encoded = encoder.encode_many([_get_pieces(fewer, talk, template)])[0]
        if len(encoded.ids) <= max_length:
            return _none_if_unlearned(encoded)
    ends = [i for i, message in enumerate(talk, start=1) if message.role == "assistant"]
    for end in reversed(ends[:-1]):
        encoded = encoder.encode_many([render_training_pieces(talk[:end], template)])[0]
        if len(encoded.ids) <= max_length:
            return _none_if_unlearned(encoded)
    return None
