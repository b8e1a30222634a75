"""Loading models: from a folder to a config, a tokenizer or a model in some dtype, on some device.

Saving, hubs, devices and fingerprints are offered here too, so that callers need one import.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from elysia.core.errors import DeviceError, ModelError
from elysia.models import quantization
from elysia.models.architectures import internlm2, internlm2_tokenizer
from elysia.models.device import parse_dtype, pick_device, pick_dtype
from elysia.models.fingerprint import compute_fingerprint
from elysia.models.hub import resolve_model
from elysia.models.saving import quiet_transformers, save_model, save_tokenizer

__all__ = [
    "HEAD_WEIGHTS",
    "compute_fingerprint",
    "configure_reward_head",
    "get_head_dim",
    "load_causal_lm",
    "load_config",
    "load_reward_model",
    "load_tokenizer",
    "parse_dtype",
    "pick_device",
    "pick_dtype",
    "read_config",
    "resolve_model",
    "save_model",
    "save_tokenizer",
    "set_eos_token",
]

log = logging.getLogger(__name__)
internlm2.register()

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
HEAD_WEIGHTS = ("score.weight", "lm_head.weight", "output.weight")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as it is; ModelError when it is missing, damaged or has no model_type."""
    path = folder / "config.json"
    if not path.is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError("models.adapter_not_model", folder=folder)
        if folder.is_dir():
            raise ModelError("models.no_config", folder=folder)
        raise ModelError("models.folder_missing", folder=folder)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError("models.config_damaged", path=path, reason=str(error)) from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError("models.no_model_type", path=path)
    return config


def load_config(folder: str | Path) -> Any:
    """The transformers config of a model folder. InternLM2's is built in, whatever `auto_map` says."""
    folder = Path(folder)
    raw = read_config(folder)
    is_internlm2 = raw["model_type"] == internlm2.MODEL_TYPE
    if is_internlm2 and "auto_map" in raw:
        log.info("%s names remote code for InternLM2; the built-in model is used instead.", folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds
        if "auto_map" in raw:
            raise ModelError(
                "models.remote_code", folder=folder, model_type=raw["model_type"]
            ) from error
        path, reason = folder / "config.json", _get_reason(error)
        raise ModelError("models.config_unusable", path=path, reason=reason) from error
    if is_internlm2 and hasattr(config, "auto_map"):
        del config.auto_map
    return config


def get_head_dim(config: Any) -> int:
    """The width of one attention head; of the widest, where layers differ (Gemma 4)."""
    layers = getattr(config, "per_layer_config", None) or [config]
    return max(
        int(getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads)
        for layer in (layers.values() if isinstance(layers, dict) else layers)
    )


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a folder; InternLM2's `tokenizer.model` becomes a fast one (see there).

    Raises ModelError when there is none or it cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError("models.tokenizer_folder_missing", folder=folder)
    present = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not present:
        raise ModelError("models.no_tokenizer", folder=folder, files=TOKENIZER_FILES)
    try:
        if present == ["tokenizer.model"] and internlm2_tokenizer.is_internlm2(folder):
            return internlm2_tokenizer.load_internlm2_tokenizer(folder)
        kind = PreTrainedTokenizerFast if _has_own_class(folder) else AutoTokenizer
        tokenizer = kind.from_pretrained(folder, trust_remote_code=False)
        if internlm2_tokenizer.SENTENCEPIECE_FILE in present:
            tokenizer.sentencepiece_file = str(folder / internlm2_tokenizer.SENTENCEPIECE_FILE)
        return tokenizer
    except ModelError:
        raise
    except Exception as error:
        reason = _get_reason(error)
        raise ModelError("models.tokenizer_unreadable", folder=folder, reason=reason) from error


def _has_own_class(folder: Path) -> bool:
    """Whether tokenizer.json alone decides how text is split.

    The Auto class would replace it by the rules of the model's family: Qwen2's adds a token that has
    no embedding.
    """
    path = folder / "tokenizer_config.json"
    if not path.is_file() or not (folder / "tokenizer.json").is_file():
        return False
    name = json.loads(path.read_text(encoding="utf-8")).get("tokenizer_class")
    return name in ("PreTrainedTokenizerFast", "TokenizersBackend")


def set_eos_token(tokenizer: Any, token: str) -> None:
    """Make `token` the tokenizer's end of sequence; "" changes nothing. ModelError for an unknown token."""
    if not token:
        return
    if token not in tokenizer.get_vocab():
        raise ModelError("models.unknown_eos_token", token=token)
    tokenizer.eos_token = token


def load_causal_lm(
    folder: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    bits: int | None = None,
    double_quant: bool = True,
    attention: str | None = None,
    scores: bool = False,
) -> Any:
    """A causal language model in eval mode, loaded shard by shard directly onto its device.

    Args:
        dtype: of weights and arithmetic; "auto" is the device's best (`pick_dtype`).
        device: "auto", "cpu", "cuda", "cuda:1" …
        bits: None to keep `dtype`, 4 for NF4 (QLoRA, https://arxiv.org/abs/2305.14314), 8 for
            LLM.int8 (https://arxiv.org/abs/2208.07339). AWQ's four bits are expanded into `dtype`.
        double_quant: whether NF4's scales are quantized too.
        attention: one of transformers' attention implementations.
        scores: a reward model instead (see `load_reward_model`).

    Raises ModelError for a folder without such a model, DeviceError for a device that is missing or
    too small.
    """
    folder = Path(folder)
    place = pick_device(device)
    compute_dtype = pick_dtype(place) if dtype == "auto" else parse_dtype(dtype)
    config = load_config(folder)
    if not has_weights(folder):
        raise ModelError("models.no_weights", folder=folder)
    options: dict[str, Any] = {"attn_implementation": attention} if attention else {}
    if bits is not None:
        options["quantization_config"] = _build_quantization_config(
            bits, compute_dtype, double_quant, scores
        )
    kind = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    if scores:
        configure_reward_head(config, folder)
    model, loading_info = _from_pretrained(kind, folder, config, compute_dtype, place, options)
    _check_keys(folder, loading_info, HEAD_WEIGHTS if scores else ())
    quantization.keep_odd_shapes_unpacked(model)
    return model.eval()


def load_reward_model(folder: str | Path, **options: Any) -> Any:
    """The network with a head of one number, `score`, which is fresh where the folder has none.

    The class is the architecture's own for sequence classification; `options` are those of
    `load_causal_lm`.
    """
    return load_causal_lm(folder, scores=True, **options)


def configure_reward_head(config: Any, folder: Path) -> Any:
    """Set `config` to one number per text, read at the last token that is not padding."""
    config.num_labels = 1
    if config.pad_token_id is None:
        tokenizer = load_tokenizer(folder)
        config.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id
    return config


def _from_pretrained(
    kind: Any,
    folder: Path,
    config: Any,
    dtype: torch.dtype,
    place: torch.device,
    options: dict[str, Any],
) -> Any:
    """(model, transformers' information about its keys); every fault becomes an error of ours."""
    is_awq = quantization.is_awq(config)
    try:
        with quiet_transformers():
            if is_awq:
                options = options | {"state_dict": _dequantize_awq(folder, config, dtype)}
                with torch.device("meta"):  # the Auto classes take no weights without a folder
                    kind = type(kind.from_config(config))
            model, loading_info = kind.from_pretrained(
                None if is_awq else folder,
                config=config,
                dtype=dtype,
                device_map={"": place},
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # `_check_keys` names them; transformers prints a table
                **options,
            )
            if is_awq and (folder / "generation_config.json").is_file():
                model.generation_config = GenerationConfig.from_pretrained(folder)
            return model, loading_info
    except torch.OutOfMemoryError as error:
        raise DeviceError("models.out_of_memory", folder=folder, device=str(place)) from error
    except ModelError:
        raise
    except Exception as error:
        reason = _get_reason(error)
        raise ModelError("models.not_loaded", folder=folder, reason=reason) from error


def _dequantize_awq(folder: Path, config: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The weights of an AWQ folder as plain ones; `config` no longer says that they are quantized."""
    quantization.check_awq_layout(config, folder)
    del config.quantization_config
    return dict(quantization.iter_awq_tensors(folder, dtype))


def _check_keys(folder: Path, loading_info: dict[str, Any], optional: tuple[str, ...] = ()) -> None:
    """ModelError when weights are missing or of another shape; a warning when some are unused.

    Those in `optional` may be missing or unused.
    """
    for name, stored, expected in sorted(loading_info["mismatched_keys"]):
        raise ModelError(
            "models.other_shape", folder=folder, name=name,
            stored=str(list(stored)), expected=str(list(expected)),
        )  # fmt: skip
    missing = sorted(set(loading_info["missing_keys"]) - set(optional))
    if missing:
        raise ModelError(
            "models.weights_missing", folder=folder, count=len(missing), name=missing[0]
        )
    unused = sorted(set(loading_info["unexpected_keys"]) - set(optional))
    if unused:
        log.warning(
            "%s holds %d weights that are not used here, such as %s.",
            folder,
            len(unused),
            unused[0],
        )


def _build_quantization_config(
    bits: int, dtype: torch.dtype, double_quant: bool, scores: bool
) -> BitsAndBytesConfig:
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    if bits != 4:
        raise ModelError("models.unsupported_bits", bits=bits)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        llm_int8_skip_modules=["score"] if scores else None,  # a head that trains is not packed
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double_quant,
        bnb_4bit_compute_dtype=dtype,
    )


def has_weights(folder: Path) -> bool:
    """Whether a model's folder holds weights, and not its configuration alone."""
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def _get_reason(error: BaseException) -> str:
    """What a library's exception says, on one line and without its advice about itself."""
    text = " ".join(str(error).split())
    if "Unrecognized configuration class" in text:
        return "it is no causal language model."
    if "automatic conversion" in text:
        return "its tensors do not have the sizes that config.json gives."
    text = text.split(" This could be because")[0]
    return f"{text[:300] or 'no reason given'} ({type(error).__name__})"
