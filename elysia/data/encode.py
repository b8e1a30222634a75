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
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from elysia.core.errors import ModelError
from elysia.core.messages import Conversation
from elysia.core.templates import Piece, PromptTemplate, prompt_pieces

IGNORE = -100  # the label that a loss leaves out (torch's own default)


class Encoded(NamedTuple):
    """Token ids, and as many labels: the id itself where it is learned, IGNORE elsewhere."""

    ids: list[int]
    labels: list[int]


def encode(pieces: Sequence[Piece], tokenizer: Any) -> Encoded:
    """Ids and labels of one rendered conversation; ModelError when an eos is due and the
    tokenizer has none.
    """
    return Encoder(tokenizer).encode_many([pieces])[0]


def encode_prompt(
    conversation: Conversation, template: PromptTemplate, tokenizer: Any
) -> list[int]:
    """Ids of the chat prompt: a prefix of the ids that training sees for the answered talk."""
    return encode(prompt_pieces(conversation, template), tokenizer).ids


class Encoder:
    """One tokenizer, with what must be known of it looked up once."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        # Llama 3 lists its header marks only here.
        added = getattr(tokenizer, "added_tokens_decoder", {})
        special |= {token.content: number for number, token in added.items() if token.special}
        self.special_ids = frozenset(special.values())
        words = sorted(filter(None, special), key=len, reverse=True)
        self.lookalike = re.compile("|".join(map(re.escape, words))) if words else None

    def encode_many(self, conversations: Sequence[Sequence[Piece]]) -> list[Encoded]:
        """Encodes all plain texts in one batch, each once however often it comes."""
        pieces = {piece for pieces in conversations for piece in pieces}
        ids = {piece: self._special(piece.special) for piece in pieces if piece.special}
        plain: list[Piece] = []
        mixed: list[Piece] = []
        for piece in pieces - ids.keys():
            (mixed if self._holds_lookalike(piece) else plain).append(piece)
        ids.update(zip(plain, self._texts([piece.text for piece in plain]), strict=True))
        ids.update((piece, self._runs(piece)) for piece in mixed)
        return [self._join(conversation, ids) for conversation in conversations]

    @staticmethod
    def _join(pieces: Sequence[Piece], ids: dict[Piece, list[int]]) -> Encoded:
        joined = Encoded([], [])
        for piece in pieces:
            some = ids[piece]
            joined.ids.extend(some)
            joined.labels.extend(some if piece.learn else [IGNORE] * len(some))
        return joined

    def _special(self, special: Literal["bos", "eos"] | None) -> list[int]:
        kind = type(self.tokenizer).__name__
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

    def _holds_lookalike(self, piece: Piece) -> bool:
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

    def _runs(self, piece: Piece) -> list[int]:
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
