"""Loading and saving: a folder to a tokenizer, a config, a model in a dtype, on a device, in bits.

Knows nothing of adapters, templates or training.
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
    "compute_fingerprint",
    "load_causal_lm",
    "load_config",
    "load_reward_model",
    "load_tokenizer",
    "parse_dtype",
    "pick_device",
    "pick_dtype",
    "resolve_model",
    "save_model",
    "save_tokenizer",
    "set_eos_token",
]

log = logging.getLogger(__name__)
internlm2.register()

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as it stands; ModelError when it is missing, damaged or names no model_type."""
    path = folder / "config.json"
    if not path.is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"{folder} is an adapter, not a model. Give the base model, with this as --adapter."
            )
        what = "has no config.json" if folder.is_dir() else "does not exist"
        raise ModelError(f"{folder} {what}: it is no model folder. Check the path.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error}). Fetch the model anew.") from error
    if not isinstance(found, dict) or not isinstance(found.get("model_type"), str):
        raise ModelError(f"{path} has no model_type, so the architecture is unknown.")
    return found


def load_config(folder: str | Path) -> Any:
    """The transformers config of a model folder. InternLM2's is ours, whatever `auto_map` says."""
    folder = Path(folder)
    raw = read_config(folder)
    ours = raw["model_type"] == internlm2.MODEL_TYPE
    if ours and "auto_map" in raw:
        log.info("%s names remote code for InternLM2; the built-in model is used instead.", folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        if "auto_map" in raw:
            raise ModelError(
                f"{folder} (model_type '{raw['model_type']}') would run code of its own, which is "
                "not done here, and transformers has no model of that type. Choose another one."
            ) from error
        raise ModelError(
            f"{folder / 'config.json'} cannot be used: {_get_reason(error)}"
        ) from error
    if ours and hasattr(config, "auto_map"):
        del config.auto_map
    return config


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a folder; InternLM2's `tokenizer.model` becomes a fast one (see there).

    ModelError when there is none or it cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(f"There is no folder {folder} to read a tokenizer from. Check the path.")
    present = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not present:
        raise ModelError(
            f"{folder} holds no tokenizer (none of {', '.join(TOKENIZER_FILES)}). Copy the files "
            "of the model that it was made from."
        )
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
        raise ModelError(
            f"The tokenizer in {folder} cannot be read: {_get_reason(error)}"
        ) from error


def _has_own_class(folder: Path) -> bool:
    """Whether tokenizer.json alone says how text is cut. The Auto class would put the ways of the
    model's family in its place: Qwen2's adds a token that has no embedding.
    """
    path = folder / "tokenizer_config.json"
    if not path.is_file() or not (folder / "tokenizer.json").is_file():
        return False
    said = json.loads(path.read_text(encoding="utf-8")).get("tokenizer_class")
    return said in ("PreTrainedTokenizerFast", "TokenizersBackend")


def set_eos_token(tokenizer: Any, token: str) -> None:
    """Make `token` the tokenizer's end of sequence ("" leaves it); ModelError when it has none."""
    if not token:
        return
    if token not in tokenizer.get_vocab():
        raise ModelError(
            f"eos_token = '{token}', and the tokenizer has no such token. Name one that it has, or "
            "leave eos_token out."
        )
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
    """A causal language model in eval mode, loaded shard by shard straight onto its device.

    Args:
        dtype: of weights and arithmetic; "auto" is the device's best (`pick_dtype`).
        device: "auto", "cpu", "cuda", "cuda:1" …
        bits: None for all of `dtype`, 4 for NF4 (QLoRA, https://arxiv.org/abs/2305.14314), 8 for
            LLM.int8 (https://arxiv.org/abs/2208.07339). AWQ's four bits are spread out into `dtype`.
        double_quant: whether NF4's scales are quantized too.
        attention: one of transformers' attention implementations.
        scores: see `load_reward_model`.

    Raises ModelError for a folder that holds no such model, DeviceError for a missing device.
    """
    folder = Path(folder)
    place = pick_device(device)
    chosen = pick_dtype(place) if dtype == "auto" else parse_dtype(dtype)
    config = load_config(folder)
    if not _has_weights(folder):
        raise ModelError(
            f"{folder} has a config.json but no weights (*.safetensors). Fetch the model anew."
        )
    options: dict[str, Any] = {"attn_implementation": attention} if attention else {}
    if bits is not None:
        options["quantization_config"] = _build_quantization_config(
            bits, chosen, double_quant, scores
        )
    kind = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    if scores:
        configure_reward_head(config, folder)
    model, notes = _from_pretrained(kind, folder, config, chosen, place, options)
    _check_keys(folder, notes, HEAD_WEIGHTS if scores else ())
    quantization.keep_odd_shapes_unpacked(model)
    return model.eval()


def load_reward_model(folder: str | Path, **options: Any) -> Any:
    """The network under a head of one number, `score`, fresh where the folder has none; `options` as
    of `load_causal_lm`. The architecture's own class for sequence classification.
    """
    return load_causal_lm(folder, scores=True, **options)


HEAD_WEIGHTS = ("score.weight", "lm_head.weight", "output.weight")


def configure_reward_head(config: Any, folder: Path) -> Any:
    """`config` for one number a text, taken at the last token that is not padding."""
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
    """transformers' model and its notes on the keys, or a sentence."""
    spread = quantization.is_awq(config)
    try:
        with quiet_transformers():
            if spread:
                options = options | {"state_dict": _dequantize_awq(folder, config, dtype)}
                with torch.device("meta"):  # the Auto classes take no weights without a folder
                    kind = type(kind.from_config(config))
            model, notes = kind.from_pretrained(
                None if spread else folder,
                config=config,
                dtype=dtype,
                device_map={"": place},
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they are named below, not in a table
                **options,
            )
            if spread and (folder / "generation_config.json").is_file():
                model.generation_config = GenerationConfig.from_pretrained(folder)
            return model, notes
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"{folder} does not fit into the memory of {place}. Use bits 4, a smaller model or "
            "another device."
        ) from error
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{folder} cannot be loaded: {_get_reason(error)}") from error


def _dequantize_awq(folder: Path, config: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """An AWQ folder's weights as plain ones, and `config` without the word of it."""
    quantization.check_awq_layout(config, folder)
    del config.quantization_config
    return dict(quantization.iter_awq_tensors(folder, dtype))


def _check_keys(folder: Path, notes: dict[str, Any], free: tuple[str, ...] = ()) -> None:
    """ModelError when weights are missing or of another shape; a warning when some are unused. Those
    in `free` may be either.
    """
    for name, stored, wanted in sorted(notes["mismatched_keys"]):
        raise ModelError(
            f"{folder}: {name} has shape {list(stored)} and config.json asks for {list(wanted)}. "
            "The config.json is another model's."
        )
    lacking = sorted(set(notes["missing_keys"]) - set(free))
    if lacking:
        raise ModelError(
            f"{folder} lacks {len(lacking)} of the model's weights, the first being {lacking[0]}. "
            "The folder is incomplete, or its config.json is another model's."
        )
    unused = sorted(set(notes["unexpected_keys"]) - set(free))
    if unused:
        log.warning(
            "%s holds %d weights not used here, such as %s.", folder, len(unused), unused[0]
        )


def _build_quantization_config(
    bits: int, dtype: torch.dtype, double_quant: bool, scores: bool
) -> BitsAndBytesConfig:
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    if bits != 4:
        raise ModelError(f"Weights of {bits} bits are not offered: choose 4, 8 or none.")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        llm_int8_skip_modules=["score"] if scores else None,  # a head that trains is not packed
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double_quant,
        bnb_4bit_compute_dtype=dtype,
    )


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def _get_reason(error: BaseException) -> str:
    """What a library's exception says, in one line without its advice on itself."""
    text = " ".join(str(error).split())
    if "Unrecognized configuration class" in text:
        return "it is no causal language model."
    if "automatic conversion" in text:
        return "its tensors do not have the sizes that config.json gives."
    text = text.split(" This could be because")[0]
    return f"{text[:300] or 'no reason given'} ({type(error).__name__})"
