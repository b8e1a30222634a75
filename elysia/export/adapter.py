"""From a training checkpoint to a Hugging Face folder: an adapter, or a fully tuned model.

An adapter is written from the checkpoint alone: the base is neither loaded nor needed. A fully tuned
model takes the checkpoint's tensors as its own, so that memory holds them once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from elysia.core.errors import CheckpointError, ModelError
from elysia.core.files import staged_folder
from elysia.core.run_card import RunCard
from elysia.export.adapter_targets import AdapterTargets, read_targets
from elysia.export.full_model import write_full_model
from elysia.export.lora_deltas import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    DORA_MAGNITUDE,
    PEFT_PREFIX,
)
from elysia.export.model_card import render_adapter_readme
from elysia.export.shards import parse_size
from elysia.models import loading
from elysia.train import checkpoint
from elysia.train.config.settings import Settings

log = logging.getLogger(__name__)


def pth_to_hf(
    settings: Settings,
    pth: str | Path,
    out: str | Path,
    *,
    fp32: bool = False,
    max_shard_size: str = "2GB",
    safe: bool = True,
) -> Path:
    """Write a checkpoint as a PEFT adapter folder (LoRA, QLoRA) or as a model folder (full).

    Args:
        pth: a checkpoint file, a DeepSpeed folder, or a work dir (its last checkpoint is used).
        out: a folder that is absent, empty, or the result of an earlier conversion.
        fp32: weights in float32. Otherwise in the settings' dtype; with "auto", an adapter keeps
            the checkpoint's (float32) and a full model the base's.
        safe: accepted for compatibility with XTuner; weights are always safetensors.

    Raises CheckpointError for a checkpoint that is damaged or of another config. Nothing half-written
    is left behind. Returns `out`.
    """
    if not safe:
        log.warning("Weights are written as safetensors; pickles are not supported.")
    pth, out = find_checkpoint(Path(pth), settings.accumulative_counts), Path(out)
    weights = checkpoint.load_weights(pth)
    has_lora = is_lora(weights)
    _check_method(settings, has_lora, pth)
    card = _load_card(settings, pth)
    stage = "adapter" if has_lora else "merged"
    with staged_folder(out, replaces=lambda folder: _is_conversion(folder, stage)) as staging:
        if has_lora:
            _write_adapter(settings, weights, card, pth, staging, fp32)
        else:
            parse_size(max_shard_size)
            write_full_model(settings, weights, card, pth, staging, fp32, max_shard_size)
        (staging / "xtuner_config.py").write_text(render_config(settings), encoding="utf-8")
    return out


def find_checkpoint(pth: Path, accumulation: int = 1) -> Path:
    """`pth`, or the checkpoint in it when it is a work dir: the best that early stopping kept, else
    the last.

    accumulation: micro-batches a step. XTuner counts those, so that its `iter_768.pth` is `iter_48.pth`
    here with 16 of them; that one is taken, with a warning, where the other is missing.
    Raises CheckpointError, with the checkpoints that are there, when neither is.
    """
    if pth.is_dir() and (best := checkpoint.best_checkpoint(pth)):
        log.info("Using %s, the best checkpoint of its run.", best)
        return best
    if pth.is_dir() and (last := checkpoint.last_checkpoint(pth)):
        return last
    if pth.exists():
        return pth
    steps, rest = divmod(checkpoint.parse_step(pth), accumulation)
    same = pth.with_name(f"iter_{steps}.pth")
    if steps > 0 and not rest and same.exists():
        log.warning(
            "%s is not there; taking %s, which is the same in steps of %d of XTuner's iterations.",
            pth, same, accumulation,
        )  # fmt: skip
        return same
    names = [path.name for path in checkpoint.list_checkpoints(pth.parent)]
    if not names:
        raise CheckpointError("export.no_checkpoint", path=pth)
    raise CheckpointError("export.no_such_checkpoint", path=pth, names=names)


def is_lora(weights: Mapping[str, Tensor]) -> bool:
    """Whether the weights are an adapter's.

    >>> is_lora({"base_model.model.h.lora_A.default.weight": torch.zeros(1)})
    True
    """
    return any(".lora_" in name for name in weights)


def render_config(settings: Settings) -> str:
    """A config file that sets every name to what this run used."""
    from elysia.train.config.settings import load_settings

    lines = [f"# Every setting of a run, for {load_settings.__module__}.load_settings.", ""]
    lines += [f"{name} = {value!r}" for name, value in settings.to_dict().items()]
    return "\n".join(lines) + "\n"


def _check_method(settings: Settings, has_lora: bool, pth: Path) -> None:
    if has_lora == (settings.method == "full"):
        code = "export.adapter_for_full" if has_lora else "export.full_for_adapter"
        raise CheckpointError(code, path=pth, method=settings.method)


def _is_conversion(folder: Path, stage: str) -> bool:
    """Whether an earlier conversion wrote `folder`, so that it may be replaced."""
    card = RunCard.read(folder)
    return card is not None and card.stage == stage and (folder / "xtuner_config.py").exists()


def _load_card(settings: Settings, pth: Path) -> RunCard:
    """The checkpoint's card, or for a checkpoint that XTuner wrote one from the settings."""
    try:
        card = checkpoint.load_run_card(pth)
    except CheckpointError:
        log.warning("%s carries no run card; one is built from the config.", pth)
        from elysia.train.config.provenance import build_run_card

        try:
            base = loading.resolve_model(settings.pretrained_model_name_or_path, settings.hub)
            card = build_run_card(settings, str(base))
        except (ModelError, OSError) as error:
            reason = error if isinstance(error, ModelError) else str(error)
            raise CheckpointError("export.no_run_card", path=pth, reason=reason) from error
    if card.config_sha256 and card.config_sha256 != settings.sha256():
        log.debug("%s was trained with settings that differ from the config's in some value.", pth)
    training = {
        "dtype": settings.dtype if settings.dtype != "auto" else _get_default_dtype(),
        "double_quant": settings.double_quant,
        "lora_alpha": settings.lora_alpha,
        "use_rslora": settings.use_rslora,
        "hub": settings.hub,
    }
    training |= card.extra.get("training", {})
    return card.updated(
        base_model=_get_base_name(settings, card, pth),
        method=settings.method,
        extra=card.extra | {"training": training},
    )


def _get_default_dtype() -> str:
    return str(loading.pick_dtype(loading.pick_device())).removeprefix("torch.")


def _get_base_name(settings: Settings, card: RunCard, pth: Path) -> str:
    """The base's name or folder: the config's if that is the one the checkpoint was trained on.

    When the base was replaced on the command line, the config names another one, and the card is
    right. Raises CheckpointError when the config names a folder of other weights.
    """
    named = settings.pretrained_model_name_or_path
    expected = card.base_weights.get("sha256")
    if expected and Path(named).is_dir():
        if loading.compute_fingerprint(named).get("sha256") == expected:
            return named
        raise CheckpointError(
            "export.other_base_weights", path=pth, trained_on=card.base_model, named=named
        )
    if card.base_model != named:
        log.warning("The config names the base %s, but %s was trained on %s, which is used.",
                    named, pth, card.base_model)  # fmt: skip
    return card.base_model


def _write_adapter(
    settings: Settings,
    weights: dict[str, Tensor],
    card: RunCard,
    pth: Path,
    staging: Path,
    fp32: bool,
) -> None:
    dtype = torch.float32 if fp32 else None
    if dtype is None and settings.dtype != "auto":
        dtype = getattr(torch, settings.dtype)
    named = {_get_peft_name(name): tensor for name, tensor in weights.items()}
    targets = read_targets(settings, named, pth, card.extra["training"].get("model_type", ""))
    scaling = {}
    # No shape would reveal another alpha, only the replies: what was trained counts.
    for name in ("lora_alpha", "use_rslora"):
        scaling[name] = trained = card.extra["training"][name]
        if trained != getattr(settings, name):
            log.warning("%s was trained with %s = %s, which is used; the config says %s.",
                        pth, name, trained, getattr(settings, name))  # fmt: skip
    config = build_adapter_config(settings, card.base_model, scaling, targets)
    # DoRA's magnitudes are as large as the weights: rounding would change them more than training did.
    tensors = {
        n: t.to((not n.endswith(DORA_MAGNITUDE) and dtype) or t.dtype).contiguous().clone()
        for n, t in named.items()
    }
    save_file(tensors, str(staging / ADAPTER_WEIGHTS), metadata={"format": "pt"})
    (staging / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    card = card.updated(stage="adapter")
    card.write(staging)
    (staging / "README.md").write_text(render_adapter_readme(card, config), encoding="utf-8")


def _get_peft_name(name: str) -> str:
    """The name inside an adapter file: without the adapter's own name, under PEFT's prefix."""
    name = name.replace(".modules_to_save.", ".").replace(".default.", ".").removesuffix(".default")
    if name.endswith(f".{DORA_MAGNITUDE}.weight"):
        name = name.removesuffix(".weight")
    return name if name.startswith(PEFT_PREFIX) else PEFT_PREFIX + name


def build_adapter_config(
    settings: Settings, base: str, scaling: dict[str, Any], targets: AdapterTargets
) -> dict[str, Any]:
    """adapter_config.json as PEFT reads it; `scaling` holds `lora_alpha` and `use_rslora`."""
    from peft import LoraConfig

    is_reward = settings.objective == "reward"

    config = LoraConfig(
        base_model_name_or_path=base,
        task_type="SEQ_CLS" if is_reward else "CAUSAL_LM",
        modules_to_save=["score"] if is_reward else None,
        inference_mode=True,
        r=settings.lora_r,
        # PEFT accepts no dropout beside parameters; it is of no use after training.
        lora_dropout=0.0 if targets.parameters else settings.lora_dropout,
        target_modules=sorted(targets.modules),
        target_parameters=sorted(targets.parameters) or None,
        use_dora=settings.use_dora,
        **scaling,
    ).to_dict()
    plain = {k: getattr(v, "value", v) for k, v in config.items()}
    return {k: sorted(v) if isinstance(v, set) else v for k, v in plain.items()}
