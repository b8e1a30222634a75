"""A tokenizer as GGUF stores it: pieces, types, scores or merges, and special tokens.

Two kinds are supported. Byte-level BPE is llama.cpp's "gpt2": merges, and the name of a pre-tokenizer.
BPE with byte fallback (InternLM2, Llama 2) is its "llama": a score per piece, where the best piece is
merged first; the order of a merge list expresses the same.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
from gguf import TokenType

from elysia.core.errors import ExportError

BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
# llama.cpp's names of pre-tokenizers, by a part that only their pattern contains. GPT-2's is built into
# ByteLevel and has no pattern in the file.
PRE_TOKENIZERS = (
    (r"\p{N}{1,3}", "llama-bpe"),
    (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|", "qwen2"),
)


@dataclass
class GgufVocabulary:
    """Pieces by id, each with a type, and scores (`model` "llama") or the merges ("gpt2").

    `exact` says whether llama.cpp's pre-tokenizer is this tokenizer's, as far as its file shows; the
    verification measures it.
    """

    model: str
    tokens: list[str]
    types: list[TokenType]
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    pre: str = "default"
    space_prefix: bool = False
    exact: bool = True
    source: str = ""

    def write(self, writer: gguf.GGUFWriter, tokenizer: Any) -> None:
        """Add everything to a GGUF's metadata, including the tokenizer's own file."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores:
            writer.add_token_scores(self.scores)
        if self.model == "gpt2":
            writer.add_token_merges(self.merges)
        writer.add_add_space_prefix(self.space_prefix)
        # Our own prompts begin as the template says; other programs rely on the file.
        bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        if type(tokenizer).__name__.lower().startswith("qwen"):
            bos = None  # as in data/encode.py: Qwen was never trained with one
        writer.add_add_bos_token(bos is not None and _adds_bos(tokenizer, bos))
        writer.add_add_eos_token(False)
        if bos is not None:
            writer.add_bos_token_id(bos)
        if eos is not None:
            writer.add_eos_token_id(eos)
        if pad is not None:
            writer.add_pad_token_id(pad)
        writer.add_string(gguf.Keys.Tokenizer.HF_JSON, self.source)


def build_vocabulary(tokenizer: Any, size: int, where: Path) -> GgufVocabulary:
    """The vocabulary of a transformers tokenizer, filled up to `size` rows of the embedding.

    ExportError, naming `where`, for a tokenizer of another kind than BPE.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    source = backend.to_str() if backend is not None else "{}"
    data = json.loads(source)
    model = data.get("model", {})
    if model.get("type") != "BPE":
        kind = model.get("type") or "slow"
        raise ExportError("export.tokenizer_not_bpe", folder=where, kind=kind)
    tokens, types = _build_pieces(data, size, where)
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    if model.get("byte_fallback"):
        prefix = "Prepend" in json.dumps(data.get("normalizer"))
        return GgufVocabulary(
            "llama",
            tokens,
            types,
            _build_scores(tokens, merges),
            space_prefix=prefix,
            source=source,
        )
    pre, exact = _get_pre_tokenizer(data.get("pre_tokenizer"))
    return GgufVocabulary(
        "gpt2", tokens, types, merges=[" ".join(m) for m in merges], pre=pre, exact=exact,
        source=source,
    )  # fmt: skip


def _build_pieces(
    data: dict[str, Any], size: int, where: Path
) -> tuple[list[str], list[TokenType]]:
    vocab: dict[str, int] = data["model"]["vocab"]
    added = {entry["id"]: entry for entry in data["added_tokens"]}
    count = max([*vocab.values(), *added]) + 1
    if count > size:
        raise ExportError("export.vocabulary_too_large", folder=where, count=count, rows=size)
    tokens = [f"[PAD{i}]" for i in range(size)]
    types = [TokenType.UNUSED] * size
    fallback = bool(data["model"].get("byte_fallback"))
    for piece, number in vocab.items():
        tokens[number] = piece
        byte = fallback and BYTE_TOKEN.fullmatch(piece)
        types[number] = TokenType.BYTE if byte else TokenType.NORMAL
    for number, entry in added.items():
        tokens[number] = entry["content"]
        types[number] = TokenType.CONTROL if entry["special"] else TokenType.USER_DEFINED
    unknown = data["model"].get("unk_token")
    if unknown in vocab:
        types[vocab[unknown]] = TokenType.UNKNOWN
    return tokens, types


def _build_scores(tokens: list[str], merges: list[list[str]]) -> list[float]:
    """Minus the index of the first merge that spells a piece; the lowest score where no merge does."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    last = len(merges)
    return [-float(ranks.get(token, last)) for token in tokens]


def _get_pre_tokenizer(pre_tokenizer: Any) -> tuple[str, bool]:
    """llama.cpp's name for a pre-tokenizer, and whether it is exactly that one."""
    if not pre_tokenizer:
        return "gpt-2", False
    parts = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    patterns = [part["pattern"].get("Regex", "") for part in parts if part.get("type") == "Split"]
    if not patterns:
        levels = [part for part in parts if part.get("type") == "ByteLevel"]
        return "gpt-2", bool(levels) and bool(levels[0].get("use_regex", True))
    for part, name in PRE_TOKENIZERS:
        if len(patterns) == 1 and part in patterns[0]:
            return name, True
    return "gpt-2", False


def _adds_bos(tokenizer: Any, bos: int) -> bool:
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and ids[0] == bos
