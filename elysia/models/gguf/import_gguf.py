"""A GGUF becomes a model folder that can be trained: weights without their quantization, tokenizer, template.

transformers reads the weights; what it leaves out (scaled rotary positions, the ends of a turn) is
restored from the metadata, and what it cannot read is refused before anything is written.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    PreTrainedTokenizerFast,
)
from transformers.integrations.gguf.gguf_conversion_mapping import GGUF_ARCHS
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from elysia.core.errors import ModelError
from elysia.core.files import compute_sha256, staged_folder
from elysia.core.run_card import RunCard
from elysia.models.device import parse_dtype
from elysia.models.gguf.array_skipping import skip_long_arrays
from elysia.models.gguf.gguf_reader import (
    TOKENIZER_KEY,
    GgufTensorInfo,
    read_gguf_tables,
)
from elysia.models.gguf.rope_scaling import EXTRA_TENSORS, read_rope_scaling
from elysia.models.own_template import find_special_id, read_gguf_template
from elysia.models.saving import quiet_transformers, save_model

log = logging.getLogger(__name__)

# In transformers' tables, and no causal language models.
ENCODERS = {"t5", "t5encoder", "umt5", "general", "tokenizer"}
# GGUF's names of architectures that transformers has under another in its table.
ALIASES = {
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "gpt-oss": "gpt_oss",
    "minimax-m2": "minimax_m2",
}
FLOAT_TYPES = {
    gguf.GGMLQuantizationType.F32: "float32",
    gguf.GGMLQuantizationType.F16: "float16",
    gguf.GGMLQuantizationType.BF16: "bfloat16",
}
# Tokens at which templates end a turn, beside those that the metadata names: older files name only the
# end of the text. One counts if it is a control token that the file's template writes.
TURN_ENDS = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<turn|>", "<|end|>", "<|return|>",
    "<|call|>", "<|eot|>", "<|END_OF_TURN_TOKEN|>", "<|end_of_role|>", "<|endofturn|>",
)  # fmt: skip

# GGUF's types of control and user-defined tokens; converters differ in which a turn's end gets.
CONTROL_KINDS = (3, 4)
# Parameters in memory for one in the file: a head that shares the embedding's weights is stored once.
MAX_CLAIM = 2
# transformers' names of special tokens, and GGUF's.
SPECIAL_TOKENS = (
    ("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding"), ("unk_token", "unknown")
)  # fmt: skip


@dataclass(frozen=True)
class ImportedGguf:
    """A GGUF that became a folder: its architecture in transformers, its parameters and their dtype, the
    texts that end a reply, and whether it carries a chat template.
    """

    folder: Path
    model_type: str
    parameters: int
    dtype: str
    end_tokens: tuple[str, ...]
    has_template: bool


def import_gguf(
    file: str | Path,
    folder: str | Path,
    *,
    dtype: str = "auto",
    check: Callable[[Path], None] | None = None,
) -> ImportedGguf:
    """Write the model in `file` as a Hugging Face `folder`, completely or not at all.

    Memory holds the weights once, in `dtype`.

    Args:
        dtype: of the weights; "auto" is the file's own, and bfloat16 for a quantized file.
        check: called with the finished folder before it gets its name; what it raises stops the import.

    Raises ModelError for a file that is damaged or cut short, an architecture or a type of weights that
    cannot be read, a vocabulary of another size than the embedding, and a folder that holds anything.
    """
    file = Path(file)
    header, tensors = read_gguf_tables(file)
    _check_file(file, header, tensors)
    chosen = _get_stored_dtype(tensors) if dtype == "auto" else dtype
    with staged_folder(folder, ModelError) as staging:
        with skip_long_arrays():
            tokenizer = _load_tokenizer(file, header)
            _check_parameters(file, tensors)
            model = _load_model(file, parse_dtype(chosen))
        _restore_rope_scaling(file, model, header, tensors)
        ends = _get_end_tokens(header)
        _set_generation_config(model, tokenizer, ends)
        save_model(model, tokenizer, staging)
        imported = ImportedGguf(
            folder=Path(folder),
            model_type=model.config.model_type,
            parameters=sum(p.numel() for p in model.parameters()),
            dtype=chosen,
            end_tokens=tuple(ends),
            has_template=bool(tokenizer.chat_template),
        )
        del model
        _build_card(file, header).write(staging)
        if check:
            check(staging)
    return imported


def _check_file(file: Path, header: Mapping[str, Any], tensors: list[GgufTensorInfo]) -> None:
    """ModelError, in one sentence, for a file that cannot become a model."""
    name = str(header.get("general.architecture", ""))
    kind = header.get("general.type", "model")
    parts = int(header.get("split.count", 1))
    if parts > 1:
        raise ModelError("models.gguf_split", path=file, parts=parts)
    if kind != "model" or not tensors:
        raise ModelError("models.gguf_without_model", path=file, kind=kind)
    known = (set(GGUF_SUPPORTED_ARCHITECTURES) | set(GGUF_ARCHS)) - ENCODERS
    if name not in known and ALIASES.get(name) not in known:
        names = sorted(known - set(ALIASES.values()) | set(ALIASES))
        raise ModelError("models.gguf_architecture", path=file, name=name, known=names)
    _check_weights(file, tensors)
    embedding = next((info for info in tensors if info.name == "token_embd.weight"), None)
    tokens = len(header.get("tokenizer.ggml.tokens", []))
    if not tokens:
        raise ModelError("models.gguf_without_tokenizer", path=file)
    if embedding is not None and embedding.shape[0] != tokens:
        raise ModelError(
            "models.gguf_vocabulary", path=file, tokens=tokens, rows=embedding.shape[0]
        )


def _check_weights(file: Path, tensors: list[GgufTensorInfo]) -> None:
    """ModelError for a tensor that lies beyond the file's end, or has a type without a formula."""
    size = file.stat().st_size
    for info in tensors:
        count = math.prod(info.shape)
        try:
            kind = gguf.GGMLQuantizationType(info.kind)
            block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        except (ValueError, KeyError):
            kind = None
        if kind not in _list_known_types():
            name = kind.name if kind is not None else str(info.kind)
            raise ModelError("models.gguf_type", path=file, tensor=info.name, type=name)
        end = info.offset + count // block * block_bytes
        if end > size:
            raise ModelError("models.gguf_cut_short", path=file, size=size, needed=end)


def _list_known_types() -> set[gguf.GGMLQuantizationType]:
    quantized = {
        kind
        for kind in gguf.GGMLQuantizationType
        if hasattr(gguf.quants._type_traits.get(kind), "dequantize_blocks")
    }
    return quantized | set(FLOAT_TYPES)


def _get_stored_dtype(tensors: list[GgufTensorInfo]) -> str:
    """The dtype of the file's matrices; bfloat16 when they are quantized, or of several types."""
    kinds = {info.kind for info in tensors if len(info.shape) > 1}
    names = {FLOAT_TYPES.get(gguf.GGMLQuantizationType(kind), "bfloat16") for kind in kinds}
    return names.pop() if len(names) == 1 else "bfloat16"


def _load_tokenizer(file: Path, header: Mapping[str, Any]) -> Any:
    """The tokenizer in the file: the whole one that files of ours embed, or what transformers builds from
    the vocabulary, without the tokens that it appends.
    """
    tokens = header["tokenizer.ggml.tokens"]
    tokenizer: Any
    try:
        if embedded := header.get(TOKENIZER_KEY):
            tokenizer = _wrap_tokenizer(embedded, header)
        else:
            with quiet_transformers():
                tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            if len(tokenizer) > len(tokens):
                # Its converter for GPT-2's kind appends <|endoftext|> where a vocabulary has none, and the
                # embedding has no row for that.
                state = json.loads(tokenizer.backend_tokenizer.to_str())
                added = [token for token in state["added_tokens"] if token["id"] < len(tokens)]
                tokenizer = _wrap_tokenizer(json.dumps(state | {"added_tokens": added}), header)
    except Exception as error:  # transformers raises many kinds
        raise ModelError("models.gguf_tokenizer", reason=_describe(error)) from error
    if len(tokenizer) > len(tokens):
        raise ModelError(
            "models.gguf_vocabulary", path=file, tokens=len(tokenizer), rows=len(tokens)
        )
    template = read_gguf_template(header)
    tokenizer.chat_template = template.source if template else None
    return tokenizer


def _wrap_tokenizer(source: str, header: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """A transformers tokenizer of a `tokenizer.json`, with the special tokens that the metadata names."""
    tokens = header["tokenizer.ggml.tokens"]
    numbers = {name: find_special_id(header, key) for name, key in SPECIAL_TOKENS}
    named = {name: tokens[number] for name, number in numbers.items() if number is not None}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(source), **named)


def _check_parameters(file: Path, tensors: list[GgufTensorInfo]) -> None:
    """ModelError when the model of the metadata is not the one that the tensors make.

    Of a larger one transformers would allocate all, whatever memory there is; of a smaller one (without
    biases, say) it would drop in silence what it does not know.
    """
    weights = [i for i in tensors if i.name not in EXTRA_TENSORS and ".nextn." not in i.name]
    claimed = stored = sum(math.prod(info.shape) for info in weights)
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
            if config.num_hidden_layers <= len(tensors):
                with torch.device("meta"):
                    model = AutoModelForCausalLM.from_config(config)
                claimed = sum(parameter.numel() for parameter in model.parameters())
    except Exception as error:
        raise ModelError("models.gguf_not_imported", path=file, reason=_describe(error)) from error
    if config.num_hidden_layers > len(tensors) or claimed > MAX_CLAIM * stored:
        raise ModelError(
            "models.gguf_without_weights", path=file, layers=config.num_hidden_layers, stored=stored
        )
    if stored > claimed:
        names = sorted(info.name for info in tensors)
        biases = [info.name for info in weights if info.name.endswith(".bias")]
        raise ModelError(
            "models.gguf_weights_dropped", path=file, stored=stored, taken=claimed,
            model_type=config.model_type, name=(biases or names)[0],
        )  # fmt: skip


def _load_model(file: Path, dtype: torch.dtype) -> Any:
    try:
        with quiet_transformers():
            # With output_loading_info it returns two values, of which its types know nothing.
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                file.parent,
                gguf_file=file.name,
                dtype=dtype,
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
            )
    except Exception as error:
        raise ModelError("models.gguf_not_imported", path=file, reason=_describe(error)) from error
    model, loading_info = loaded
    missing = sorted(loading_info["missing_keys"])
    if missing:
        raise ModelError("models.weights_missing", folder=file, count=len(missing), name=missing[0])
    # Else it would be saved as a quantized model, which it no longer is.
    model.hf_quantizer, model.is_quantized = None, False
    model.config.quantization_config = None
    del model.config.quantization_config
    return model


def _restore_rope_scaling(
    file: Path, model: Any, header: Mapping[str, Any], tensors: list[GgufTensorInfo]
) -> None:
    scaling = read_rope_scaling(file, model.config, header, tensors)
    if scaling:
        model.config.rope_parameters = {**(model.config.rope_parameters or {}), **scaling}


def _get_end_tokens(header: Mapping[str, Any]) -> dict[str, int]:
    """All tokens that end a reply, by text: the metadata's, and those its template ends turns with."""
    tokens: list[str] = header["tokenizer.ggml.tokens"]
    kinds: list[int] = header.get("tokenizer.ggml.token_type", [])
    ends: dict[str, int] = {}
    for key in ("eos", "eot", "eom"):
        if (number := find_special_id(header, key)) is not None:
            ends[tokens[number]] = number
    source = str(header.get("tokenizer.chat_template", ""))
    for text in TURN_ENDS:
        if text in source and text not in ends and text in tokens:
            number = tokens.index(text)
            if number >= len(kinds) or kinds[number] in CONTROL_KINDS:
                ends[text] = number
    return ends


def _set_generation_config(model: Any, tokenizer: Any, ends: Mapping[str, int]) -> None:
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(ends.values()) or None,
        pad_token_id=tokenizer.pad_token_id,
    )


def _build_card(file: Path, header: Mapping[str, Any]) -> RunCard:
    source = {
        "file": file.name,
        "bytes": file.stat().st_size,
        "sha256": compute_sha256(file),
        "architecture": header["general.architecture"],
    }
    for key in ("name", "license", "organization"):
        if f"general.{key}" in header:
            source[key] = header[f"general.{key}"]
    return RunCard(
        stage="base",
        base_model=str(header.get("general.name") or file.name),
        method="full",
        extra={"imported_from": source},
    )


def _describe(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{text[:300] or 'no reason given'} ({type(error).__name__})"
