"""Everything that is refused before a run starts: settings that contradict each other, and what this machine,
model or DeepSpeed configuration cannot do.

Types and ranges of single settings are checked where they are defined (`settings.py`). The checks of settings
alone need no torch; those of the machine import it when they are called.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from elysia.compat.xtuner.map_functions import is_function_path
from elysia.core.errors import ConfigError, DeviceError, ModelError, nearest
from elysia.core.i18n import Text
from elysia.core.templates import suggest_templates
from elysia.data.formats.preference_pairs import PREFERENCES
from elysia.evaluate.early_stopping import MEASURE_NAMES
from elysia.models.chat_format import AUTO
from elysia.train.config.trackers import parse_trackers

if TYPE_CHECKING:
    from elysia.train.config.settings import Settings

# What a source may set beside its path: `data/sources.py` says what each does.
SOURCE_KEYS = {
    "path", "format", "repeat", "weight", "limit", "split", "subset", "files", "columns", "bot_name",
    "min_length", "hub",
}  # fmt: skip


def check_consistency(settings: Settings) -> None:
    """ConfigError for the first value that is at odds with another, or cannot be trained."""
    parse_trackers(settings.report_to)
    _check_adapter(settings)
    _check_compile(settings)
    _check_objective(settings)
    _check_sequence_parallel(settings)
    _check_persona(settings)
    _check_sources(settings)


def _check_adapter(settings: Settings) -> None:
    adapter_settings = {
        "use_dora": settings.use_dora,
        "use_rslora": settings.use_rslora,
        "loraplus_lr_ratio": settings.loraplus_lr_ratio != 1,
    }
    if settings.method == "full" and any(adapter_settings.values()):
        name = next(name for name, is_set in adapter_settings.items() if is_set)
        raise ConfigError("train.no_adapter", name=name)


def _check_compile(settings: Settings) -> None:
    if not settings.torch_compile:
        return
    if settings.liger_kernel:
        raise ConfigError("train.compile_and_liger")
    if settings.use_dora:  # each adapted weight is a graph break
        raise ConfigError("train.compile_and_dora")
    if settings.attention == "flash_attention_2":
        raise ConfigError("train.compile_and_flash_attention")


def _check_objective(settings: Settings) -> None:
    smoothing = settings.dpo_label_smoothing
    if smoothing >= 0.5 or (smoothing and settings.dpo_loss_type not in ("sigmoid", "robust")):
        raise ConfigError("train.label_smoothing", value=smoothing)
    _check_formats(settings)
    if settings.pairs and settings.train_on_prompt:
        raise ConfigError("train.pairs_train_on_prompt", objective=settings.objective)
    if settings.pairs and settings.overlong in ("cut", "truncate"):
        raise ConfigError("train.pairs_overlong", overlong=settings.overlong)
    for name in ("evaluation_inputs", "mmlu_path"):
        if settings.objective == "reward" and getattr(settings, name):
            raise ConfigError("train.reward_gives_no_text", name=name)


def _check_formats(settings: Settings) -> None:
    """Formats of pairs go with objectives that compare, all others with `sft`."""
    for name in (source["format"] for source in settings.sources):
        if is_function_path(name):
            continue  # what it returns is known once it is called
        if settings.pairs and name not in PREFERENCES:
            raise ConfigError(
                "train.format_not_pairs",
                objective=settings.objective,
                format=name,
                formats=list(PREFERENCES),
            )
        if not settings.pairs and name in PREFERENCES:
            raise ConfigError("train.format_of_pairs", objective=settings.objective, format=name)


def _check_sequence_parallel(settings: Settings) -> None:
    size = settings.sequence_parallel_size
    if size == 1:
        return
    if settings.pairs:
        raise ConfigError("train.sequence_parallel_pairs", size=size, objective=settings.objective)
    if settings.attention not in ("auto", "segments"):
        raise ConfigError(
            "train.sequence_parallel_attention", size=size, attention=settings.attention
        )


def _check_persona(settings: Settings) -> None:
    for name, weight in settings.persona_tradeoff.items():
        if name not in MEASURE_NAMES:
            raise ConfigError(
                "train.unknown_measure",
                name=name,
                hint=nearest(name, MEASURE_NAMES),
                names=list(MEASURE_NAMES),
            )
        if not isinstance(weight, int | float) or isinstance(weight, bool):
            raise ConfigError("train.measure_weight", name=name, value=repr(weight))
    if not settings.persona_freq:
        if settings.persona_patience:
            raise ConfigError("train.patience_without_frequency")
        return
    for name in ("persona", "persona_heldout"):
        if not getattr(settings, name):
            raise ConfigError("train.persona_needs_file", name=name)
    if settings.objective == "reward":
        raise ConfigError("train.reward_gives_no_text", name="persona_freq")


def _check_sources(settings: Settings) -> None:
    for source in settings.sources:
        unknown = set(source) - SOURCE_KEYS
        if unknown:
            raise ConfigError(
                "train.unknown_source_key", keys=sorted(SOURCE_KEYS), unknown=str(sorted(unknown))
            )
        paths = source["path"] if isinstance(source["path"], list | tuple) else [source["path"]]
        if not paths or not all(isinstance(path, str) and path for path in paths):
            raise ConfigError("train.source_without_path", value=repr(source["path"]))
        repeat = source["repeat"]
        if not isinstance(repeat, int | float) or isinstance(repeat, bool) or repeat <= 0:
            raise ConfigError("train.source_repeat", path=source["path"])


def check_device(settings: Settings) -> None:
    """DeviceError for what this device cannot do, before anything is loaded."""
    from elysia.models.device import pick_device
    from elysia.train.kernels import layer_compile, liger

    device = pick_device().type
    cuda = device == "cuda"
    if settings.dtype == "float16" and not cuda:
        raise DeviceError("train.float16_on_cpu")
    if settings.attention == "flash_attention_2" and not (cuda and find_spec("flash_attn")):
        reason = "train.lacks_flash_attn" if cuda else "train.lacks_gpu_for_flash_attention"
        raise DeviceError("train.no_flash_attention", reason=Text(reason))
    for name, kernels in (("torch_compile", layer_compile), ("liger_kernel", liger)):
        missing = kernels.missing_requirement(device) if getattr(settings, name) else None
        if missing:
            raise DeviceError("train.kernel_unavailable", name=name, reason=missing)


def check_deepspeed(settings: Settings, deepspeed: str | None) -> None:
    """ModelError or ConfigError for settings that a DeepSpeed configuration cannot train with."""
    if not deepspeed:
        return
    if "zero3" in deepspeed and settings.method == "qlora":
        raise ModelError("train.zero3_and_qlora")
    if "zero3" in deepspeed and settings.use_dora:
        raise ModelError("train.zero3_and_dora")
    if settings.torch_compile and _get_zero_stage(deepspeed) == 3:
        # ZeRO-3 gathers a module's weights as it is called; a compiled layer calls no modules.
        raise ConfigError("train.zero3_and_compile", deepspeed=deepspeed)


def _get_zero_stage(deepspeed: str) -> int:
    from elysia.train.config.deepspeed_presets import load_deepspeed_config

    return int(load_deepspeed_config(deepspeed).get("zero_optimization", {}).get("stage", 0))


def check_liger_model(settings: Settings, folder: str) -> None:
    """ModelError when Liger's kernels do not fit the model in `folder`."""
    if not settings.liger_kernel:
        return
    from elysia.models.loading import load_config
    from elysia.train.kernels.liger import MODEL_TYPES

    model_type = load_config(folder).model_type
    if model_type not in MODEL_TYPES:
        raise ModelError(
            "train.liger_model", types=list(MODEL_TYPES), folder=folder, type=model_type
        )


def resolve_tokenizer(settings: Settings, folder: str) -> str:
    """The tokenizer's folder: its own if the settings name one, else the model's `folder`.

    ModelError when the model has no embedding for some of its tokens.
    """
    if not settings.tokenizer_name_or_path:
        return folder
    from elysia.models.hub import resolve_model
    from elysia.models.loading import load_config, load_tokenizer

    own = resolve_model(settings.tokenizer_name_or_path, settings.hub)
    tokens, embeddings = len(load_tokenizer(own)), load_config(folder).vocab_size
    if tokens > embeddings:
        raise ModelError(
            "train.tokenizer_too_large",
            tokenizer=settings.tokenizer_name_or_path,
            tokens=tokens,
            model=settings.pretrained_model_name_or_path,
            embeddings=embeddings,
        )
    return str(own)


def describe_template_mismatch(settings: Settings, model_type: str) -> Text | None:
    """A warning when the prompt template belongs to another family of models than the base."""
    fitting = suggest_templates(model_type, settings.pretrained_model_name_or_path)
    if not fitting or settings.prompt_template in (AUTO, *fitting):
        return None
    if not isinstance(settings.prompt_template, str):
        return None  # written out by the user, who will know why
    return Text(
        "train.template_mismatch",
        {
            "template": settings.prompt_template,
            "model": settings.pretrained_model_name_or_path,
            "type": model_type,
            "fitting": fitting[0],
        },
    )
