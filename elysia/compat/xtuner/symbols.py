"""The table of XTuner's symbols: every name that its configs use, and what becomes of it here.

A name that the table lacks is an error, which suggests the nearest one. `EXTERNAL_SYMBOLS` are names of
other libraries that have a meaning in a config of XTuner's.
"""

from __future__ import annotations

from elysia.compat.xtuner.loader import ConfigSymbol
from elysia.core.errors import nearest
from elysia.core.templates import SYSTEM_TEMPLATES, TEMPLATES

# Map function -> dataset format, where it is not the name without `_map_fn`.
MAP_FUNCTIONS = {
    f"{name}_map_fn": name
    for name in (
        "alpaca", "alpaca_zh", "arxiv", "code_alpaca", "colors", "crime_kg_assitant", "default",
        "law_reference", "llava", "llava_image_only", "medical", "msagent_react", "oasst1",
        "openai", "openorca", "pretrain", "sql", "stack_exchange", "tiny_codes", "wizardlm",
    )
}  # fmt: skip

# Map function of preference pairs -> dataset format.
PAIR_FUNCTIONS = {f"{name}_map_fn": name for name in ("orpo_dpo_mix_40k", "intel_orca_dpo")}

# name -> (package it is imported from, what becomes of it)
XTUNER_SYMBOLS: dict[str, tuple[str, str]] = {
    "SupervisedFinetune": ("xtuner.model", "trained"),
    "DPO": ("xtuner.model", "objective = 'dpo'"),
    "ORPO": ("xtuner.model", "objective = 'orpo'"),
    "RewardModel": ("xtuner.model", "objective = 'reward'"),
    "DeepseekV2ForCausalLM": ("xtuner.model", "transformers' own model of that name"),
    "TrainLoop": ("xtuner.engine", "max_epochs, max_steps"),
    "DatasetInfoHook": ("xtuner.engine", "always on"),
    "EvaluateChatHook": ("xtuner.engine", "evaluation_inputs and its neighbours"),
    "ThroughputHook": ("xtuner.engine", "always on"),
    "VarlenAttnArgsToMessageHubHook": ("xtuner.engine", "packing is always isolated"),
    "HFCheckpointHook": ("xtuner.engine", "a change: convert pth_to_hf"),
    "process_hf_dataset": ("xtuner.dataset", "data_path"),
    "process_ms_dataset": ("xtuner.dataset", "data_path, from ModelScope"),
    "ConcatDataset": ("xtuner.dataset", "data_path, a list"),
    "MOSSSFTDataset": ("xtuner.dataset", "dataset_format = 'moss_sft'"),
    "build_preference_dataset": ("xtuner.dataset", "data_path, of pairs"),
    "load_jsonl_dataset": ("xtuner.dataset", "data_path, files"),
    "preference_collate_fn": ("xtuner.dataset", "the project's own"),
    "build_packed_dataset": ("xtuner.dataset", "pack_to_max_length"),
    "load_intern_repo_tokenized_dataset": ("xtuner.dataset", "dataset_format = 'tokens'"),
    "load_intern_repo_untokenized_dataset": ("xtuner.dataset", "dataset_format = 'openai_lines'"),
    "LengthGroupedSampler": ("xtuner.dataset", "sampler = 'length_grouped'"),
    "InternRepoSampler": ("xtuner.dataset", "sampler = 'shuffled'"),
    "SequenceParallelSampler": ("xtuner.parallel", "sampler; sequence_parallel_size says how many share"),
    "default_collate_fn": ("xtuner.dataset", "the project's own"),
    "mmlu_collate_fn": ("xtuner.dataset", "mmlu_path"),
    "template_map_fn_factory": ("xtuner.dataset", "prompt_template"),
    "template_map_fn": ("xtuner.dataset", "prompt_template"),
    "MMLUMetric": ("xtuner.evaluation", "mmlu_path"),
    "PROMPT_TEMPLATE": ("xtuner.utils", "prompt_template"),
    "SYSTEM_TEMPLATE": ("xtuner.utils", "evaluation_system"),
    "BUILDER": ("xtuner.registry", "not used"),
    **dict.fromkeys((*MAP_FUNCTIONS, *PAIR_FUNCTIONS), ("xtuner.dataset", "dataset_format")),
    # What is not read here; UNSUPPORTED_MODELS says why.
    **dict.fromkeys(("LLaVAModel", "InternVL_V1_5"), ("xtuner.model", "not supported")),
    **dict.fromkeys(("LLaVADataset", "InternVL_V1_5_Dataset", "RefCOCOJsonDataset",
                     "InvRefCOCOJsonDataset"), ("xtuner.dataset", "not supported")),
}  # fmt: skip

_IMAGES = "it trains on images, and vision-language models are not trained here"
# Kinds of model that are not read, and why. One that is added leaves this table and gets a reader
# of its own in convert.MODEL_CONVERTERS.
UNSUPPORTED_MODELS = {"LLaVAModel": _IMAGES, "InternVL_V1_5": _IMAGES}

# Last parts of names of other libraries that a config may use, by the library.
EXTERNAL_SYMBOLS: dict[str, tuple[str, ...]] = {
    "torch": ("float16", "bfloat16", "float32", "half", "float", "BatchSampler"),
    "mmengine": (
        "AmpOptimWrapper", "OptimWrapper", "LinearLR", "CosineAnnealingLR", "ConstantLR",
        "DefaultSampler", "CheckpointHook", "DistSamplerSeedHook", "IterTimerHook", "LoggerHook",
        "ParamSchedulerHook", "Visualizer", "LocalVisBackend", "TensorboardVisBackend",
        "WandbVisBackend",
    ),
    "transformers": (
        "AutoModelForCausalLM.from_pretrained", "AutoModel.from_pretrained",
        "AutoTokenizer.from_pretrained", "LlamaTokenizer.from_pretrained", "BitsAndBytesConfig",
        "Trainer", "TrainingArguments",
    ),
    "peft": ("LoraConfig",),
    "datasets": ("load_dataset",),
    "modelscope": ("MsDataset.load",),
    "openmind": ("OmDataset.load_dataset",),
}  # fmt: skip


def short_name(value: object) -> str:
    """The short name by which the conversion knows a symbol, "" for what is no symbol.

    >>> short_name(ConfigSymbol("xtuner.engine.hooks.EvaluateChatHook"))
    'EvaluateChatHook'
    >>> short_name(ConfigSymbol("transformers.MistralForCausalLM.from_pretrained"))
    'AutoModelForCausalLM.from_pretrained'
    """
    if isinstance(value, str):  # MMEngine's registries know these by their last part
        return value.rpartition(".")[2]
    if not isinstance(value, ConfigSymbol):
        return ""
    path = value.path
    if path.endswith(".from_pretrained"):
        kind = path.split(".")[-2]
        if kind.endswith("ForCausalLM"):
            return "AutoModelForCausalLM.from_pretrained"
        return f"{kind}.from_pretrained"
    for name in EXTERNAL_SYMBOLS.get(path.split(".")[0], ()):
        if path.endswith(f".{name}"):
            return name
    return value.name


def find_symbol_error(value: ConfigSymbol) -> str | None:
    """A sentence when a symbol of XTuner's is not one that 0.1 to 0.2.0 has; None when it is."""
    parts = value.path.split(".")
    if parts[0] != "xtuner":
        return None
    place = f" ({value.location})" if value.location else ""
    for table, known in (("PROMPT_TEMPLATE", TEMPLATES), ("SYSTEM_TEMPLATE", SYSTEM_TEMPLATES)):
        if table in parts[:-1]:
            name = parts[parts.index(table) + 1]
            if name in known:
                return None
            return f"{table} has no '{name}'{place}.{nearest(name, known)}"
    names = [part for part in parts if part in XTUNER_SYMBOLS]
    if not names:
        return f"{value.path}{place} is no symbol of XTuner's.{nearest(parts[-1], XTUNER_SYMBOLS)}"
    package = XTUNER_SYMBOLS[names[0]][0]
    if not value.path.startswith(f"{package}."):
        return f"{names[0]} is in {package}, not at {value.path}{place}."
    return None


def get_template_name(value: object) -> str | None:
    """The template that `PROMPT_TEMPLATE.x` or `SYSTEM_TEMPLATE.x` means, None for all else."""
    if isinstance(value, ConfigSymbol) and "_TEMPLATE." in value.path:
        return value.path.partition("_TEMPLATE.")[2].split(".")[0]
    return None
