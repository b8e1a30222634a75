"""Writing the folder of a fully tuned model, from a checkpoint that holds all of its weights.

The model is built without memory and adopts the checkpoint's tensors, so they are held only once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elysia.core.errors import CheckpointError
from elysia.core.run_card import RunCard
from elysia.export.chat_template import write_chat_template
from elysia.export.shards import ShardReader
from elysia.export.stored_names import StoredNames
from elysia.models import loading
from elysia.train.config.settings import Settings


def write_full_model(
    settings: Settings,
    weights: dict[str, Tensor],
    card: RunCard,
    pth: Path,
    staging: Path,
    fp32: bool,
    max_shard_size: str,
) -> None:
    """Write weights, config, tokenizer and run card into `staging`.

    The dtype is float32 when `fp32`, else the settings', and for "auto" the base's. Raises
    CheckpointError when the weights are not those of the base's architecture.
    """
    base = loading.resolve_model(card.base_model, settings.hub)
    config = loading.load_config(base)
    stored = getattr(config, "dtype", None) or torch.float32
    dtype = torch.float32 if fp32 else stored
    if not fp32 and settings.dtype != "auto":
        dtype = getattr(torch, settings.dtype)
    if settings.objective == "reward":
        loading.configure_reward_head(config, base)
    model = _build_filled_model(config, weights, dtype, pth, base, settings.objective == "reward")
    loading.save_model(model, loading.load_tokenizer(base), staging, max_shard_size=max_shard_size)
    card.updated(stage="merged").write(staging)
    write_chat_template(card.template, staging)


def _build_filled_model(
    config: Any,
    weights: dict[str, Tensor],
    dtype: torch.dtype,
    pth: Path,
    base: Path,
    scores: bool = False,
) -> Any:
    """A model without memory of its own that adopts the checkpoint's tensors."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(config, dtype=dtype)
    for name in list(weights):  # one by one, so that each float32 tensor is freed at once
        weights[name] = weights[name].to(dtype)
    try:
        _, unknown = model.load_state_dict(weights, strict=False, assign=True)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError("export.checkpoint_unfit", path=pth, reason=reason) from error
    if any(tensor.is_meta for tensor in model.parameters()):
        model.tie_weights()  # a head tied to the embeddings is not in the checkpoint
    fill_buffers(model, base)
    empty = [name for name, tensor in model.named_parameters() if tensor.is_meta]
    if empty or unknown:
        code = "export.checkpoint_lacks" if empty else "export.checkpoint_unknown"
        count = len(empty) + len(unknown)
        raise CheckpointError(code, path=pth, name=(empty or unknown)[0], count=count)
    return model


def fill_buffers(model: Any, base: Path) -> None:
    """Give the buffers that belong to a model's files their values from the base: they do not train, so that
    no checkpoint holds them (DeepSeek's corrections of the router's scores, `e_score_correction_bias`)."""
    state = model.state_dict()
    empty = {name: b for name, b in model.named_buffers() if b.is_meta and name in state}
    if not empty:
        return
    shards, names = ShardReader(base), StoredNames(model.config)
    for stored in shards:
        name = names.get_loaded_name(stored)
        if name in empty:
            layer, _, leaf = name.rpartition(".")
            model.get_submodule(layer)._buffers[leaf] = shards.tensor(stored).to(empty[name].dtype)
