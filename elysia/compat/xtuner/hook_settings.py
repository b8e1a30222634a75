"""The hooks of a config of XTuner's, read into settings: evaluation chats, checkpoints, the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elysia.compat.xtuner.report import ConfigNode, ConversionReport
from elysia.compat.xtuner.shared_nodes import NO_TEMPLATE, parse_template, read_tokenizer
from elysia.compat.xtuner.symbols import get_template_name
from elysia.core.templates import SYSTEM_TEMPLATES, get_stop_words, get_template


def read_custom_hooks(
    hooks: list[Any], templates: list[Any], accumulation: int, report: ConversionReport
) -> None:
    chosen: Any = templates[0] if templates else None
    for number, hook in enumerate(hooks):
        where = f"custom_hooks[{number}]"
        node = ConfigNode(hook, where, report)
        kind = node.read_type("DatasetInfoHook", "EvaluateChatHook", "ThroughputHook", "HFCheckpointHook",
                         "VarlenAttnArgsToMessageHubHook")  # fmt: skip
        if kind == "EvaluateChatHook":
            chosen = _read_evaluation(node, chosen, accumulation, report)
        elif kind == "HFCheckpointHook":
            report.change("hf-checkpoint", "HFCheckpointHook: checkpoints are iter_N.pth; "
                          "`convert pth_to_hf` writes the model's folder")  # fmt: skip
            node.ignore("out_dir")
        elif kind == "DatasetInfoHook":
            if node.take("tokenizer") is None:
                report.refuse(f"{where} has no tokenizer")
            node.ignore("is_intern_repo_dataset")
        elif kind == "ThroughputHook":
            node.ignore("use_activation_checkpointing", "hidden_size", "num_layers", "vocab_size",
                        "mlp_ratio")  # fmt: skip
        node.refuse_rest()
    report.values["prompt_template"] = chosen if chosen is not None else NO_TEMPLATE


def _read_evaluation(
    node: ConfigNode, trained: Any, accumulation: int, report: ConversionReport
) -> Any:
    """EvaluateChatHook's settings; returns the template of training, else the hook's own."""
    read_tokenizer(node.take("tokenizer"), f"{node.where}.tokenizer", report)
    questions = node.take("evaluation_inputs") or []
    report.values["evaluation_inputs"] = (
        [questions] if isinstance(questions, str) else list(questions)
    )
    report.values["evaluation_freq"] = to_optimizer_steps(
        node.take("every_n_iters") or 0, accumulation, "evaluation_freq", report
    )
    report.values["evaluation_max_new_tokens"] = node.take("max_new_tokens", 600)
    system = node.take("system", "")
    named = get_template_name(system)
    report.values["evaluation_system"] = SYSTEM_TEMPLATES.get(named, "") if named else system
    template = parse_template(node.take("prompt_template"), node.where, report)
    if trained is not None and template is not None and template != trained:
        report.change("evaluation-template", "evaluation chats use the prompt template of training")
    template = trained if trained is not None else template
    stop_words = [*(node.take("stop_words") or []), *filter(None, [node.take("stop_word")])]
    known = get_stop_words(get_template(template)) if template else ()
    unknown = [word for word in stop_words if word not in known]
    if unknown:
        report.change("stop-words", f"stop words {unknown}: evaluation chats end at those of the "
                      "prompt template")  # fmt: skip
    node.take("generation_kwargs")
    report.change("greedy", "evaluation chats are greedy; XTuner samples them at temperature 0.1")
    if node.take("evaluation_images") is not None:
        report.refuse(f"{node.where}.evaluation_images: images are not shown to models here")
    node.ignore("image_processor")
    return template


def read_default_hooks(
    hooks: Mapping[str, Any], accumulation: int, report: ConversionReport
) -> None:
    values = report.values
    for name, hook in hooks.items():
        if hook is None:
            continue
        node = ConfigNode(hook, f"default_hooks.{name}", report)
        kind = node.read_type("IterTimerHook", "LoggerHook", "ParamSchedulerHook", "CheckpointHook",
                         "DistSamplerSeedHook")  # fmt: skip
        if kind == "LoggerHook":
            node.ignore("log_metric_by_epoch", "ignore_last")
            interval = node.take("interval", 10)
            values["logging_interval"] = to_optimizer_steps(
                interval, accumulation, "logging_interval", report
            )
        elif kind == "CheckpointHook":
            _read_checkpoints(node, accumulation, report)
        node.refuse_rest()


def _read_checkpoints(node: ConfigNode, accumulation: int, report: ConversionReport) -> None:
    values = report.values
    interval = node.take("interval", -1)
    if node.take("by_epoch", True) and interval > 0:
        report.refuse(
            f"{node.where} counts epochs: set by_epoch=False and an interval in iterations"
        )
    values["save_steps"] = 0
    if interval > 0:
        values["save_steps"] = to_optimizer_steps(interval, accumulation, "save_steps", report)
    values["save_total_limit"] = max(node.take("max_keep_ckpts", -1), 0)  # -1: all of them
    if not node.take("save_last", True):
        report.change("save-last", "save_last=False: the end of the run is always saved")
    if not node.take("save_optimizer", True):
        report.change("save-optimizer", "save_optimizer=False: checkpoints always resume exactly, so "
                      "the optimizer's state is in them")  # fmt: skip
    node.ignore("save_param_scheduler")


def to_optimizer_steps(
    iterations: int, accumulation: int, name: str, report: ConversionReport
) -> int:
    """XTuner's iterations, which are micro-batches, as optimizer steps."""
    steps = max(1, round(iterations / accumulation)) if iterations > 0 else 10**9
    if accumulation > 1:
        report.change("steps", "save_steps, evaluation_freq, logging_interval and max_steps count "
                      f"optimizer steps, of {accumulation} of XTuner's iterations each")  # fmt: skip
    return steps
