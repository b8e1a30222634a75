"""Configs of XTuner's that learn from preference pairs: DPO, ORPO and reward models.

The loss's arguments become settings, and the rest of the model is an ordinary one that convert.py reads;
each `build_preference_dataset` becomes a source of pairs. No data file is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

from elysia.compat.xtuner.report import ConfigNode, ConversionReport, shorten_repr
from elysia.compat.xtuner.sft_data import (
    apply_weight,
    get_function_format,
    read_dataloader,
    split_concat_dataset,
)
from elysia.compat.xtuner.shared_nodes import (
    NO_TEMPLATE,
    SourceDict,
    read_load_dataset,
    read_load_jsonl,
    read_tokenizer,
)
from elysia.compat.xtuner.symbols import PAIR_FUNCTIONS, short_name
from elysia.core.templates import suggest_templates

# Kind of model -> objective.
OBJECTIVES = {"DPO": "dpo", "ORPO": "orpo", "RewardModel": "reward"}
_FAMILIES = ("internlm2", "internlm", "qwen", "llama", "gemma", "mixtral", "mistral", "minicpm")


def read_objective(model: Mapping[str, Any], report: ConversionReport) -> dict[str, Any]:
    """The settings of a model's loss; returns the model without it, as one that learns replies."""
    node = ConfigNode(model, "model", report)
    kind = node.read_type(*OBJECTIVES)
    report.values["objective"] = OBJECTIVES.get(kind, "dpo")
    {"DPO": _read_dpo, "ORPO": _read_orpo}.get(kind, _read_reward)(node, report)
    return {**node.values, "type": "SupervisedFinetune"}


def _read_dpo(node: ConfigNode, report: ConversionReport) -> None:
    values = report.values
    values["dpo_beta"] = node.take("beta", 0.1)
    kind = node.take("loss_type", "sigmoid")
    values["dpo_loss_type"] = kind
    if kind not in ("sigmoid", "robust", "hinge", "ipo"):
        why = (
            "its loss depends on which pairs share a micro-batch, and a step here does not"
            if kind == "kto_pair"
            else "sigmoid, robust, hinge and ipo are"
        )
        report.refuse(f"model.loss_type = {kind!r} is not offered: {why}")
    smoothing = node.take("label_smoothing", 0.0)
    if kind in ("sigmoid", "robust"):  # XTuner's other losses do not read it
        values["dpo_label_smoothing"] = smoothing
        if not 0 <= smoothing < 0.5:
            report.refuse(f"model.label_smoothing = {smoothing}: it must be from 0 to below 0.5")
    reference = node.take("ref_llm")
    if reference is not None:
        _check_reference(reference, node.values.get("llm"), report)
    if node.values.get("lora") is None:
        report.change("reference", "the reference's log-probabilities are taken once before the first "
                      "step and kept in the work dir; XTuner holds a second model for them")  # fmt: skip


def _check_reference(reference: Any, llm: Any, report: ConversionReport) -> None:
    """A reference model of its own: it must be the base."""
    names = [
        model.get("pretrained_model_name_or_path") if isinstance(model, Mapping) else None
        for model in (reference, llm)
    ]
    if names[0] is None or names[0] != names[1]:
        report.refuse(f"model.ref_llm is {shorten_repr(names[0])}: the reference is the base itself, and no "
                      "other model is loaded for it")  # fmt: skip
    report.change("ref-llm", "model.ref_llm: the base as it is loaded for training, and before it, is "
                  "the reference")  # fmt: skip


def _read_orpo(node: ConfigNode, report: ConversionReport) -> None:
    report.values["orpo_lambda"] = node.take("beta", 0.1)
    if node.values.get("use_varlen_attn"):
        report.change("orpo-mean", "ORPO's loss of a chosen reply is the mean over its own tokens; "
                      "XTuner takes the mean over those of all chosen replies of a pack")  # fmt: skip
    else:
        report.change("orpo-padded", "ORPO without use_varlen_attn stops with an error in XTuner 0.2.0 "
                      "(logits stand where log-probabilities should); here it trains")  # fmt: skip


def _read_reward(node: ConfigNode, report: ConversionReport) -> None:
    values = report.values
    kind = node.take("loss_type", "ranking")
    values["reward_loss_type"] = kind
    if kind not in ("ranking", "focal"):
        report.refuse(f"model.loss_type = {kind!r} is not offered: ranking and focal are")
    penalty = node.take("penalty_type", "log_barrier")
    values["reward_penalty"] = str(penalty).lower()
    if penalty not in ("log_barrier", "L2", "none"):
        report.refuse(
            f"model.penalty_type = {penalty!r} is not offered: log_barrier, L2 and none are"
        )
    values["reward_penalty_weight"] = node.take("penalty_weight", 0.01)
    node.ignore("reward_token_id")  # the dataset's counts
    report.change("reward-head", "the reward's head starts as transformers makes it, small and random; "
                  "XTuner's starts at zero")  # fmt: skip


def read_pair_data(tree: Mapping[str, Any], path: Path, report: ConversionReport) -> list[Any]:
    """train_dataloader's settings; no prompt templates, since XTuner's pairs have the tokenizer's."""
    values = report.values
    loader = ConfigNode(tree["train_dataloader"], "train_dataloader", report)
    dataset = loader.take("dataset")
    read_dataloader(loader, "preference_collate_fn", report)
    sources = _read_sources(dataset, "train_dataloader.dataset", path, report)
    values["data_path"] = sources
    formats = {source["format"] for source in sources}
    if len(formats) == 1:  # so that --cfg-options data_path=… is read as the config's own was
        values["dataset_format"] = formats.pop()
    values["SYSTEM"] = ""
    return []


def _read_sources(
    dataset: Any, where: str, path: Path, report: ConversionReport
) -> list[SourceDict]:
    """One build_preference_dataset, or a ConcatDataset of such."""
    node = ConfigNode(dataset, where, report)
    if node.read_type("build_preference_dataset", "ConcatDataset") == "ConcatDataset":
        sources: list[SourceDict] = []
        for part, inside, weight in split_concat_dataset(node, report):
            weighted = _read_sources(part, inside, path, report)
            apply_weight(weighted, weight)
            sources += weighted
        node.refuse_rest()
        return sources
    source = _read_source(node, path, report)
    read_tokenizer(node.take("tokenizer"), f"{where}.tokenizer", report)
    _check_row_kind(node, report)
    _read_lengths(node, report)
    node.ignore("num_proc")
    node.refuse_rest()
    return [source]


def _read_source(node: ConfigNode, path: Path, report: ConversionReport) -> SourceDict:
    rows = node.take("dataset")
    where = f"{node.where}.dataset"
    lines = isinstance(rows, Mapping) and short_name(rows.get("type")) == "load_jsonl_dataset"
    source = (
        read_load_jsonl(rows, where, report)
        if lines
        else read_load_dataset(rows, where, "train", report)
    )
    function = node.take("dataset_map_fn")
    source["format"] = "preference"
    if function is None or isinstance(function, FunctionType):
        report.change("one-reply", "chosen and rejected are one reply each, which is what is learned; "
                      "XTuner also learns lists of several messages after the prompt")  # fmt: skip
    if isinstance(function, FunctionType):
        source["format"] = get_function_format(function, node.where, path, report)
    elif function is not None and short_name(function) in PAIR_FUNCTIONS:
        report.change(
            "same-replies", "rows whose chosen and rejected replies are the same are left out"
        )
        source["format"] = PAIR_FUNCTIONS[short_name(function)]
    elif function is not None:
        report.refuse(
            f"{node.where}.dataset_map_fn is {shorten_repr(function)}, which is not read here"
        )
    return source


def _check_row_kind(node: ConfigNode, report: ConversionReport) -> None:
    """is_dpo, is_reward and the keys that belong to them, which must agree with the model."""
    ranks = report.values["objective"] == "reward"
    is_dpo, is_reward = bool(node.take("is_dpo", True)), bool(node.take("is_reward", False))
    if (is_dpo, is_reward) != (not ranks, ranks):
        report.refuse(f"{node.where}: is_dpo = {is_dpo} and is_reward = {is_reward} do not fit the model, "
                      f"which needs {not ranks} and {ranks}")  # fmt: skip
    token = node.take("reward_token_id", -1)
    if ranks:
        report.change("reward-token", f"reward_token_id = {token}: a reward stands at its text's own last "
                      "token, as transformers takes it, and not at a token put behind it")  # fmt: skip
    node.take("max_response_length")  # read for POLAR's rows alone
    if node.take("is_reference", False):
        report.refuse(f"{node.where}.is_reference = True: POLAR sets each reply beside a reference reply "
                      "in one text, and continues a reward head of its base's own; neither is read "
                      "here")  # fmt: skip


def _read_lengths(node: ConfigNode, report: ConversionReport) -> None:
    """Lengths, which here are of both talks of a pair together."""
    values = report.values
    each = node.take("max_length", 2048)
    packed = bool(node.take("use_varlen_attn", False))
    together = node.take("max_packed_length", 16384)
    limit = together if packed else 2 * each
    for name, value in (("max_length", limit), ("pack_to_max_length", packed)):
        if values.setdefault(name, value) != value:  # of a dataset before
            report.refuse(f"its datasets differ in {name}, and a run has one")
    values["overlong"] = "drop"
    report.change("pair-length", f"max_length = {each}: XTuner cuts each talk of a pair there, reply and "
                  f"all; here a pair of up to {limit} tokens together is whole, and a longer one is left "
                  "out")  # fmt: skip
    in_order = not node.take("shuffle_before_pack", True)
    if not packed:
        return
    if in_order:
        report.change("shuffle-before-pack", "shuffle_before_pack = False: which rows share a pack is "
                      "drawn by the seed")  # fmt: skip
    report.change("pair-packs", f"max_packed_length = {together}: packs are filled best fit, so there are "
                  "fewer, and fewer steps in an epoch; XTuner's close at the first pair that does not "
                  "fit")  # fmt: skip
    report.change("pair-weighted", "the loss of a step is the mean over all its pairs; XTuner takes the "
                  "mean of the packs' means")  # fmt: skip


def finish_preference(report: ConversionReport) -> None:
    """After the hooks are read: choose a prompt template, and drop the questions to a reward model."""
    values = report.values
    if values["prompt_template"] == NO_TEMPLATE:
        values["prompt_template"] = _default_template(
            values["pretrained_model_name_or_path"], report
        )
    report.change("chat-template", "talks are rendered with prompt_template, that of evaluation chats or "
                  "what suits the base's name; XTuner takes the tokenizer's own chat template")  # fmt: skip
    if values["objective"] != "reward":
        return
    if values.get("mmlu_path"):
        report.refuse("val_evaluator: a reward model answers no questions")
    if values.pop("evaluation_inputs", None):
        report.change(
            "reward-chats", "EvaluateChatHook: a reward model gives numbers and is asked nothing"
        )


def _default_template(base: str, report: ConversionReport) -> str:
    """The prompt template of a base by its name, where the config has none."""
    name = base.rstrip("/").rpartition("/")[2].lower()
    family = next((known for known in _FAMILIES if known in name), "")
    templates = suggest_templates(family, name)
    if not templates:
        report.need(f"a prompt template: the config names none and {base}'s own is not known, so that "
                    "'default' is taken; set prompt_template")  # fmt: skip
    return templates[0] if templates else "default"
