"""From a rendered conversation to token ids and labels, id for id as XTuner encodes it.

Each piece is encoded on its own and the ids are joined, so the ids of a chat prompt are a prefix
of the ids that were trained on. What people typed never becomes a control token: where a piece's
content holds the text of a special token (`<|im_end|>` typed by a user), the piece is encoded run
by run, the template's markup as usual and the content with special tokens split into ordinary
text. A piece without such text, which is nearly every piece, is encoded whole, markup and content
together, which is what XTuner does and what the golden file holds. Knows nothing of datasets,
models or torch.
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
from elysia.core.templates import PromptTemplate, TextPiece, render_prompt_pieces
from elysia.data.tokenize.arrays import IGNORE as IGNORE
from elysia.data.tokenize.arrays import IdArray

CACHED_TOKENS = 4_000_000  # tokens of pieces that are not encoded twice: 16 MB, and as much of text
SERVING_CACHED_TOKENS = (
    200_000  # the same for a server, whose many short pieces weigh more than their tokens
)


class EncodedSample(NamedTuple):
    """Token ids, and as many labels: the id itself where it is learned, IGNORE elsewhere."""

    ids: list[int]
    labels: list[int]


class EncodedBatch(NamedTuple):
    """Samples end to end. ids, labels: int32 of (tokens,); lengths: int32 of (samples,); offsets:
    int64 of (samples + 1,)."""

    ids: IdArray
    labels: IdArray
    lengths: IdArray
    offsets: npt.NDArray[np.int64]

    def of(self, index: int) -> EncodedSample:
        """One sample."""
        start, end = self.offsets[index : index + 2]
        return EncodedSample(self.ids[start:end].tolist(), self.labels[start:end].tolist())


def _insert_pretokenized(
    ids: IdArray,
    labels: IdArray,
    offsets: npt.NDArray[np.int64],
    ready: Sequence[EncodedSample | None],
) -> EncodedBatch:
    """Samples end to end, where `ready[i]` is given that in place of sample i."""
    parts: list[tuple[Any, Any]] = [
        given or (ids[start:end], labels[start:end])
        for given, (start, end) in zip(ready, pairwise(offsets), strict=True)
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
    """Ids and labels of one rendered conversation; ModelError when an eos is due and the
    tokenizer has none.
    """
    return ConversationEncoder(tokenizer).encode_many([pieces])[0]


def encode_prompt(
    conversation: Conversation, template: PromptTemplate, tokenizer: Any
) -> list[int]:
    """Ids of the chat prompt: a prefix of the ids that training sees for the answered talk."""
    return encode(render_prompt_pieces(conversation, template), tokenizer).ids


class ConversationEncoder:
    """One tokenizer, with what must be known of it looked up once. Threads may share it.

    Args:
        remember: tokens of pieces to keep.
    """

    def __init__(self, tokenizer: Any, *, remember: int = CACHED_TOKENS) -> None:
        self.tokenizer = tokenizer = get_picklable_tokenizer(tokenizer) or tokenizer
        special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        # Llama 3 lists its header marks only here.
        added = getattr(tokenizer, "added_tokens_decoder", {})
        special |= {token.content: number for number, token in added.items() if token.special}
        self.special_ids = frozenset(special.values())
        words = sorted(filter(None, special), key=len, reverse=True)
        self.lookalike = re.compile("|".join(map(re.escape, words))) if words else None
        self.remembered: dict[TextPiece, IdArray] = {}
        self.room = self.remember = remember

    def encode_many(self, conversations: Sequence[Sequence[TextPiece]]) -> list[EncodedSample]:
        """Encodes all plain texts in one batch, each once however often it comes."""
        flat = self.encode_flat(conversations, [None] * len(conversations))
        return [flat.of(index) for index in range(len(conversations))]

    def encode_flat(
        self, conversations: Sequence[Sequence[TextPiece]], ready: Sequence[EncodedSample | None]
    ) -> EncodedBatch:
        """As `encode_many`, end to end; `ready[i]`, where it is given, stands for conversation i."""
        pieces = list(chain.from_iterable(conversations))
        runs = self._ids_of(pieces)
        sizes = np.fromiter(map(len, runs), np.int64, len(runs))
        ids = np.concatenate([np.zeros(0, np.int32), *runs])
        learned = np.repeat(np.array([piece.learn for piece in pieces], bool), sizes)
        labels = np.where(learned, ids, np.int32(IGNORE))
        ends = np.cumsum([0, *map(len, conversations)])  # of each conversation, among the pieces
        offsets = np.concatenate([[0], np.cumsum(sizes)])[ends]
        if any(ready):
            return _insert_pretokenized(ids, labels, offsets, ready)
        return EncodedBatch(ids, labels, np.diff(offsets).astype(np.int32), offsets)

    def _ids_of(self, pieces: Sequence[TextPiece]) -> list[IdArray]:
        """Ids of each piece. Those of earlier calls are remembered, as far as memory is set aside:
        system prompts, questions of pairs and repeated rows come again and again."""
        found = list(map(self.remembered.get, pieces))
        new = self._encoded({p for p, ids in zip(pieces, found, strict=True) if ids is None})
        self.room -= sum(map(len, new.values()))
        if self.room < 0:
            self.remembered, self.room = {}, self.remember
        self.remembered.update(new)
        return [new[p] if ids is None else ids for p, ids in zip(pieces, found, strict=True)]

    def _encoded(self, pieces: set[TextPiece]) -> dict[TextPiece, IdArray]:
        """Ids of pieces that were not met before."""
        plain: list[TextPiece] = []
        mixed: list[TextPiece] = []
        found: dict[TextPiece, list[int]] = {}
        for piece in pieces:
            if piece.special:
                found[piece] = self._special(piece.special)
            else:
                (mixed if self._holds_lookalike(piece) else plain).append(piece)
        found.update(zip(plain, self._texts([piece.text for piece in plain]), strict=True))
        found.update((piece, self._runs(piece)) for piece in mixed)
        return {piece: np.array(numbers, np.int32) for piece, numbers in found.items()}

    def _special(self, special: Literal["bos", "eos"] | None) -> list[int]:
        kind = getattr(self.tokenizer, "kind", type(self.tokenizer).__name__)
        if special == "bos":
            if kind.lower().startswith("qwen"):
                return []  # Qwen has a bos id in some configs and was never trained with one
            if kind == "ChatGLMTokenizer":
                return [64790, 64792]  # [gMASK] and sop, which its own bos_token_id does not name
        found = self.tokenizer.bos_token_id if special == "bos" else self.tokenizer.eos_token_id
        if found is None and special == "eos":
            raise ModelError(
                "The tokenizer has no end-of-sequence token, so a reply would never end. "
                "Set `eos_token` in the model's tokenizer_config.json, or use a prompt template "
                "whose suffix ends the reply."
            )
        if found is None:
            return []
        return [found] if isinstance(found, int) else list(found)

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
        found: list[list[int]] = self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False, **options
        )["input_ids"]
        return found

    def _runs(self, piece: TextPiece) -> list[int]:
        ids: list[int] = []
        done = 0
        for start, end in piece.content:
            ids += self._texts([piece.text[done:start]])[0] if start > done else []
            ids += self._content(piece.text[start:end])
            done = end
        return ids + (self._texts([piece.text[done:]])[0] if done < len(piece.text) else [])

    def _content(self, text: str) -> list[int]:
        """People's words as ordinary tokens only, whatever they spell."""
        if not text:
            return []
        ids = self._texts([text], split_special_tokens=True)[0]
        if self.special_ids.isdisjoint(ids) or not self.lookalike:
            return ids
        # A tokenizer that does not know `split_special_tokens`: break every look-alike after its
        # first character.
        cuts = [0, *(match.start() + 1 for match in self.lookalike.finditer(text)), len(text)]
        parts = [text[start:end] for start, end in pairwise(cuts)]
        return [i for some in self._texts([part for part in parts if part]) for i in some]


@dataclass
class PicklableTokenizer:
    """As much of a transformers tokenizer as data/encode.py asks for; can be pickled.

    inner: the tokenizers library's own. kind: the name of the class that it was taken from.
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

    def __len__(self) -> int:
        """Tokens."""
        return self.size

    def __call__(
        self, texts: list[str], *, split_special_tokens: bool | None = None, **_: Any
    ) -> dict[str, list[list[int]]]:
        """As a transformers tokenizer's call, without special tokens put around."""
        inner = self.inner
        split = self.split_special_tokens if split_special_tokens is None else split_special_tokens
        # Another user of the same tokenizer may have left it otherwise.
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
    """The backend of a transformers tokenizer; None for one that has none, or puts work of its own
    around it."""
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
    )
