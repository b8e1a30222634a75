"""Configs of XTuner's second shape, for Hugging Face's Trainer, as its first: `model`, `lora`,
`training_args` and `train_dataset` become the objects that convert.py reads.
"""

from __future__ import annotations

from typing import Any

from elysia.compat.xtuner.loader import ConfigSymbol
from elysia.compat.xtuner.optimization import get_optimizer_path
from elysia.compat.xtuner.report import ConfigNode, ConversionReport

_SCHEDULES = {"cosine": "CosineAnnealingLR", "linear": "LinearLR", "constant": "ConstantLR",
              "constant_with_warmup": "ConstantLR"}  # fmt: skip


def convert_trainer_config(tree: dict[str, Any], report: ConversionReport) -> dict[str, Any]:
    """`tree` as it is, or, if it is for the Trainer, in the shape of MMEngine's runner."""
    if "training_args" not in tree or "train_dataloader" in tree:
        return tree
    args = ConfigNode(tree["training_args"], "training_args", report)
    args.ignore("type", "do_train", "output_dir", "ddp_find_unused_parameters", "report_to",
                "remove_unused_columns", "logging_strategy", "dataloader_pin_memory")  # fmt: skip
    loop, schedule = _read_length(args, report)
    hooks = _build_hooks(args)  # before the accumulation, which it reads, is taken
    model: dict[str, Any] = {
        "type": ConfigSymbol("xtuner.model.SupervisedFinetune"),
        "llm": tree["model"],
    }
    model["use_activation_checkpointing"] = args.take("gradient_checkpointing", False)
    if tree.get("lora") is not None:
        model["lora"] = tree["lora"]
    whole = {
        "model": model,
        "train_dataloader": {
            "dataset": tree.get("train_dataset"),
            "batch_size": args.take("per_device_train_batch_size", 8),
            "num_workers": args.take("dataloader_num_workers", 0),
        },
        "optim_wrapper": _build_optim_wrapper(args, report),
        "param_scheduler": schedule,
        "train_cfg": loop,
        "default_hooks": hooks,
        "randomness": {"seed": args.take("seed", 42)},
    }
    args.refuse_rest()
    report.change("trainer", "Hugging Face's Trainer: trained by the project's own loop")
    return whole


def _read_length(
    args: ConfigNode, report: ConversionReport
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """train_cfg, and param_scheduler."""
    epochs, steps = args.take("num_train_epochs", 3), args.take("max_steps", -1)
    count = args.values.get("gradient_accumulation_steps", 1)
    loop = {"max_iters": steps * count} if steps > 0 else {"max_epochs": int(epochs)}
    if steps <= 0 and epochs != int(epochs):
        report.refuse("training_args.num_train_epochs: epochs are whole")
    name = args.take("lr_scheduler_type", "linear")
    if name not in _SCHEDULES:
        report.refuse(f"training_args.lr_scheduler_type = {name!r} is not offered")
    falling: dict[str, Any] = {"type": _SCHEDULES.get(name, "ConstantLR")}
    if name == "linear":
        falling["end_factor"] = 0.0
    warm = {"type": "LinearLR", "by_epoch": False, "end": args.take("warmup_steps", 0) * count}
    ratio = args.take("warmup_ratio", 0.0)
    if ratio and not warm["end"]:
        warm = {"type": "LinearLR", "by_epoch": True,
                "end": ratio * (loop.get("max_epochs") or loop["max_iters"])}  # fmt: skip
    return loop, [warm, falling]


def _build_optim_wrapper(args: ConfigNode, report: ConversionReport) -> dict[str, Any]:
    optimizer = args.take("optim", "adamw_torch")
    kind = get_optimizer_path(optimizer)
    if not kind:
        report.refuse(f"training_args.optim = {optimizer!r} is not offered")
    half = args.take("fp16", False)
    brain = args.take("bf16", False)
    wrapper: dict[str, Any] = {
        "type": "AmpOptimWrapper" if half or brain else "OptimWrapper",
        "optimizer": {
            "type": ConfigSymbol(kind or "torch.optim.AdamW"),
            "lr": args.take("learning_rate", 5e-5),
            "betas": (args.take("adam_beta1", 0.9), args.take("adam_beta2", 0.999)),
            "weight_decay": args.take("weight_decay", 0.0),
        },
        "clip_grad": {"max_norm": args.take("max_grad_norm", 1.0)},
        "accumulative_counts": args.take("gradient_accumulation_steps", 1),
    }
    if half or brain:
        wrapper["dtype"] = "float16" if half else "bfloat16"
    return wrapper


def _build_hooks(args: ConfigNode) -> dict[str, Any]:
    """Trainer counts optimizer steps where MMEngine counts micro-batches."""
    count = args.values.get("gradient_accumulation_steps") or 1
    saving = args.take("save_strategy", "steps")
    interval = args.take("save_steps", 500)
    return {
        "logger": {"type": "LoggerHook", "interval": args.take("logging_steps", 500) * count},
        "checkpoint": {
            "type": "CheckpointHook",
            "by_epoch": saving == "epoch",
            "interval": interval * count if saving == "steps" else -1,
            "max_keep_ckpts": args.take("save_total_limit") or -1,
        },
    }
