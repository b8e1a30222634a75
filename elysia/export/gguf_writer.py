"""From a model folder to one GGUF file: weights, vocabulary, chat template, stop words, run card.

One tensor is in memory at a time. The file appears complete or not at all, and only after it has been
verified (`verify_gguf`).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from elysia.core.errors import ExportError
from elysia.core.files import explain_write_errors, write_atomic
from elysia.core.run_card import RunCard
from elysia.export import gguf_weights as weights
from elysia.export.chat_template import render_chat_template
from elysia.export.gguf_vocabulary import GgufVocabulary, build_vocabulary
from elysia.export.shards import ShardReader
from elysia.export.verify_gguf import GgufVerification, verify_gguf
from elysia.models import loading
from elysia.models.chat_format import ChatFormat

log = logging.getLogger(__name__)

FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_k_m": gguf.LlamaFileType.MOSTLY_Q4_K_M,
}
GGUF_ARCHITECTURES = {
    "internlm2": gguf.MODEL_ARCH.LLAMA,
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
}
CARD_KEY = "elysia.run_card"


@dataclass(frozen=True)
class GgufResult:
    """A GGUF that was written, and what its verification measured."""

    path: Path
    verification: GgufVerification


def quantize_gguf(
    model: str | Path,
    out: str | Path | None = None,
    *,
    file_type: str,
    context: int | None = None,
    prompts: Sequence[str] = (),
    max_kl: float | None = None,
) -> GgufResult:
    """Write `model` as a GGUF, verify it against transformers, and put it in place.

    Args:
        out: the file; when None NAME.TYPE.gguf beside the folder. A GGUF there is replaced.
        file_type: a key of FILE_TYPES.
        context: tokens; the model's own when None. Only dynamic-NTK models can go beyond it; their
            base is then fixed for that length.
        prompts: texts to verify with, template included; when empty `verify_gguf.SAMPLE_TEXTS`.
        max_kl: see `verify_gguf`.

    Raises ExportError for a model that GGUF cannot hold and for a verification that fails; then nothing
    is left behind. The run card goes into the file and beside it.
    """
    model = Path(model)
    if file_type not in FILE_TYPES:
        raise ExportError("export.unknown_gguf_type", name=file_type, types=list(FILE_TYPES))
    target = _get_target(model, out, file_type)
    config, tokenizer = loading.load_config(model), loading.load_tokenizer(model)
    _check_support(config, model, context)
    card = _build_card(model, file_type)
    vocabulary = build_vocabulary(tokenizer, config.vocab_size, model)
    staging = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with explain_write_errors(target, ExportError):
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_file(staging, model, config, tokenizer, vocabulary, card, file_type, context)
            verification = verify_gguf(
                model, staging, file_type, prompts, bound=max_kl, context=context
            )
            with open(staging, "rb") as stream:
                os.fsync(stream.fileno())
            card = card.updated(metrics=verification.metrics())
            text = json.dumps(card.to_dict(), ensure_ascii=False, indent=2)
            write_atomic(get_card_path(target), text + "\n")
            os.replace(staging, target)
            _warn_inexact(verification, vocabulary)
    finally:
        staging.unlink(missing_ok=True)
    return GgufResult(target, verification)


def _get_target(model: Path, out: str | Path | None, file_type: str) -> Path:
    folder = model.resolve()
    target = Path(out) if out else folder.parent / f"{folder.name}.{file_type}.gguf"
    if target.is_dir():
        raise ExportError("export.target_is_folder", path=target)
    return target


def get_card_path(file: Path) -> Path:
    """The path of a GGUF's run card; its name holds the file's, since several files share a folder."""
    return file.with_name(f"{file.stem}.run_card.json")


def _warn_inexact(verification: GgufVerification, vocabulary: GgufVocabulary) -> None:
    if verification.lines_equal < verification.lines or not vocabulary.exact:
        log.warning(
            "llama.cpp does not know this tokenizer's way of splitting text ('%s' is the nearest), so "
            "other programs may tokenize some texts differently. Elysia uses the tokenizer in the file.",
            vocabulary.pre,
        )


def _check_support(config: Any, model: Path, context: int | None) -> None:
    if config.model_type not in GGUF_ARCHITECTURES:
        raise ExportError(
            "export.unsupported_model_type", folder=model, model_type=config.model_type,
            target="GGUF", supported=list(GGUF_ARCHITECTURES),
        )  # fmt: skip
    if getattr(config, "use_sliding_window", False):
        raise ExportError("export.sliding_window", folder=model)
    trained = config.max_position_embeddings
    if context and context > trained and config.rope_parameters.get("rope_type") != "dynamic":
        raise ExportError("export.context_too_long", context=context, trained=trained, folder=model)


def _build_card(model: Path, file_type: str) -> RunCard:
    from elysia import __version__

    card = RunCard.read(model)
    if card is None:
        card = RunCard(stage="quantized", base_model=str(model), method="full")
    import xllamacpp

    versions = card.versions | {"elysia": __version__, "xllamacpp": xllamacpp.__version__}
    return card.updated(
        stage="quantized",
        versions=versions,
        extra=card.extra | {"quantization": {"format": "gguf", "type": file_type}},
    )


def _write_file(
    path: Path, model: Path, config: Any, tokenizer: Any, vocabulary: GgufVocabulary, card: RunCard,
    file_type: str, context: int | None,
) -> None:  # fmt: skip
    architecture = GGUF_ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    try:
        _write_hyperparameters(writer, model, config, file_type, context)
        vocabulary.write(writer, tokenizer)
        _write_chat_metadata(writer, model, tokenizer, card)
        shards, layers = ShardReader(model), config.num_hidden_layers
        tied = bool(config.tie_word_embeddings)
        kinds = {}
        base, factors = weights.get_rope_factors(config, context or config.max_position_embeddings)
        writer.add_rope_freq_base(base)
        extra = [("rope_freqs.weight", factors)] if factors is not None else []
        # Once for the table of contents, which comes first, and once for the bytes.
        for name, tensor in (*extra, *weights.iter_gguf_tensors(shards, config, architecture)):
            kind = kinds[name] = weights.choose_type(name, tensor.shape, file_type, layers, tied)
            size = weights.count_bytes(tensor.shape, kind)
            writer.add_tensor_info(name, tuple(tensor.shape), np.dtype(np.float32), size, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in (*extra, *weights.iter_gguf_tensors(shards, config, architecture)):
            writer.write_tensor_data(weights.encode_tensor(tensor, kinds[name]))
    finally:
        writer.close()


def _write_hyperparameters(
    writer: gguf.GGUFWriter, model: Path, config: Any, file_type: str, context: int | None
) -> None:
    writer.add_name(model.resolve().name)
    writer.add_file_type(FILE_TYPES[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(context or config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    head = loading.get_head_dim(config)
    writer.add_rope_dimension_count(head)
    writer.add_key_length(head)
    writer.add_value_length(head)


def _write_chat_metadata(
    writer: gguf.GGUFWriter, model: Path, tokenizer: Any, card: RunCard
) -> None:
    """The chat template and the token that ends a turn, for other programs; the run card, for ours."""
    chat_format = ChatFormat.from_run_card(card)
    if card.template and chat_format:
        writer.add_chat_template(render_chat_template(card.template))
        for word in chat_format.stop:
            token = tokenizer.convert_tokens_to_ids(word)
            if token is not None and tokenizer.convert_ids_to_tokens(token) == word:
                writer.add_eot_token_id(token)
                break
    elif isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)
    else:
        log.warning("%s has no run card and no chat template: the file will have none.", model)
    writer.add_string(CARD_KEY, json.dumps(card.to_dict(), ensure_ascii=False))
