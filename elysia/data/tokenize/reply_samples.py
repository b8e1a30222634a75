"""Talks in a model's own chat template become tokens: the ids of the whole text, and where replies are.

Such a template's text is encoded as a whole, as `apply_chat_template` encodes it, so that a chat prompt of
one piece is a prefix of what was trained on, token for token. Labels are found from the pieces: encoded apart
where that gives the same ids, else by encoding what stands before a reply and what stands through it. Where a
reply's first character would join the prompt's last token, each reply becomes a sample of its own: the
prompt's ids, then the reply's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from elysia.core.messages import Conversation
from elysia.core.templates import (
    ChatTemplate,
    PromptTemplate,
    TextPiece,
    is_document,
    render_training_samples,
)
from elysia.data.schema import IGNORE, EncodedSample, Sample
from elysia.data.tokenize.arrays import DROPPED, SHORTENED, WHOLE, IdArray, TokenizedSource
from elysia.data.tokenize.encoder import ConversationEncoder


def encode_talk(
    conversation: Conversation, template: ChatTemplate, encoder: ConversationEncoder
) -> list[EncodedSample]:
    """The samples of a conversation: one, or one a reply. The last one ends with the last reply."""
    return encode_talks([conversation], template, encoder)[0]


def encode_talks(
    conversations: Sequence[Conversation], template: ChatTemplate, encoder: ConversationEncoder
) -> list[list[EncodedSample]]:
    """`encode_talk` of each; their texts are encoded in one batch."""
    talks = [render_training_samples(talk, template) for talk in conversations]
    texts = [pieces for talk in talks for pieces in talk]
    wholes = [[merge_pieces(pieces)] for pieces in texts]
    encoded = encoder.encode_many([*texts, *wholes])
    samples = iter(
        [
            _join_pieces(pieces, apart, whole, encoder)
            for pieces, apart, whole in zip(
                texts, encoded[: len(texts)], encoded[len(texts) :], strict=True
            )
        ]
    )
    return [[sample for _ in talk for sample in next(samples)] for talk in talks]


def _join_pieces(
    pieces: Sequence[TextPiece],
    apart: EncodedSample,
    whole: EncodedSample,
    encoder: ConversationEncoder,
) -> list[EncodedSample]:
    """The pieces of one text as one sample, or as one for each learned piece; `apart` and `whole` are its
    ids by piece and together."""
    if apart.ids == whole.ids:
        return [apart]
    replies = [number for number, piece in enumerate(pieces) if piece.learn]
    labels = [IGNORE] * len(whole.ids)
    for number in replies:
        before, through = encoder.encode_many(
            [[merge_pieces(pieces[:number])], [merge_pieces(pieces[: number + 1])]]
        )
        start, end = len(before.ids), len(through.ids)
        if whole.ids[:start] != before.ids or whole.ids[:end] != through.ids or start >= end:
            return [_encode_reply(pieces[: n + 1], encoder) for n in replies]
        labels[start:end] = whole.ids[start:end]
    return [EncodedSample(whole.ids, labels)]


def _encode_reply(pieces: Sequence[TextPiece], encoder: ConversationEncoder) -> EncodedSample:
    """The last piece after the ids of the prompt before it."""
    prompt, reply = encoder.encode_many([[merge_pieces(pieces[:-1])], [pieces[-1]]])
    return EncodedSample(prompt.ids + reply.ids, [IGNORE] * len(prompt.ids) + reply.ids)


def merge_pieces(pieces: Sequence[TextPiece]) -> TextPiece:
    """One piece that is not learned, of the text and the content spans of all `pieces`."""
    spans: list[tuple[int, int]] = []
    length = 0
    for piece in pieces:
        spans += [(start + length, end + length) for start, end in piece.content]
        length += len(piece.text)
    return TextPiece("".join(piece.text for piece in pieces), False, None, tuple(spans))


class ReplySamples:
    """Some units of one source whose talks are encoded here: each becomes one or several samples.

    `samples` are what the units became, `counts` how many each, `shortened` the units that were cut: with
    a `limit`, tokens above it are cut back to the end of a reply, where one is below it.
    """

    def __init__(
        self,
        units: Sequence[tuple[Sample, Conversation]],
        template: ChatTemplate,
        encoder: ConversationEncoder,
        limit: int | None,
    ) -> None:
        talks = [talk for sample, talk in units if is_encoded_whole(sample, talk, template)]
        encoded = iter(encode_talks(talks, template, encoder))
        self.samples: list[Sample] = []
        self.counts: list[int] = []
        self.shortened: set[int] = set()
        for unit, (sample, talk) in enumerate(units):
            if not is_encoded_whole(sample, talk, template):
                self.samples.append(sample)
                self.counts.append(1)
                continue
            whole = next(encoded)
            parts = [cut_to_replies(part, limit) if limit else part for part in whole]
            if parts != whole:
                self.shortened.add(unit)
            self.samples += [sample._replace(encoded=part) for part in parts]
            self.counts.append(len(parts))

    def fold(self, source: TokenizedSource) -> TokenizedSource:
        """`source`, of one unit a sample, with the units that were added."""
        counts = np.asarray(self.counts, np.int64)
        first = np.cumsum(counts) - counts
        states = []
        for unit, (start, count) in enumerate(zip(first, counts, strict=True)):
            among = set(source.states[start : start + count].tolist())
            is_whole = among == {WHOLE} and unit not in self.shortened
            states.append(WHOLE if is_whole else DROPPED if among == {DROPPED} else SHORTENED)
        return TokenizedSource(
            source.ids, source.labels, source.lengths, source.labelled,
            np.add.reduceat(source.samples, first).astype(np.int32),
            source.files[first], source.rows[first], np.array(states, np.int32), source.names,
        )  # fmt: skip


def cut_to_replies(sample: EncodedSample, limit: int) -> EncodedSample:
    """A sample of at most `limit` tokens that ends with a whole reply; unchanged where there is none."""
    if len(sample.ids) <= limit:
        return sample
    learned: IdArray = np.append(np.asarray(sample.labels), IGNORE) != IGNORE
    ends = np.flatnonzero(learned[:-1] & ~learned[1:]) + 1
    fitting = ends[ends <= limit]
    if not len(fitting):
        return sample
    end = int(fitting[-1])
    return EncodedSample(sample.ids[:end], sample.labels[:end])


def is_encoded_whole(sample: Sample, talk: Conversation, template: ChatTemplate) -> bool:
    """Whether a row is a talk in a model's own template, and so encoded here."""
    is_talk = not (sample.encoded or sample.turns or is_document(talk))
    return is_talk and not isinstance(template, PromptTemplate)
