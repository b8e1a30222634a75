"""Creating a tokenizer and a randomly initialised model, small enough for a laptop: the demo's base."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from elysia.core.errors import DataError, ModelError, nearest
from elysia.models import loading

log = logging.getLogger(__name__)

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
CHAT_TOKENS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|action_start|>",
    "<|action_end|>",
    "<|interpreter|>",
    "<|plugin|>",
)
SPECIAL_TOKENS = (PAD, BOS, EOS, *CHAT_TOKENS)
ARCHITECTURES = ("internlm2", "llama", "qwen2")
MIN_VOCABULARY = 256 + len(SPECIAL_TOKENS)


def train_tokenizer(
    files: Sequence[str | Path], vocab_size: int, out: str | Path, *, overwrite: bool = False
) -> Path:
    """Train a byte-level BPE tokenizer on the text of `files` and write it to the folder `out`.

    Args:
        files: .json or .jsonl (every string inside the rows counts as text) or .txt (every line).
        vocab_size: tokens in all: 9 special tokens, 256 bytes, the rest learned.
        overwrite: whether `out` may already hold files.

    The same files give the same tokenizer. Raises DataError for unreadable or empty input and
    ModelError for an impossible size or a folder that is not empty.
    """
    if not files:
        raise DataError("models.no_files")
    if vocab_size < MIN_VOCABULARY:
        raise ModelError("models.vocabulary_too_small", size=vocab_size, minimum=MIN_VOCABULARY)
    folder = check_output_folder(out, overwrite)
    texts = [text for file in files for text in read_texts(Path(file))]
    tokenizer = Tokenizer(models.BPE())
    # No token is longer than one Chinese character: so little text would give tokens of whole
    # phrases, which occur too rarely for a model to learn them in any other context.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{Han}"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    learned = tokenizer.get_vocab_size()
    if learned < vocab_size:
        log.warning("The text gave only %d of the requested %d tokens.", learned, vocab_size)
    loading.save_tokenizer(_wrap_tokenizer(tokenizer), folder)
    return folder


def _wrap_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=list(CHAT_TOKENS),
        clean_up_tokenization_spaces=False,
    )


def read_texts(file: Path) -> Iterator[str]:
    """The texts of one file: strings of JSON values in file order, or non-empty lines.

    Raises DataError, which names the file and line, for damaged files and for files without text.
    """
    try:
        content = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError("models.file_unreadable", path=file, reason=error.strerror) from error
    except UnicodeDecodeError as error:
        raise DataError("models.not_utf8", path=file, offset=error.start) from error
    lines = content.splitlines()
    kind = file.suffix.lower()
    if kind == ".jsonl" and not content.lstrip().startswith("["):
        rows: list[Any] = [
            _parse_json(line, file, number) for number, line in enumerate(lines, 1) if line.strip()
        ]
    elif kind in (".json", ".jsonl"):
        rows = [_parse_json(content, file)] if content.strip() else []
    elif kind == ".txt":
        rows = lines
    else:
        raise DataError("models.text_suffix", path=file)
    texts = [text for row in rows for text in _iter_strings(row) if text.strip()]
    if not texts:
        raise DataError("models.no_text", path=file)
    yield from texts


def _parse_json(text: str, file: Path, line: int = 0) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            "models.not_json", path=file, line=line or error.lineno, column=error.colno,
            reason=error.msg,
        ) from error  # fmt: skip


def _iter_strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _iter_strings(item)


def init_model(
    out: str | Path,
    *,
    tokenizer: str | Path,
    architecture: str = "internlm2",
    hidden_size: int,
    layers: int,
    heads: int,
    kv_heads: int | None = None,
    intermediate_size: int | None = None,
    max_position_embeddings: int = 2048,
    vocab_size: int | None = None,
    tie_word_embeddings: bool = False,
    seed: int = 0,
    dtype: str = "float32",
    overwrite: bool = False,
) -> Path:
    """Write a model of random weights, its config and `tokenizer` to the folder `out`.

    Args:
        tokenizer: folder whose tokenizer sets the vocabulary; it is copied into `out`.
        kv_heads: key-value heads; as many as `heads` when None.
        vocab_size: rows of the embedding, at least the tokenizer's, which is the default.
        intermediate_size: width of the feed-forward layer; about 8/3 of hidden_size when None.
        seed: the same seed gives the same weights; the caller's random state is left alone.

    Raises ModelError for sizes that do not fit each other or a folder that is not empty.
    """
    kv_heads = kv_heads or heads
    intermediate_size = intermediate_size or (hidden_size * 8 // 3 + 63) // 64 * 64
    _check_sizes(architecture, hidden_size, layers, heads, kv_heads)
    vocabulary = loading.load_tokenizer(Path(tokenizer))
    weights_dtype = loading.parse_dtype(dtype)
    folder = check_output_folder(out, overwrite)
    sizes = {
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate_size,
        "max_position_embeddings": max_position_embeddings,
        "vocab_size": vocab_size or len(vocabulary),
    }
    config = _build_config(architecture, vocabulary, sizes, tie_word_embeddings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(weights_dtype)
    model.generation_config = _build_generation_config(vocabulary)
    loading.save_model(model, vocabulary, folder)
    return folder


def _build_config(architecture: str, tokenizer: Any, sizes: dict[str, int], tied: bool) -> Any:
    if sizes["vocab_size"] < len(tokenizer):
        size = sizes["vocab_size"]
        raise ModelError("models.vocabulary_below_tokenizer", size=size, count=len(tokenizer))
    return AutoConfig.for_model(
        architecture,
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **sizes,
        **({"bias": False} if architecture == "internlm2" else {}),
    )


def _build_generation_config(tokenizer: Any) -> GenerationConfig:
    """Replies end at either of the two end tokens."""
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[end for end in dict.fromkeys(ends) if end is not None],
        pad_token_id=tokenizer.pad_token_id,
    )


def _check_sizes(architecture: str, hidden: int, layers: int, heads: int, kv_heads: int) -> None:
    if architecture not in ARCHITECTURES:
        hint = nearest(architecture, ARCHITECTURES)
        raise ModelError(
            "models.unknown_architecture", name=architecture, hint=hint, choices=ARCHITECTURES
        )
    if min(hidden, layers, heads, kv_heads) < 1:
        raise ModelError("models.sizes_below_one")
    if hidden % heads or (hidden // heads) % 2:
        raise ModelError("models.heads_not_even", hidden=hidden, heads=heads, multiple=2 * heads)
    if heads % kv_heads:
        raise ModelError("models.kv_heads_not_even", heads=heads, kv_heads=kv_heads)


def check_output_folder(out: str | Path, overwrite: bool) -> Path:
    """`out` as a folder to write to, not created yet; ModelError when it already holds files."""
    folder = Path(out)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not overwrite):
        raise ModelError("models.folder_not_empty", folder=folder)
    return folder
