"""What the values of settings must satisfy: ranges, and that none contradicts another.

Each complaint names the setting and what to do. Knows nothing of files or of torch.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from elysia.compat.xtuner.map_functions import is_function_path
from elysia.core.errors import ConfigError, nearest
from elysia.data.formats.preference_pairs import PREFERENCES
from elysia.evaluate.early_stopping import MEASURE_NAMES
from elysia.train.config.trackers import parse_trackers

if TYPE_CHECKING:
    from elysia.train.config.settings import Settings

# What a source may set beside its path: `data/sources.py` says what each does.
SOURCE_KEYS = {
    "path", "format", "repeat", "weight", "limit", "split", "subset", "files", "columns", "bot_name",
    "min_length", "hub",
}  # fmt: skip

MINIMUMS: dict[str, float] = {
    "max_length": 8, "lora_r": 1, "lora_alpha": 1, "batch_size": 1, "accumulative_counts": 1,
    "map_num_proc": 0, "token_cache_gb": 0, "dataloader_num_workers": 0, "max_epochs": 1,
    "max_steps": 0, "weight_decay": 0, "max_norm": 0, "warmup_ratio": 0, "warmup_steps": 0,
    "min_lr": 0, "save_steps": 0, "logging_interval": 1,
    "evaluation_freq": 1, "heldout": 0, "lora_dropout": 0,
    "neftune_noise_alpha": 0, "seed": 0, "evaluation_max_new_tokens": 1,
    "loraplus_lr_ratio": 1, "sequence_parallel_size": 1, "dpo_label_smoothing": 0,
    "reward_penalty_weight": 0, "persona_freq": 0, "persona_limit": 1, "persona_patience": 0,
}  # fmt: skip


def validate_settings(settings: Settings) -> None:
    """ConfigError for the first value that is impossible, or at odds with another."""
    for name, least in MINIMUMS.items():
        if getattr(settings, name) < least:
            raise ConfigError(
                f"{name} is {getattr(settings, name)}, it must be at least {least:g}."
            )
    if settings.lr <= 0:
        raise ConfigError(f"lr is {settings.lr}, it must be above 0.")
    for name in ("warmup_ratio", "lora_dropout"):
        if getattr(settings, name) >= 1:
            raise ConfigError(f"{name} is {getattr(settings, name)}, it must be below 1.")
    parse_trackers(settings.report_to)
    _check_method(settings)
    _check_kernels(settings)
    _check_objective(settings)
    _check_sequences(settings)
    _check_persona(settings)
    for source in settings.sources:
        unknown = set(source) - SOURCE_KEYS
        if unknown:
            raise ConfigError(
                f"data_path: a source may set {', '.join(sorted(SOURCE_KEYS))}, not {sorted(unknown)}."
            )
        paths = source["path"] if isinstance(source["path"], list | tuple) else [source["path"]]
        if not paths or not all(isinstance(path, str) and path for path in paths):
            raise ConfigError(f"data_path: a source needs a path, got {source['path']!r}.")
        repeat = source["repeat"]
        if not isinstance(repeat, int | float) or isinstance(repeat, bool) or repeat <= 0:
            raise ConfigError(
                f"data_path: repeat of {source['path']} must be above 0 (0.5 takes half of its rows)."
            )


def _check_method(settings: Settings) -> None:
    """ConfigError for settings that contradict each other."""
    adapter = {
        "use_dora": settings.use_dora,
        "use_rslora": settings.use_rslora,
        "loraplus_lr_ratio": settings.loraplus_lr_ratio != 1,
    }
    if settings.method == "full" and any(adapter.values()):
        named = next(name for name, is_set in adapter.items() if is_set)
        raise ConfigError(
            f"{named} is set, but method = 'full' has no adapter: take it out, or set method = "
            "'lora' or 'qlora'."
        )


def _check_kernels(settings: Settings) -> None:
    """ConfigError for what cannot be compiled together."""
    if not settings.torch_compile:
        return
    if settings.liger_kernel:
        raise ConfigError(
            "torch_compile and liger_kernel are both set: each makes kernels for the same operations. "
            "Choose one."
        )
    if settings.use_dora:
        raise ConfigError(
            "torch_compile = True with use_dora = True falls into pieces at every adapted weight, and gains "
            "nothing: set one of them to False."
        )
    if settings.attention == "flash_attention_2":
        raise ConfigError(
            "torch_compile = True with attention = 'flash_attention_2' was never tried: set attention = "
            "'auto', which stays outside of what is compiled."
        )


def _check_persona(settings: Settings) -> None:
    """ConfigError for a persona that cannot be measured while it trains."""
    for name, weight in settings.persona_tradeoff.items():
        if name not in MEASURE_NAMES:
            raise ConfigError(
                f"persona_tradeoff: there is no measure '{name}'.{nearest(name, MEASURE_NAMES)} Choose of "
                f"{', '.join(MEASURE_NAMES)}."
            )
        if not isinstance(weight, int | float) or isinstance(weight, bool):
            raise ConfigError(
                f"persona_tradeoff: the weight of {name} is a number, not {weight!r}."
            )
    if not settings.persona_freq:
        if settings.persona_patience:
            raise ConfigError(
                "persona_patience stops a training by measurements: set persona_freq, the steps "
                "between two of them."
            )
        return
    for name in ("persona", "persona_heldout"):
        if not getattr(settings, name):
            raise ConfigError(f"persona_freq measures a persona: it needs {name}, a file.")
    if settings.objective == "reward":
        raise ConfigError(
            "persona_freq asks for replies, and objective = 'reward' trains a model that gives "
            "numbers: take it out."
        )


def _check_sequences(settings: Settings) -> None:
    """ConfigError for what cannot be divided among processes."""
    if settings.sequence_parallel_size == 1:
        return
    if settings.pairs:
        raise ConfigError(
            f"sequence_parallel_size = {settings.sequence_parallel_size} divides rows among processes, "
            f"and objective = '{settings.objective}' compares whole ones: set it to 1."
        )
    if settings.attention not in ("auto", "segments"):
        raise ConfigError(
            f"sequence_parallel_size = {settings.sequence_parallel_size} needs attention = 'auto', not "
            f"'{settings.attention}'."
        )


def _check_objective(settings: Settings) -> None:
    """ConfigError for an objective whose numbers are impossible or whose data is of another kind."""
    for name in ("dpo_beta", "orpo_lambda"):
        if getattr(settings, name) <= 0:
            raise ConfigError(f"{name} is {getattr(settings, name)}, it must be above 0.")
    smoothing = settings.dpo_label_smoothing
    if smoothing >= 0.5 or (smoothing and settings.dpo_loss_type not in ("sigmoid", "robust")):
        raise ConfigError(
            f"dpo_label_smoothing is {smoothing}: it must be below 0.5, and belongs to dpo_loss_type "
            "= 'sigmoid' or 'robust'."
        )
    formats = [source["format"] for source in settings.sources]
    for name in formats:
        if is_function_path(name):
            continue  # what it returns is known once it is called
        if (name in PREFERENCES) != settings.pairs:
            wanted = f"one of {', '.join(PREFERENCES)}" if settings.pairs else "of conversations"
            raise ConfigError(
                f"objective = '{settings.objective}' with dataset_format '{name}': the format must be "
                f"{wanted}."
            )
    if settings.pairs and settings.train_on_prompt:
        raise ConfigError(
            f"train_on_prompt has no meaning under objective = '{settings.objective}', which compares "
            "replies: take it out."
        )
    if settings.pairs and settings.overlong in ("cut", "truncate"):
        raise ConfigError(
            f"overlong = '{settings.overlong}' would take the replies that a pair compares: use "
            "'error' or 'drop'."
        )
    if settings.objective == "reward" and settings.evaluation_inputs:
        raise ConfigError(
            "evaluation_inputs asks for replies, and objective = 'reward' trains a model that gives "
            "numbers: take them out."
        )
    if settings.objective == "reward" and settings.mmlu_path:
        raise ConfigError(
            "mmlu_path asks for letters, and objective = 'reward' trains a model that gives "
            "numbers: take it out."
        )


def coerce_values(
    kind: type, values: Mapping[str, Any], where: str, all_of_them: str
) -> dict[str, Any]:
    """`values` with the types of `kind`'s fields; ConfigError for an unknown name or a wrong type.

    `where` is named in every complaint; `all_of_them` is a sentence that says where names are listed.
    """
    hints = typing.get_type_hints(kind)
    clean: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            raise ConfigError(
                f"{where}: there is no setting named '{name}'.{nearest(name, hints)} {all_of_them}"
            )
        clean[name] = _coerce(value, hints[name], f"{where}: {name}")
    return clean


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type that `hint` names, widened only where nothing is lost."""
    if isinstance(value, str) and hint is float and _is_number(value):
        value = float(value)  # MMEngine's option parser leaves '1e-4' a string
    if _matches_type(value, hint):
        if hint is float:
            return float(value)
        return tuple(value) if get_origin(hint) is tuple else value
    raise ConfigError(
        f"{where} should be {_describe_type(hint)}, not {value!r} ({type(value).__name__})."
    )


def _matches_type(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin in (types.UnionType, typing.Union):
        return any(_matches_type(value, choice) for choice in inner)
    if origin is list:
        return isinstance(value, list | tuple) and all(_matches_type(v, inner[0]) for v in value)
    if origin is tuple:
        return (
            isinstance(value, list | tuple)
            and len(value) == len(inner)
            and all(map(_matches_type, value, inner))
        )
    if origin is dict:
        return isinstance(value, Mapping)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _describe_type(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    return str(getattr(hint, "__name__", hint)) if not get_args(hint) else str(hint)
