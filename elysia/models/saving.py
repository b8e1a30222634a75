"""Writing a model folder that today's and yesterday's readers understand.

Knows nothing of adapters: what is to be saved is merged already.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from elysia.core.errors import ModelError


def save_model(
    model: Any, tokenizer: Any | None, folder: str | Path, *, max_shard_size: str = "2GB"
) -> None:
    """Write weights (safetensors, under the architecture's own keys), configs and tokenizer.

    config.json says things twice where transformers 5 renamed them (see `add_legacy_fields`).
    Raises ModelError for quantized weights, which have no such keys, and when the disk is full.
    """
    folder = Path(folder)
    if getattr(model, "is_quantized", False):
        raise ModelError(
            "Quantized weights are not saved as a model: save the adapter, and merge it onto the "
            "base in its own dtype."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with quiet_transformers():
            model.save_pretrained(folder, max_shard_size=max_shard_size)
        rewrite_json(folder / "config.json", add_legacy_fields)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder} cannot be written: {_get_os_reason(error)}") from error
    if tokenizer is not None:
        save_tokenizer(tokenizer, folder)


def save_tokenizer(tokenizer: Any, folder: str | Path) -> None:
    """Write a tokenizer's files, with the class name that transformers 4 and 5 both know."""
    folder = Path(folder)
    try:
        tokenizer.save_pretrained(folder)
        source = getattr(tokenizer, "sentencepiece_file", None)
        if source and Path(source).is_file() and not (folder / "tokenizer.model").exists():
            shutil.copyfile(source, folder / "tokenizer.model")
        rewrite_json(folder / "tokenizer_config.json", _use_known_class)
    except OSError as error:
        raise ModelError(f"{folder} cannot be written: {_get_os_reason(error)}") from error


def add_legacy_fields(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json dict with `rope_theta`, `rope_scaling` and `torch_dtype` beside transformers
    5's `rope_parameters` and `dtype`, and no `auto_map` to code that is not shipped.

    LMDeploy, llama.cpp's converter and transformers 4 read the older names.
    """
    found = {key: value for key, value in config.items() if key != "auto_map"}
    rope = found.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        found["rope_theta"] = rope["rope_theta"]
        kind = rope.get("rope_type", "default")
        rest = {k: v for k, v in rope.items() if k not in ("rope_theta", "rope_type")}
        found["rope_scaling"] = (
            None if kind == "default" else {"type": kind, "rope_type": kind, **rest}
        )
    if "dtype" in found:
        found["torch_dtype"] = found["dtype"]
    return found


def _get_os_reason(error: Exception) -> str:
    return f"{getattr(error, 'strerror', None) or error}. Is the disk full, or the place read-only?"


def _use_known_class(config: dict[str, Any]) -> dict[str, Any]:
    config.pop("auto_map", None)
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    return config


def rewrite_json(path: Path, change: Any) -> None:
    """Replace a JSON object by `change` of it, whole or not at all."""
    found = change(json.loads(path.read_text(encoding="utf-8")))
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(new, path)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No tables of keys and no bars from transformers inside: our sentences say what matters."""
    level = transformers_logging.get_verbosity()
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()
