"""Reading a GGUF: its metadata and table of tensors, without its weights, and its tokenizer.

The metadata is read without running anything. The file may come from a stranger, so every length is
checked against the file's own size before it is used. The tokenizer has the interface that
data/encode.py expects. A file that this project wrote carries `tokenizer.huggingface.json`, which gives
the ids of the training without a request; any other file's text is encoded by the llama.cpp process
that serves it. Neither needs torch or transformers.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from elysia.core.errors import ModelError
from elysia.models.gguf.llama_server import GGUF_MAGIC, LlamaServer

STRING_TYPE, ARRAY_TYPE = 8, 9
# From the number of a type of value to its format character in `struct`.
VALUE_FORMATS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
DEFAULT_ALIGNMENT = 32  # bytes, of the weights in a file that does not say
MAX_DIMENSIONS = 4  # of a tensor in ggml
TOKENIZER_KEY = "tokenizer.huggingface.json"
CONTROL_TOKEN = 3  # GGUF's type of tokens that stand for no text

EncodeFunction = Callable[[str, bool], list[int]]  # (text, whether special tokens are recognised)


class GgufTensorInfo(NamedTuple):
    """One entry of a GGUF's table of tensors.

    `shape` is in torch's order, `kind` the number of its type in ggml, `offset` counts bytes from the
    beginning of the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def read_gguf_header(path: Path) -> dict[str, Any]:
    """The metadata of a GGUF by key; arrays as lists.

    Raises ModelError for a file that cannot be read, is no GGUF, or ends before its metadata does.
    """
    with _open_header(path) as reader:
        return reader.read_header()


def read_gguf_tables(path: Path) -> tuple[dict[str, Any], list[GgufTensorInfo]]:
    """The metadata of a GGUF and its table of tensors. Raises as `read_gguf_header`."""
    with _open_header(path) as reader:
        header = reader.read_header()
        alignment = int(header.get("general.alignment", DEFAULT_ALIGNMENT))
        table = [reader.read_tensor_info() for _ in range(reader.tensor_count)]
        start = -(-reader.offset // alignment) * alignment
        return header, [info._replace(offset=start + info.offset) for info in table]


@contextmanager
def _open_header(path: Path) -> Iterator[_HeaderReader]:
    try:
        with open(path, "rb") as stream:
            if stream.read(4) != GGUF_MAGIC:
                raise ModelError("models.not_gguf", path=path)
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield _HeaderReader(data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError("models.file_unreadable", path=path, reason=reason) from error
    except (struct.error, IndexError, KeyError, UnicodeDecodeError, ZeroDivisionError) as error:
        raise ModelError("models.gguf_damaged", path=path) from error


class _HeaderReader:
    """A position in the bytes that moves forward."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.offset = 4
        self.tensor_count = 0

    def read_header(self) -> dict[str, Any]:
        version, self.tensor_count, count = self.read_numbers("<IQQ")
        if version not in (2, 3):
            raise KeyError(version)
        return {self.read_text(): self.read_value(self.read_numbers("<I")[0]) for _ in range(count)}

    def read_tensor_info(self) -> GgufTensorInfo:
        name = self.read_text()
        (dimensions,) = self.read_numbers("<I")
        if dimensions > MAX_DIMENSIONS:
            raise IndexError(dimensions)
        shape = self.read_numbers(f"<{dimensions}Q")  # ggml counts the fastest dimension first
        return GgufTensorInfo(name, shape[::-1], *self.read_numbers("<IQ"))

    def read_numbers(self, form: str) -> tuple[Any, ...]:
        numbers = struct.unpack_from(form, self.data, self.offset)
        self.offset += struct.calcsize(form)
        return numbers

    def read_text(self) -> str:
        (length,) = self.read_numbers("<Q")
        if length > len(self.data) - self.offset:
            raise IndexError(length)
        raw = self.data[self.offset : self.offset + length]
        self.offset += length
        return raw.decode("utf-8", errors="replace")

    def read_value(self, kind: int) -> Any:
        if kind == STRING_TYPE:
            return self.read_text()
        if kind != ARRAY_TYPE:
            return self.read_numbers("<" + VALUE_FORMATS[kind])[0]
        inner, count = self.read_numbers("<IQ")
        # The shortest item is one byte, so an honest count is never above the remaining bytes.
        if inner == ARRAY_TYPE or count > len(self.data) - self.offset:
            raise IndexError(count)
        if inner == STRING_TYPE:
            return [self.read_text() for _ in range(count)]
        return list(self.read_numbers(f"<{count}{VALUE_FORMATS[inner]}"))


class GgufTokenizer:
    """Text to ids, with the special tokens that an encoder must know.

    `header` is the file's metadata, `server` the process that serves the file.
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
        self._adds_bos = bool(header.get("tokenizer.ggml.add_bos_token", False))
        self._special = special
        source = header.get(TOKENIZER_KEY)
        # A file of ours was trained with what its run card says; others say it in their metadata.
        self.adds_bos = bool(source) or header.get("tokenizer.ggml.add_bos_token") is not False
        self._encode = _build_embedded_encoder(source) if source else _build_server_encoder(server)

    def __call__(
        self, texts: list[str], *, split_special_tokens: bool = False, **_: Any
    ) -> dict[str, list[list[int]]]:
        """Like calling a transformers tokenizer, without special tokens at either end."""
        return {"input_ids": [self._encode(text, not split_special_tokens) for text in texts]}

    def encode_with_bos(self, text: str) -> list[int]:
        """Ids of plain text, after the beginning-of-sequence token where the model expects one."""
        front = [self.bos_token_id] if self._adds_bos and self.bos_token_id is not None else []
        return front + self._encode(text, True)

    def find_control_token(self, text: str) -> int | None:
        """The id of the control token called `text`, or None."""
        return self._special.get(text)


def _build_embedded_encoder(source: str) -> EncodeFunction:
    """The file's own tokenizer, twice: with special tokens as such, and as ordinary text."""
    try:
        whole, split = Tokenizer.from_str(source), Tokenizer.from_str(source)
    except Exception as error:  # the library raises bare Exception
        raise ModelError("models.gguf_tokenizer", reason=str(error)) from error
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
