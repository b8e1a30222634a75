"""From a config of XTuner's to flat settings, object by object.

What counts are the objects that a config builds (`model`, `train_dataloader`, …) after --cfg-options, not
the variables that the file opens with: users edit either. This module reads the model and what concerns
the run; sft_data.py and preference_data.py read the data, optimization.py the optimizer and schedule,
hook_settings.py the hooks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any

from elysia.compat.xtuner import loader, preference_data
from elysia.compat.xtuner.hook_settings import read_custom_hooks, read_default_hooks
from elysia.compat.xtuner.optimization import read_loop, read_optimizer, read_schedule
from elysia.compat.xtuner.report import ConfigNode, ConversionReport, refuse_unknown_symbols
from elysia.compat.xtuner.sft_data import read_mmlu, read_train_data
from elysia.compat.xtuner.shared_nodes import read_tokenizer
from elysia.compat.xtuner.symbols import UNSUPPORTED_MODELS, short_name
from elysia.compat.xtuner.trainer_args import convert_trainer_config
from elysia.core.errors import ConfigError, nearest

ConfigTree = dict[str, Any]
DataReader = Callable[[ConfigTree, Path, ConversionReport], list[Any]]

# The keys of a config that build something; other names in the file are its own variables.
CONFIG_OBJECTS = (
    "model", "train_dataloader", "optim_wrapper", "param_scheduler", "train_cfg", "custom_hooks",
    "default_hooks", "env_cfg", "visualizer", "log_level", "load_from", "resume", "randomness",
    "log_processor", "val_dataloader", "val_evaluator", "val_cfg", "test_dataloader",
    "test_evaluator", "test_cfg", "sequence_parallel_size", "strategy", "runner_type",
)  # fmt: skip


def convert_config(
    path: str | Path,
    cfg_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    *,
    setting_names: Collection[str] = (),
) -> ConversionReport:
    """Convert a config file of XTuner's to flat settings.

    cfg_options: values for settings (`lr`), which replace the converted ones, or for the config's
    objects by dotted name (`optim_wrapper.optimizer.lr`). setting_names: the names that options may
    use for settings. device: "cpu", "cuda", or "auto" for this machine's.
    ConfigError for a file that does not run, and for options that would change nothing.
    """
    path = Path(path)
    tree = loader.config_to_tree(loader.load_config_file(path))
    return convert_tree(tree, path, cfg_options, device, setting_names=setting_names)


def convert_tree(
    tree: ConfigTree,
    path: Path,
    cfg_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    *,
    setting_names: Collection[str] = (),
) -> ConversionReport:
    """`convert_config` for a file that is read already."""
    report = ConversionReport()
    if "model" not in tree:
        report.refuse("it is a script or a part of a config: it builds no model")
        return report
    settings, objects = _split_options(dict(cfg_options or {}), setting_names, str(path))
    tree = loader.merge_options(convert_trainer_config(tree, report), objects, str(path))
    kind = (
        short_name((tree["model"] or {}).get("type")) if isinstance(tree["model"], Mapping) else ""
    )
    if kind in UNSUPPORTED_MODELS:
        report.refuse(f"{UNSUPPORTED_MODELS[kind]} ({kind})")
        return report
    refuse_unknown_symbols({key: tree[key] for key in CONFIG_OBJECTS if key in tree}, report)
    MODEL_CONVERTERS.get(kind, _convert_sft)(tree, path, has_cuda(device), report)
    report.values.update(settings)
    return report


def _convert_sft(tree: ConfigTree, path: Path, cuda: bool, report: ConversionReport) -> None:
    """SupervisedFinetune: text fine-tuning and pretraining."""
    _convert_training(tree, path, cuda, report, read_train_data)
    report.change("token-weighted", "the loss of a step is the mean over all its learned tokens; "
                  "XTuner takes the mean of the micro-batches' means")  # fmt: skip


def _convert_preference(tree: ConfigTree, path: Path, cuda: bool, report: ConversionReport) -> None:
    """DPO, ORPO and RewardModel: which of two replies is preferred."""
    model = preference_data.read_objective(tree["model"], report)
    if _convert_training(
        {**tree, "model": model}, path, cuda, report, preference_data.read_pair_data
    ):
        preference_data.finish_preference(report)


def _convert_training(
    tree: ConfigTree, path: Path, cuda: bool, report: ConversionReport, data: DataReader
) -> bool:
    """Everything that all kinds of training have; False when a key of the config is missing.
    `data` reads its dataloader."""
    for key in ("model", "train_dataloader", "optim_wrapper", "train_cfg"):
        if not isinstance(tree.get(key), Mapping):
            report.refuse(f"it has no {key}")
            return False
    for function in loader.collect_functions(
        {key: tree[key] for key in CONFIG_OBJECTS if key in tree}
    ):
        _check_function(function, report)
    _convert_model(ConfigNode(tree["model"], "model", report), tree["optim_wrapper"], cuda, report)
    accumulation = read_optimizer(tree, report)
    length = read_loop(tree, accumulation, report)
    read_schedule(tree.get("param_scheduler"), length, accumulation, report)
    templates = data(tree, path, report)
    read_custom_hooks(tree.get("custom_hooks") or [], templates, accumulation, report)
    read_default_hooks(tree.get("default_hooks") or {}, accumulation, report)
    read_mmlu(tree, report)
    _convert_runtime(tree, report)
    return True


# Kind of model -> its reader.
MODEL_CONVERTERS: dict[str, Callable[[ConfigTree, Path, bool, ConversionReport], None]] = {
    "SupervisedFinetune": _convert_sft,
    **dict.fromkeys(preference_data.OBJECTIVES, _convert_preference),
}


def _split_options(
    options: dict[str, Any], setting_names: Collection[str], where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options that name settings, and those that reach into the config's objects."""
    settings = {key: value for key, value in options.items() if key in setting_names}
    objects = {key: options[key] for key in options if key not in settings}
    for key in objects:
        if key.split(".")[0] not in (*CONFIG_OBJECTS, "train_dataset", "training_args", "lora"):
            raise ConfigError(
                "compat.option_without_effect",
                key=key,
                path=where,
                nearest=nearest(key, setting_names),
            )
    return settings, objects


def has_cuda(device: str) -> bool:
    """Whether `device` is a CUDA device; "auto" asks this machine."""
    if device != "auto":
        return device.startswith("cuda")
    from elysia.models.device import pick_device

    return bool(pick_device().type == "cuda")


def _check_function(function: FunctionType, report: ConversionReport) -> None:
    from elysia.compat.xtuner.map_functions import resolve_imports

    try:
        resolve_imports(function)
    except ConfigError as error:
        report.refuse(str(error).rstrip("."))


def _convert_model(
    model: ConfigNode, wrapper: Mapping[str, Any], cuda: bool, report: ConversionReport
) -> None:
    values = report.values
    model.read_type("SupervisedFinetune")
    llm = ConfigNode(model.take("llm"), "model.llm", report)
    llm.read_type("AutoModelForCausalLM.from_pretrained", "AutoModel.from_pretrained")
    name = llm.take("pretrained_model_name_or_path")
    if not isinstance(name, str) or not name:
        report.refuse("model.llm names no pretrained_model_name_or_path")
        name = ""
    values["pretrained_model_name_or_path"] = name
    code = get_custom_code_family(name)
    if code:
        report.need(f"a base model that transformers knows: {name} is {code}, which only runs code "
                    "of its own, and that is not done here")  # fmt: skip
    elif llm.take("trust_remote_code"):
        report.change("remote-code", "trust_remote_code: a model's own code is never run; "
                      "transformers' model of the same type is used")  # fmt: skip
    llm.ignore("trust_remote_code", "low_cpu_mem_usage", "use_cache", "device_map")
    if llm.take("moe_implementation") is not None:
        llm.ignore("expert_in_one_shard")
        report.change("experts", "moe_implementation: experts are not joined into shards")
    _convert_lora(model, llm, name, report)
    _convert_dtype(llm, wrapper, cuda, report)
    llm.refuse_rest()
    values["gradient_checkpointing"] = bool(model.take("use_activation_checkpointing", True))
    model.ignore("use_varlen_attn")  # what the dataset says of it counts
    if model.take("max_position_embeddings"):
        report.change("positions", "max_position_embeddings: positions beyond those that the base "
                      "was trained on are not rescaled; choose a base that reads so far")  # fmt: skip
    own = model.take("tokenizer")
    if own is not None:
        read_tokenizer(own, "model.tokenizer", report)
        report.change("embeddings", "model.tokenizer: embeddings are not enlarged; a tokenizer with "
                      "more tokens than the model has is refused")  # fmt: skip
    model.refuse_rest()


def _convert_lora(model: ConfigNode, llm: ConfigNode, base: str, report: ConversionReport) -> None:
    """Method, bits and adapter."""
    values = report.values
    lora = model.take("lora")
    if model.take("peft_model"):
        report.refuse("model.peft_model: training does not start from an adapter; merge it first")
    eight = bool(llm.take("load_in_8bit", False))
    four = bool(llm.take("load_in_4bit", False))
    bits = llm.take("quantization_config")
    if bits is not None:
        node = ConfigNode(bits, "model.llm.quantization_config", report)
        node.read_type("BitsAndBytesConfig")
        four = bool(node.take("load_in_4bit", False)) or four
        eight = bool(node.take("load_in_8bit", False)) or eight
        if four and node.take("bnb_4bit_quant_type", "nf4") != "nf4":
            report.refuse("model.llm.quantization_config.bnb_4bit_quant_type: only nf4 is trained")
        values["double_quant"] = bool(node.take("bnb_4bit_use_double_quant", False))
        node.ignore("bnb_4bit_compute_dtype", "bnb_4bit_quant_type")
        node.ignore("llm_int8_threshold", "llm_int8_has_fp16_weight")
        if node.take("bnb_4bit_quant_storage") is not None:
            report.change("zero3", "bnb_4bit_quant_storage: 4-bit weights are not scattered over "
                          "processes (QLoRA under ZeRO-3 is refused; ZeRO-2 serves)")  # fmt: skip
        node.refuse_rest()
    if lora is None:
        if four or eight:
            report.refuse(
                "its base is quantized and it has no lora: nothing of it could be trained"
            )
        values["method"] = "full"
        return
    if eight and not four:
        report.change("8-bit", "load_in_8bit: the base stays in 16 bits (method = 'lora'); choose "
                      "method = 'qlora' for less memory")  # fmt: skip
    values["method"] = "qlora" if four else "lora"
    node = ConfigNode(lora, "model.lora", report)
    node.read_type("LoraConfig")
    # XTuner's class has PEFT's own defaults.
    for key, default in (("r", 8), ("lora_alpha", 8), ("lora_dropout", 0.0)):
        name = key if key.startswith("lora_") else f"lora_{key}"
        values[name] = node.take(key, default)
    targets = node.take("target_modules")
    if targets is not None:
        targets = drop_absent_targets(
            [targets] if isinstance(targets, str) else list(targets), base, report
        )
    values["lora_target_modules"] = "all-linear" if targets is None else targets
    if node.take("bias", "none") != "none":
        report.refuse("model.lora.bias: biases are not trained")
    node.ignore("task_type", "inference_mode")
    node.refuse_rest()


def _convert_dtype(
    llm: ConfigNode, wrapper: Mapping[str, Any], cuda: bool, report: ConversionReport
) -> None:
    """dtype and attention, as this device can do them."""
    loaded = {"half": "float16", "float": "float32"}.get(short_name(llm.values.get("torch_dtype")))
    loaded = loaded or short_name(llm.take("torch_dtype"))
    llm.ignore("torch_dtype")
    amp = short_name(wrapper.get("type")) == "AmpOptimWrapper"
    amp_dtype = short_name(wrapper.get("dtype")) if amp else ""
    # Without a dtype of its own, XTuner's automatic precision follows the weights, then the device.
    dtype = amp_dtype or (
        "auto" if loaded in ("", "auto", "float32") and amp else loaded or "float32"
    )
    if dtype == "float16" and not cuda:
        report.change("float16", "AmpOptimWrapper on a CPU: dtype = 'auto' (bfloat16 or float32) in "
                      "place of float16")  # fmt: skip
        dtype = "auto"
    if dtype not in ("auto", "float16", "bfloat16", "float32"):
        report.refuse(f"optim_wrapper.dtype = {dtype!r} is no dtype that is trained in")
    report.values["dtype"] = dtype
    attention = llm.take("attn_implementation")
    report.values["attention"] = "auto"
    if attention == "flash_attention_2":
        if cuda and find_spec("flash_attn"):
            report.values["attention"] = attention
        else:
            lack = "flash-attn is not installed" if cuda else "a CPU has none"
            report.change("flash-attention", f"attn_implementation = 'flash_attention_2': {lack}; "
                          "attention by segments gives the same")  # fmt: skip
    elif attention in ("sdpa", "eager"):
        report.values["attention"] = attention
    elif attention is not None:
        report.refuse(f"model.llm.attn_implementation = {attention!r} is not offered")


def _convert_runtime(tree: ConfigTree, report: ConversionReport) -> None:
    if tree.get("visualizer") is None:
        report.change("visualizer", "visualizer = None: TensorBoard's files and a plot of the losses "
                      "are written")  # fmt: skip
    randomness = tree.get("randomness") or {}
    seed = randomness.get("seed")
    report.values["seed"] = 42 if seed is None else seed
    if seed is None:
        report.change("seed", "randomness.seed = None: seed = 42, where XTuner draws one")
    if randomness.get("deterministic"):
        report.refuse("randomness.deterministic: PyTorch's deterministic mode is not switched on")
    if tree.get("load_from"):
        report.refuse("load_from: a run starts from its base model, or is resumed by --resume")
    if tree.get("resume"):
        report.change("resume", "resume: give --resume on the command line")
    if (tree.get("env_cfg") or {}).get("cudnn_benchmark"):
        report.change("cudnn", "env_cfg.cudnn_benchmark is not switched on")
    for key in ("strategy", "runner_type"):
        if tree.get(key) is not None:
            report.refuse(f"{key}: choose --deepspeed on the command line")


# A pattern in the model's name -> the model type that transformers does not have.
_CUSTOM_CODE_FAMILIES = {
    r"^internlm/internlm-(chat-)?\d": "InternLM 1",
    r"baichuan": "Baichuan",
    r"chatglm[23]": "ChatGLM",
    r"^qwen/qwen-": "Qwen 1",
    r"minicpm-|minicpm_": "MiniCPM",
    r"deepseek-moe": "DeepSeek-MoE",
}
# Layers that the checkpoint has, and transformers' model has not as linear layers: (reason, names).
_ABSENT_LAYERS = {
    r"mixtral": ("its experts' weights are joined, and get no adapter", {"w1", "w2", "w3"}),
    r"starcoder": ("it exists only where a model attends to another", {"q_attn"}),
}


def get_custom_code_family(name: str) -> str | None:
    """The family of a model that cannot be loaded without running code of its own.

    >>> get_custom_code_family("Qwen/Qwen-7B-Chat"), get_custom_code_family("Qwen/Qwen1.5-7B")
    ('Qwen 1', None)
    """
    for pattern, family in _CUSTOM_CODE_FAMILIES.items():
        if re.search(pattern, name, re.IGNORECASE):
            return family
    return None


def drop_absent_targets(targets: list[str], base: str, report: ConversionReport) -> list[str]:
    """`targets` without the layers that the base's model has no longer; a change names those."""
    for pattern, (why, gone) in _ABSENT_LAYERS.items():
        lost = [name for name in targets if name in gone]
        if lost and re.search(pattern, base, re.IGNORECASE):
            report.change("targets", f"target_modules {', '.join(lost)}: {why}")
            return [name for name in targets if name not in gone]
    return targets
