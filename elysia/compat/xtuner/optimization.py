"""Optimizer, length of the run and learning rate of a config of XTuner's, read into settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from elysia.compat.xtuner.loader import ConfigSymbol
from elysia.compat.xtuner.map_functions import is_importable
from elysia.compat.xtuner.report import ConfigNode, ConversionReport, shorten_repr
from elysia.compat.xtuner.symbols import short_name

# Optimizers by the short names of HF's training arguments, and of MMEngine's registry.
_REGISTRY_NAMES = {
    "AdamW": "torch.optim.AdamW",
    "SGD": "torch.optim.SGD",
    "Adam": "torch.optim.Adam",
}


class RunLength(NamedTuple):
    """How long a run is, in epochs or in XTuner's iterations (0 for what is not set)."""

    epochs: int
    iterations: int


def read_optimizer(tree: Mapping[str, Any], report: ConversionReport) -> int:
    """optim_wrapper's settings; returns the micro-batches of a step."""
    values = report.values
    wrapper = ConfigNode(tree["optim_wrapper"], "optim_wrapper", report)
    wrapper.read_type("AmpOptimWrapper", "OptimWrapper")
    wrapper.ignore("dtype")  # the model's reader has it
    optimizer = ConfigNode(wrapper.take("optimizer"), "optim_wrapper.optimizer", report)
    _read_optimizer_type(optimizer.take("type"), report)
    values["lr"] = optimizer.take("lr", 1e-3)
    if "betas" in optimizer.values:
        values["betas"] = tuple(optimizer.take("betas"))
    values["weight_decay"] = optimizer.take("weight_decay", 1e-2)
    extra = {f"optim_wrapper.optimizer.{key}": value for key, value in optimizer.values.items()}
    if extra:
        values.setdefault("overrides", {}).update(extra)
    clip = wrapper.take("clip_grad")
    values["max_norm"] = 0.0
    if clip:
        node = ConfigNode(clip, "optim_wrapper.clip_grad", report)
        values["max_norm"] = node.take("max_norm", 0.0)
        node.ignore("error_if_nonfinite")
        if node.take("norm_type", 2) != 2:
            report.refuse(
                "optim_wrapper.clip_grad.norm_type: gradients are clipped by their 2-norm"
            )
        node.refuse_rest()
    scale = wrapper.take("loss_scale", "dynamic")
    if scale != "dynamic" and values.get("dtype") == "float16":
        report.change("loss-scale", f"loss_scale = {shorten_repr(scale)}: the scale is dynamic")
    count = wrapper.take("accumulative_counts", 1)
    wrapper.refuse_rest()
    values["accumulative_counts"] = count
    values["sequence_parallel_size"] = tree.get("sequence_parallel_size") or 1
    return int(count)


def _read_optimizer_type(kind: Any, report: ConversionReport) -> None:
    path = (
        kind.path if isinstance(kind, ConfigSymbol) else _REGISTRY_NAMES.get(str(kind), str(kind))
    )
    if not is_importable(path):
        report.refuse(
            f"optim_wrapper.optimizer.type is {shorten_repr(kind)}, which cannot be imported"
        )
    report.values["optimizer"] = {"torch.optim.adamw.AdamW": "torch.optim.AdamW"}.get(path, path)


def read_loop(tree: Mapping[str, Any], accumulation: int, report: ConversionReport) -> RunLength:
    """train_cfg's settings."""
    values = report.values
    loop = ConfigNode(tree["train_cfg"], "train_cfg", report)
    if "type" in loop.values:
        loop.read_type("TrainLoop", "EpochBasedTrainLoop", "IterBasedTrainLoop")
    by_epoch = loop.take("by_epoch", True)
    epochs, iterations = loop.take("max_epochs") or 0, loop.take("max_iters") or 0
    loop.ignore("val_interval", "val_begin", "dynamic_intervals")  # mmlu() reads the interval
    loop.refuse_rest()
    if by_epoch is False and not iterations:
        report.refuse("train_cfg counts iterations and sets no max_iters")
    if iterations:
        values["max_steps"] = math.ceil(iterations / max(accumulation, 1))
    elif epochs:
        values["max_epochs"] = epochs
    else:
        report.refuse("train_cfg sets neither max_epochs nor max_iters")
    return RunLength(epochs, iterations)


def read_schedule(
    schedulers: Any, length: RunLength, accumulation: int, report: ConversionReport
) -> None:
    """param_scheduler's settings: a linear warm-up and one falling or constant rate."""
    values = report.values
    several = schedulers if isinstance(schedulers, list | tuple) else [schedulers]
    nodes = [ConfigNode(s, f"param_scheduler[{n}]", report) for n, s in enumerate(several) if s]
    kinds = [node.read_type("LinearLR", "CosineAnnealingLR", "ConstantLR") for node in nodes]
    values["warmup_ratio"], values["lr_schedule"] = 0.0, "constant"
    if kinds and kinds[0] == "LinearLR" and nodes[0].values.get("end_factor", 1.0) == 1.0:
        _read_warmup(nodes.pop(0), length, accumulation, report)
        kinds.pop(0)
    if len(nodes) > 1:
        report.refuse("param_scheduler: more than a warm-up and one schedule after it")
        return
    for node, kind in zip(nodes, kinds, strict=True):
        _read_decay(node, kind, length, report)
        node.refuse_rest()


def _read_warmup(
    node: ConfigNode, length: RunLength, accumulation: int, report: ConversionReport
) -> None:
    values = report.values
    node.ignore("start_factor", "end_factor", "convert_to_iter_based", "verbose")
    begin, end, by_epoch = node.take("begin", 0), node.take("end", 0), node.take("by_epoch", True)
    if begin:
        report.refuse(f"{node.where}.begin = {begin}: warm-up begins with the run")
    if by_epoch:
        values["warmup_ratio"] = _warmup_share(end, length, report)
    else:
        values["warmup_steps"] = math.ceil(end / max(accumulation, 1))
    if end:
        report.change("warm-up", "the learning rate rises by whole optimizer steps, from lr / (n + 1) "
                      "up; XTuner starts near zero")  # fmt: skip
    node.refuse_rest()


def _read_decay(node: ConfigNode, kind: str, length: RunLength, report: ConversionReport) -> None:
    values = report.values
    node.ignore("convert_to_iter_based", "verbose", "begin", "start_factor")
    by_epoch = node.take("by_epoch", True)
    end = node.take("end", node.take("T_max"))
    node.ignore("T_max")
    whole = length.epochs if by_epoch else length.iterations
    if end is not None and by_epoch and not length.epochs:
        report.change("schedule-unit", "param_scheduler counts epochs and train_cfg iterations: here "
                      "the rate falls from the warm-up to the end of the run")  # fmt: skip
    elif end is not None and whole and not math.isclose(end, whole):
        report.refuse(
            f"{node.where} ends at {end} and the run at {whole}: the rate falls to the end"
        )
    if kind == "CosineAnnealingLR":
        values["lr_schedule"] = "cosine"
        ratio = node.take("eta_min_ratio")
        values["min_lr"] = node.take("eta_min", 0.0) or (ratio or 0.0) * values["lr"]
    elif kind == "LinearLR":
        values["lr_schedule"] = "linear"
        values["min_lr"] = node.take("end_factor", 1.0) * values["lr"]
    elif node.take("factor", 1.0) != 1.0:
        report.refuse(f"{node.where}.factor: a constant rate is lr itself")


def _warmup_share(end: float, length: RunLength, report: ConversionReport) -> float:
    """The warm-up as a share of the run."""
    if length.epochs:
        return float(end / length.epochs)
    report.change("schedule-unit", "param_scheduler counts epochs and train_cfg iterations, so that "
                  "XTuner's rate hardly leaves its warm-up; here it is that share of the run")  # fmt: skip
    return float(end / length.iterations) if length.iterations else 0.0


def get_optimizer_path(name: str) -> str:
    """The class of an optimizer by its name in Hugging Face's training arguments, or ""."""
    paths = {
        "adamw_torch": "torch.optim.AdamW",
        "adamw_torch_fused": "torch.optim.AdamW",
        "adamw_hf": "torch.optim.AdamW",
        "sgd": "torch.optim.SGD",
        "adamw_8bit": "bitsandbytes.optim.AdamW8bit",
        "adamw_bnb_8bit": "bitsandbytes.optim.AdamW8bit",
        "paged_adamw_8bit": "bitsandbytes.optim.PagedAdamW8bit",
        "paged_adamw_32bit": "bitsandbytes.optim.PagedAdamW32bit",
    }
    return paths.get(short_name(name), "")
