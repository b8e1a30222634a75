"""Writing a model folder that current and older programs can read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
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

    config.json says twice what transformers 5 renamed (see `add_legacy_fields`). Raises ModelError
    for quantized weights, which have no such keys, and when the disk is full.
    """
    folder = Path(folder)
    if getattr(model, "is_quantized", False):
        raise ModelError("models.quantized_not_saved")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with quiet_transformers():
            model.save_pretrained(folder, max_shard_size=max_shard_size)
        rewrite_json(folder / "config.json", add_legacy_fields)
    except (OSError, SafetensorError) as error:
        raise _not_written(folder, error) from error
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
        raise _not_written(folder, error) from error


def add_legacy_fields(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json dict with `rope_theta`, `rope_scaling` and `torch_dtype` beside transformers 5's
    `rope_parameters` and `dtype`, and without an `auto_map` to code that is not in the folder.

    LMDeploy, llama.cpp's converter and transformers 4 read the older names.
    """
    config = {key: value for key, value in config.items() if key != "auto_map"}
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        config["rope_theta"] = rope["rope_theta"]
        kind = rope.get("rope_type", "default")
        rest = {k: v for k, v in rope.items() if k not in ("rope_theta", "rope_type")}
        config["rope_scaling"] = (
            None if kind == "default" else {"type": kind, "rope_type": kind, **rest}
        )
    if "dtype" in config:
        config["torch_dtype"] = config["dtype"]
    return config


def rewrite_json(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace the JSON object in a file by `change` of it, completely or not at all."""
    changed = change(json.loads(path.read_text(encoding="utf-8")))
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(changed, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(new, path)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' tables of keys, warnings and progress bars from the terminal inside."""
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


def _not_written(folder: Path, error: Exception) -> ModelError:
    reason = getattr(error, "strerror", None) or str(error)
    return ModelError("models.not_written", folder=folder, reason=reason)


def _use_known_class(config: dict[str, Any]) -> dict[str, Any]:
    config.pop("auto_map", None)
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    return config
