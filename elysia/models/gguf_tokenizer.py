"""The tokenizer of a GGUF, as data/encode.py wants one: the file's own, or llama.cpp's.

A file that this project wrote carries `tokenizer.huggingface.json`, whose ids are those of the
training and cost no request. Any other file's text is encoded by the llama.cpp process that serves
it. Imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import Tokenizer

from elysia.core.errors import ModelError
from elysia.models.llama_server import LlamaServer

KEY = "tokenizer.huggingface.json"
CONTROL = 3  # GGUF's type of tokens that stand for no text

Encode = Callable[[str, bool], list[int]]


class GgufTokenizer:
    """Text to ids, and what must be known of special tokens.

    `header` is the file's metadata, `server` what serves the file.
    """

    def __init__(self, header: Mapping[str, Any], server: LlamaServer) -> None:
        tokens: list[str] = header.get("tokenizer.ggml.tokens", [])
        kinds: list[int] = header.get("tokenizer.ggml.token_type", [])
        special = {
            token: number
            for number, (token, kind) in enumerate(zip(tokens, kinds, strict=False))
            if kind == CONTROL
        }
        self.all_special_tokens = list(special)
        self.all_special_ids = list(special.values())
        self.bos_token_id: int | None = header.get("tokenizer.ggml.bos_token_id")
        self.eos_token_id: int | None = header.get("tokenizer.ggml.eos_token_id")
        self._puts_bos = bool(header.get("tokenizer.ggml.add_bos_token", False))
        self._special = special
        own = header.get(KEY)
        self._encode = _own(own) if own else _served(server)

    def __call__(
        self, texts: list[str], *, split_special_tokens: bool = False, **_: Any
    ) -> dict[str, list[list[int]]]:
        """As a transformers tokenizer's call, without special tokens put around."""
        return {"input_ids": [self._encode(text, not split_special_tokens) for text in texts]}

    def with_bos(self, text: str) -> list[int]:
        """Ids of plain text, behind the beginning-of-sequence token where the model wants one."""
        front = [self.bos_token_id] if self._puts_bos and self.bos_token_id is not None else []
        return front + self._encode(text, True)

    def token_id(self, text: str) -> int | None:
        """The id of the control token that is `text`, or None."""
        return self._special.get(text)


def _own(source: str) -> Encode:
    """The file's tokenizer, twice: with special tokens as such, and as ordinary text."""
    try:
        whole, split = Tokenizer.from_str(source), Tokenizer.from_str(source)
    except Exception as error:  # the library raises bare Exception
        raise ModelError(f"The tokenizer inside the GGUF cannot be read: {error}") from error
    split.encode_special_tokens = True

    def encode(text: str, special: bool) -> list[int]:
        ids: list[int] = (whole if special else split).encode(text, add_special_tokens=False).ids
        return ids

    return encode


def _served(server: LlamaServer) -> Encode:
    def encode(text: str, special: bool) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": special}
        ids: list[int] = server.post("/tokenize", body)["tokens"]
        return ids

    return encode
