"""Encode rendered conversations as token ids and labels, id for id as XTuner does.

Each piece is encoded on its own and the ids are joined, so the ids of a chat prompt are a prefix of
the ids that were trained on. What people typed never becomes a control token: where a piece's content
holds the text of a special token (`<|im_end|>` typed by a user), the template's markup is encoded as
usual and the content with special tokens split into ordinary text. A piece without such text, which
is nearly every piece, is encoded whole, markup and content together, as XTuner does and the golden
file records.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer

from elysia.core.errors import ModelError
from elysia.core.messages import Conversation
from elysia.core.templates import ChatTemplate, TextPiece, render_prompt_pieces
from elysia.data.schema import IGNORE as IGNORE
from elysia.data.schema import EncodedSample as EncodedSample
from elysia.data.tokenize.arrays import IdArray

# Tokens of pieces that are remembered: 16 MB, and as much of text.
CACHED_TOKENS = 4_000_000
# The same for a server, whose many short pieces weigh more than their tokens.
SERVING_CACHED_TOKENS = 200_000


class EncodedBatch(NamedTuple):
    """Samples end to end. ids, labels: int32 of (tokens,); lengths: int32 of (samples,); offsets:
    int64 of (samples + 1,)."""

    ids: IdArray
    labels: IdArray
    lengths: IdArray
    offsets: npt.NDArray[np.int64]

    def get_sample(self, index: int) -> EncodedSample:
        """The ids and labels of one sample, as lists."""
        start, end = self.offsets[index : index + 2]
        return EncodedSample(self.ids[start:end].tolist(), self.labels[start:end].tolist())


def _insert_pretokenized(
    ids: IdArray,
    labels: IdArray,
    offsets: npt.NDArray[np.int64],
    pretokenized: Sequence[EncodedSample | None],
) -> EncodedBatch:
    """Samples end to end; `pretokenized[i]`, where it is set, replaces sample i."""
    parts: list[tuple[Any, Any]] = [
        sample or (ids[start:end], labels[start:end])
        for sample, (start, end) in zip(pretokenized, pairwise(offsets), strict=True)
    ]
    lengths = np.array([len(part) for part, _ in parts], np.int32)
    ids, labels = (
        np.concatenate([np.asarray(run, np.int32) for run in runs])
        for runs in zip(*parts, strict=True)
    )
    return EncodedBatch(
        ids, labels, lengths, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    )


def count_learned(labels: IdArray, lengths: IdArray) -> IdArray:
    """Learned tokens of each sample, int32 of (samples,)."""
    learned = np.concatenate([[0], np.cumsum(labels != IGNORE)])
    ends = np.cumsum(lengths, dtype=np.int64)
    counts: IdArray = (learned[ends] - learned[ends - lengths]).astype(np.int32)
    return counts


def encode(pieces: Sequence[TextPiece], tokenizer: Any) -> EncodedSample:
    """Ids and labels of one rendered conversation; ModelError when the template needs an eos and the
    tokenizer has none.
    """
    return ConversationEncoder(tokenizer).encode_many([pieces])[0]


def encode_prompt(conversation: Conversation, template: ChatTemplate, tokenizer: Any) -> list[int]:
    """Ids of the chat prompt: a prefix of the ids that training sees for the answered conversation."""
    return encode(render_prompt_pieces(conversation, template), tokenizer).ids


class ConversationEncoder:
    """Encodes with one tokenizer, whose special tokens are looked up once. Threads may share it.

    Args:
        cached_tokens: how many tokens of encoded pieces to remember.
    """

    def __init__(self, tokenizer: Any, *, cached_tokens: int = CACHED_TOKENS) -> None:
        self.tokenizer = tokenizer = get_picklable_tokenizer(tokenizer) or tokenizer
        special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        # Llama 3 lists its header marks only here.
        added = getattr(tokenizer, "added_tokens_decoder", {})
        special |= {token.content: number for number, token in added.items() if token.special}
        self.special_ids = frozenset(special.values())
        words = sorted(filter(None, special), key=len, reverse=True)
        self.lookalike = re.compile("|".join(map(re.escape, words))) if words else None
        self._cache: dict[TextPiece, IdArray] = {}
        self._room = self._cached_tokens = cached_tokens

    def encode_many(self, conversations: Sequence[Sequence[TextPiece]]) -> list[EncodedSample]:
        """Encode all plain texts in one batch, each once however often it occurs."""
        batch = self.encode_batch(conversations, [None] * len(conversations))
        return [batch.get_sample(index) for index in range(len(conversations))]

    def encode_batch(
        self,
        conversations: Sequence[Sequence[TextPiece]],
        pretokenized: Sequence[EncodedSample | None],
    ) -> EncodedBatch:
        """As `encode_many`, end to end; `pretokenized[i]`, where it is set, replaces conversation i."""
        pieces = list(chain.from_iterable(conversations))
        runs = self._get_or_encode_ids(pieces)
        sizes = np.fromiter(map(len, runs), np.int64, len(runs))
        ids = np.concatenate([np.zeros(0, np.int32), *runs])
        learned = np.repeat(np.array([piece.learn for piece in pieces], bool), sizes)
        labels = np.where(learned, ids, np.int32(IGNORE))
        ends = np.cumsum([0, *map(len, conversations)])  # of each conversation, among the pieces
        offsets = np.concatenate([[0], np.cumsum(sizes)])[ends]
        if any(pretokenized):
            return _insert_pretokenized(ids, labels, offsets, pretokenized)
        return EncodedBatch(ids, labels, np.diff(offsets).astype(np.int32), offsets)

    def _get_or_encode_ids(self, pieces: Sequence[TextPiece]) -> list[IdArray]:
        """Ids of each piece. Pieces of earlier calls are cached, since system prompts, questions of
        pairs and repeated rows occur again and again."""
        hits = list(map(self._cache.get, pieces))
        new = self._encode_pieces({p for p, ids in zip(pieces, hits, strict=True) if ids is None})
        self._room -= sum(map(len, new.values()))
        if self._room < 0:
            self._cache, self._room = {}, self._cached_tokens
        self._cache.update(new)
        return [new[p] if ids is None else ids for p, ids in zip(pieces, hits, strict=True)]

    def _encode_pieces(self, pieces: set[TextPiece]) -> dict[TextPiece, IdArray]:
        """Ids of pieces that are not in the cache."""
        plain: list[TextPiece] = []
        mixed: list[TextPiece] = []
        encoded: dict[TextPiece, list[int]] = {}
        for piece in pieces:
            if piece.special:
                encoded[piece] = self._special(piece.special)
            else:
                (mixed if self._holds_lookalike(piece) else plain).append(piece)
        encoded.update(zip(plain, self._texts([piece.text for piece in plain]), strict=True))
        encoded.update((piece, self._runs(piece)) for piece in mixed)
        return {piece: np.array(ids, np.int32) for piece, ids in encoded.items()}

    def _special(self, special: Literal["bos", "eos"] | None) -> list[int]:
        kind = getattr(self.tokenizer, "kind", type(self.tokenizer).__name__)
        if special == "bos":
            if not _adds_bos(self.tokenizer):
                return []
            if kind.lower().startswith("qwen"):
                return []  # Qwen has a bos id in some configs and was never trained with one
            if kind == "ChatGLMTokenizer":
                return [64790, 64792]  # [gMASK] and sop, which its own bos_token_id does not name
        ids = self.tokenizer.bos_token_id if special == "bos" else self.tokenizer.eos_token_id
        if ids is None and special == "eos":
            raise ModelError("data.tokenizer_without_eos")
        if ids is None:
            return []
        return [ids] if isinstance(ids, int) else list(ids)

    def _holds_lookalike(self, piece: TextPiece) -> bool:
        if not self.lookalike or not piece.content:
            return False
        return any(
            match.start() < end and start < match.end()
            for match in self.lookalike.finditer(piece.text)
            for start, end in piece.content
        )

    def _texts(self, texts: list[str], **options: Any) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False, **options
        )["input_ids"]
        return ids

    def _runs(self, piece: TextPiece) -> list[int]:
        """Ids of a piece, markup and content apart."""
        ids: list[int] = []
        at = 0
        for start, end in piece.content:
            ids += self._texts([piece.text[at:start]])[0] if start > at else []
            ids += self._content(piece.text[start:end])
            at = end
        return ids + (self._texts([piece.text[at:]])[0] if at < len(piece.text) else [])

    def _content(self, text: str) -> list[int]:
        """What people typed, as ordinary tokens only, whatever it spells."""
        if not text:
            return []
        ids = self._texts([text], split_special_tokens=True)[0]
        if self.special_ids.isdisjoint(ids) or not self.lookalike:
            return ids
        # This tokenizer ignores `split_special_tokens`: break every look-alike after its first
        # character.
        cuts = [0, *(match.start() + 1 for match in self.lookalike.finditer(text)), len(text)]
        parts = [text[start:end] for start, end in pairwise(cuts)]
        return [i for some in self._texts([part for part in parts if part]) for i in some]


def _adds_bos(tokenizer: Any) -> bool:
    """Whether a tokenizer's makers put a bos in front; yes, unless they say no (`add_bos_token`)."""
    stated = getattr(tokenizer, "adds_bos", None)
    if stated is None:
        stated = getattr(tokenizer, "init_kwargs", {}).get("add_bos_token")
    return stated is not False


@dataclass
class PicklableTokenizer:
    """The part of a fast transformers tokenizer that makes ids: the same ids for less work, and
    picklable, so that another process needs neither transformers nor torch.

    inner: the tokenizers library's object. kind: the name of the class that it was taken from.
    """

    inner: Tokenizer
    kind: str
    bos_token_id: int | None
    eos_token_id: int | None
    all_special_tokens: list[str]
    all_special_ids: list[int]
    added_tokens_decoder: dict[int, AddedToken]
    split_special_tokens: bool
    size: int
    adds_bos: bool = True

    def __len__(self) -> int:
        """Tokens."""
        return self.size

    def __call__(
        self, texts: list[str], *, split_special_tokens: bool | None = None, **_: Any
    ) -> dict[str, list[list[int]]]:
        """Like a transformers tokenizer's call, without special tokens around the text."""
        inner = self.inner
        split = self.split_special_tokens if split_special_tokens is None else split_special_tokens
        # Another user of the same tokenizer may have changed these options.
        if inner.encode_special_tokens != split:
            inner.encode_special_tokens = split
        if inner.padding is not None:
            inner.no_padding()
        if inner.truncation is not None:
            inner.no_truncation()
        return {
            "input_ids": [e.ids for e in inner.encode_batch_fast(texts, add_special_tokens=False)]
        }


def get_picklable_tokenizer(tokenizer: Any) -> PicklableTokenizer | None:
    """The inner tokenizer of a transformers tokenizer; None for one that is written in Python, or adds
    work of its own."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    kind: Any = type(tokenizer)
    base = next((c for c in kind.__mro__ if c.__name__ == "TokenizersBackend"), None)
    plain = base and kind._encode_plus is base._encode_plus and kind.__call__ is base.__call__
    if not plain or not isinstance(inner, Tokenizer):
        return None
    return PicklableTokenizer(
        inner,
        kind.__name__,
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        list(tokenizer.all_special_tokens),
        list(tokenizer.all_special_ids),
        dict(tokenizer.added_tokens_decoder),
        bool(tokenizer.split_special_tokens),
        len(tokenizer),
        _adds_bos(tokenizer),
    )
