"""The part of a fast tokenizer that makes ids of text, without the layer that transformers puts
around it: the same ids for less work, and fit to be sent to another process, which then needs
neither transformers nor torch.

Knows nothing of templates or samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer


@dataclass
class Backend:
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


def backend_of(tokenizer: Any) -> Backend | None:
    """The backend of a transformers tokenizer; None for one that has none, or puts work of its own
    around it."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    kind: Any = type(tokenizer)
    base = next((c for c in kind.__mro__ if c.__name__ == "TokenizersBackend"), None)
    plain = base and kind._encode_plus is base._encode_plus and kind.__call__ is base.__call__
    if not plain or not isinstance(inner, Tokenizer):
        return None
    return Backend(
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
