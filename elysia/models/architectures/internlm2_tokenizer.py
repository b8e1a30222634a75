"""InternLM2's tokenizer, fast, from its `tokenizer.model` alone: ids equal to SentencePiece's.

The published tokenizers are remote code around SentencePiece (https://arxiv.org/abs/1808.06226):
BPE over characters with byte fallback, no prefix space, no normalization. This module converts the
pieces and scores for the `tokenizers` library once (about a second); afterwards a saved
`tokenizer.json` loads immediately.

Two differences from SentencePiece are intended: six reserved pieces become the chat tokens, and the
texts `<s>`, `</s>`, `<unk>` and those six are single tokens unless `split_special_tokens` is set. The
reserved names that they replace ("[UNUSED_TOKEN_146]") are ordinary text here, so nobody can type a
chat token under its old name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from elysia.core.errors import ModelError

CHAT_TOKENS = {
    "[UNUSED_TOKEN_146]": "<|im_start|>",
    "[UNUSED_TOKEN_145]": "<|im_end|>",
    "[UNUSED_TOKEN_144]": "<|action_start|>",
    "[UNUSED_TOKEN_143]": "<|action_end|>",
    "[UNUSED_TOKEN_142]": "<|interpreter|>",
    "[UNUSED_TOKEN_141]": "<|plugin|>",
}
UNK, BOS, EOS = "<unk>", "<s>", "</s>"
SENTENCEPIECE_FILE = "tokenizer.model"
# SentencePiece encodes NUL as the byte <0x00> although a piece for it exists; that piece keeps its
# id under a name that no text can spell by merging.
NUL_NAME = "<NUL>"
NORMAL, USER_DEFINED = 1, 4  # SentencePiece's ModelProto.SentencePiece.Type
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def is_internlm2(folder: Path) -> bool:
    """Whether `folder`'s tokenizer.model is InternLM2's, by config.json or else by its pieces."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.get("model_type") != "internlm2":
            return False
    except (OSError, ValueError, AttributeError):
        pass  # a folder may hold the tokenizer alone
    proto = read_sentencepiece(folder / SENTENCEPIECE_FILE)
    names = {piece.piece for piece in proto.pieces}
    return proto.trainer_spec.byte_fallback and CHAT_TOKENS.keys() <= names


def load_internlm2_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder that holds `tokenizer.model`; ModelError when it is damaged.

    The bos token `<s>` 1 comes first unless add_special_tokens is False; eos and pad are `</s>` 2.
    """
    path = folder / SENTENCEPIECE_FILE
    fast = PreTrainedTokenizerFast(
        tokenizer_object=convert_sentencepiece(read_sentencepiece(path)),
        unk_token=UNK,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        additional_special_tokens=list(CHAT_TOKENS.values()),
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.sentencepiece_file = str(path)  # saved beside tokenizer.json, for programs that need it
    return fast


def read_sentencepiece(path: Path) -> Any:
    """The SentencePiece ModelProto in `path`."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2 as schema

    proto: Any = schema.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise ModelError("models.config_damaged", path=path, reason=str(error)) from error
    if not proto.pieces:
        raise ModelError("models.no_pieces", path=path)
    return proto


def convert_sentencepiece(proto: Any) -> Tokenizer:
    """A `tokenizers.Tokenizer` with the pieces, ids and merges of a byte-fallback BPE proto."""
    vocabulary = {_get_piece_name(piece.piece): i for i, piece in enumerate(proto.pieces)}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=build_merges(proto),
            unk_token=UNK,
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.Replace(Regex(f"^{NUL_NAME}$"), "\0"),
            decoders.ByteFallback(),
            decoders.Fuse(),
        ]
    )
    chat = set(CHAT_TOKENS.values())
    words = [_get_piece_name(p.piece) for p in proto.pieces if p.type == USER_DEFINED]
    tokenizer.add_tokens(
        [AddedToken(word, normalized=False, special=False) for word in words if word not in chat]
    )
    tokenizer.add_special_tokens(
        [AddedToken(word, normalized=False) for word in (UNK, BOS, EOS, *CHAT_TOKENS.values())]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return tokenizer


def build_merges(proto: Any) -> list[tuple[str, str]]:
    """Every pair of pieces that spells a third, best first.

    SentencePiece merges the neighbours that spell the piece of the highest score, and the leftmost
    ones among equals. A merge list has no equals: among the pairs that spell one piece, the longer
    left part goes first, which is what merging from the left gives for a run of one character.
    """
    scores = {p.piece: p.score for p in proto.pieces if p.type == NORMAL and p.piece != "\0"}
    pairs = [
        (-score, -cut, piece[:cut], piece[cut:])
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    pairs.sort(key=lambda pair: pair[:2])
    return [(first, second) for _, _, first, second in pairs]


def _get_piece_name(piece: str) -> str:
    return NUL_NAME if piece == "\0" else CHAT_TOKENS.get(piece, piece)
