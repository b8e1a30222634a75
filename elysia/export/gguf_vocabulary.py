"""A tokenizer as GGUF tells it: pieces, kinds, scores or merges, and the marks.

Two kinds exist here. Byte-level BPE is llama.cpp's "gpt2": merges, and the name of a way of cutting
text beforehand. BPE with byte fallback (InternLM2, Llama 2) is its "llama": a score a piece, where
the best piece is joined first; a merge list's order says the same. Knows nothing of weights.

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
# What llama.cpp calls the ways of cutting text, by a mark that only that pattern has. GPT-2's comes
# with ByteLevel itself and has no pattern in the file.
PRE_TOKENIZERS = (
    (r"\p{N}{1,3}", "llama-bpe"),
    (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|", "qwen2"),
)


@dataclass
class GgufVocabulary:
    """Pieces by id, each with a kind, and a score (`model` "llama") or the merges ("gpt2").

    `exact` says whether llama.cpp cuts text beforehand just as this tokenizer does, as far as its
    file tells; the proof counts.
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
        """Add it all to a GGUF's metadata, the tokenizer's own file included."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores:
            writer.add_token_scores(self.scores)
        if self.model == "gpt2":
            writer.add_token_merges(self.merges)
        writer.add_add_space_prefix(self.space_prefix)
        # Our own prompts begin with what the template says; others ask the file.
        bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        if type(tokenizer).__name__.lower().startswith("qwen"):
            bos = None  # as data/encode.py: Qwen was never trained with one
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
    told = json.loads(source)
    model = told.get("model", {})
    if model.get("type") != "BPE":
        raise ExportError(
            f"The tokenizer in {where} is not BPE, but {model.get('type') or 'a slow one'}: it has "
            "no form in GGUF here. Use a model whose tokenizer.json holds BPE."
        )
    tokens, types = _build_pieces(told, size, where)
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    if model.get("byte_fallback"):
        prefix = "Prepend" in json.dumps(told.get("normalizer"))
        return GgufVocabulary(
            "llama",
            tokens,
            types,
            _build_scores(tokens, merges),
            space_prefix=prefix,
            source=source,
        )
    pre, exact = _get_pre_tokenizer(told.get("pre_tokenizer"))
    return GgufVocabulary(
        "gpt2", tokens, types, merges=[" ".join(m) for m in merges], pre=pre, exact=exact,
        source=source,
    )  # fmt: skip


def _build_pieces(
    told: dict[str, Any], size: int, where: Path
) -> tuple[list[str], list[TokenType]]:
    vocab: dict[str, int] = told["model"]["vocab"]
    added = {entry["id"]: entry for entry in told["added_tokens"]}
    count = max([*vocab.values(), *added]) + 1
    if count > size:
        raise ExportError(
            f"The tokenizer in {where} has {count} pieces and the model's embedding only {size} "
            "rows: they do not belong together."
        )
    tokens = [f"[PAD{i}]" for i in range(size)]
    types = [TokenType.UNUSED] * size
    fallback = bool(told["model"].get("byte_fallback"))
    for piece, number in vocab.items():
        tokens[number] = piece
        byte = fallback and BYTE_TOKEN.fullmatch(piece)
        types[number] = TokenType.BYTE if byte else TokenType.NORMAL
    for number, entry in added.items():
        tokens[number] = entry["content"]
        types[number] = TokenType.CONTROL if entry["special"] else TokenType.USER_DEFINED
    unknown = told["model"].get("unk_token")
    if unknown in vocab:
        types[vocab[unknown]] = TokenType.UNKNOWN
    return tokens, types


def _build_scores(tokens: list[str], merges: list[list[str]]) -> list[float]:
    """Minus the place of the first merge that spells a piece; what no merge spells is never joined."""
    places: dict[str, int] = {}
    for place, pair in enumerate(merges):
        places.setdefault("".join(pair), place)
    last = len(merges)
    return [-float(places.get(token, last)) for token in tokens]


def _get_pre_tokenizer(pre_tokenizer: Any) -> tuple[str, bool]:
    """llama.cpp's name for a way of cutting, and whether it is exactly that."""
    if not pre_tokenizer:
        return "gpt-2", False
    parts = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    patterns = [part["pattern"].get("Regex", "") for part in parts if part.get("type") == "Split"]
    if not patterns:
        levels = [part for part in parts if part.get("type") == "ByteLevel"]
        return "gpt-2", bool(levels) and bool(levels[0].get("use_regex", True))
    for mark, name in PRE_TOKENIZERS:
        if len(patterns) == 1 and mark in patterns[0]:
            return name, True
    return "gpt-2", False


def _adds_bos(tokenizer: Any, bos: int) -> bool:
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and ids[0] == bos
