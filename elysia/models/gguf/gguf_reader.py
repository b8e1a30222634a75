"""What a GGUF says of itself: its metadata, read without its weights and without running anything.

The file may be a stranger's: every length is held against the file's own size before it is believed.
Knows nothing of what the keys mean.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from elysia.core.errors import ModelError
from elysia.models.gguf.llama_server import LlamaServer

GGUF_MAGIC = b"GGUF"
STRING_TYPE, ARRAY_TYPE = 8, 9
# Number of a type of value -> its form in struct's language.
VALUE_FORMATS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}


def read_gguf_header(path: Path) -> dict[str, Any]:
    """Key to value of a GGUF's metadata; arrays as lists.

    Raises ModelError for a file that cannot be read, is no GGUF, or ends before its metadata does.
    """
    try:
        with open(path, "rb") as stream:
            if stream.read(4) != GGUF_MAGIC:
                raise ModelError(f"{path} is no GGUF file. Fetch it again, or name another.")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _HeaderReader(data).header()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path} cannot be read: {reason}. Check the path.") from error
    except (struct.error, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is damaged or cut short. Fetch it again.") from error


class _HeaderReader:
    """A place in the bytes, moving forward."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 4

    def header(self) -> dict[str, Any]:
        version, _, count = self.plain("<IQQ")
        if version not in (2, 3):
            raise KeyError(version)
        return {self.text(): self.value(self.plain("<I")[0]) for _ in range(count)}

    def plain(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return found

    def text(self) -> str:
        (length,) = self.plain("<Q")
        if length > len(self.data) - self.at:
            raise IndexError(length)
        raw = self.data[self.at : self.at + length]
        self.at += length
        return raw.decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == STRING_TYPE:
            return self.text()
        if kind != ARRAY_TYPE:
            return self.plain("<" + VALUE_FORMATS[kind])[0]
        inner, count = self.plain("<IQ")
        # The shortest item is a byte, so an honest count is never above the bytes that are left.
        if inner == ARRAY_TYPE or count > len(self.data) - self.at:
            raise IndexError(count)
        if inner == STRING_TYPE:
            return [self.text() for _ in range(count)]
        return list(self.plain(f"<{count}{VALUE_FORMATS[inner]}"))


TOKENIZER_KEY = "tokenizer.huggingface.json"
CONTROL_TOKEN = 3  # GGUF's type of tokens that stand for no text

EncodeFunction = Callable[[str, bool], list[int]]


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
            if kind == CONTROL_TOKEN
        }
        self.all_special_tokens = list(special)
        self.all_special_ids = list(special.values())
        self.bos_token_id: int | None = header.get("tokenizer.ggml.bos_token_id")
        self.eos_token_id: int | None = header.get("tokenizer.ggml.eos_token_id")
        self._puts_bos = bool(header.get("tokenizer.ggml.add_bos_token", False))
        self._special = special
        own = header.get(TOKENIZER_KEY)
        self._encode = _build_embedded_encoder(own) if own else _build_server_encoder(server)

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


def _build_embedded_encoder(source: str) -> EncodeFunction:
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


def _build_server_encoder(server: LlamaServer) -> EncodeFunction:
    def encode(text: str, special: bool) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": special}
        ids: list[int] = server.post("/tokenize", body)["tokens"]
        return ids

    return encode
