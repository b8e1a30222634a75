"""What is refused before anything is loaded: what the device cannot do, a tokenizer too large.

Knows nothing of recipes.
"""

from __future__ import annotations

from importlib.util import find_spec

from elysia.core.errors import ConfigError, DeviceError, ModelError
from elysia.models import loading
from elysia.train.config.settings import Settings
from elysia.train.kernels import layer_compile, liger


def check_device(settings: Settings) -> None:
    """DeviceError for what this device cannot do, before anything is loaded."""
    kind = loading.pick_device().type
    cuda = kind == "cuda"
    if settings.dtype == "float16" and not cuda:
        raise DeviceError(
            "dtype = 'float16' needs a GPU: on a CPU a step takes some fifty times as long. Set "
            "dtype = 'auto'."
        )
    if settings.attention == "flash_attention_2" and not (cuda and find_spec("flash_attn")):
        lack = "the package flash-attn is not installed" if cuda else "flash attention needs a GPU"
        raise DeviceError(
            f"attention = 'flash_attention_2' cannot be used: {lack}. Set attention = 'auto'."
        )
    for name, kernels in (("torch_compile", layer_compile), ("liger_kernel", liger)):
        lack = kernels.missing_requirement(kind) if getattr(settings, name) else ""
        if lack:
            raise DeviceError(f"{name} = True cannot be used: {lack}. Set it to False.")


def check_compile(settings: Settings, deepspeed: str | None) -> None:
    """ConfigError for a DeepSpeed configuration under which nothing can be compiled."""
    if not (settings.torch_compile and deepspeed):
        return
    from elysia.train.distributed.deepspeed_strategy import load_deepspeed_config

    if load_deepspeed_config(deepspeed).get("zero_optimization", {}).get("stage", 0) == 3:
        raise ConfigError(
            f"torch_compile = True cannot be used with --deepspeed {deepspeed}: ZeRO-3 gathers the weights "
            "of each module as it is called, and a compiled layer calls none. Use deepspeed_zero2, or set "
            "torch_compile = False."
        )


def check_liger(settings: Settings, folder: str) -> None:
    """ModelError where the model in `folder` is none that Liger's kernels are put into."""
    if not settings.liger_kernel:
        return
    kind = loading.load_config(folder).model_type
    if kind not in liger.MODEL_TYPES:
        raise ModelError(
            f"liger_kernel = True cannot be used: it is for {', '.join(liger.MODEL_TYPES)}, and {folder} is "
            f"a {kind} model. Set it to False."
        )


def resolve_tokenizer(settings: Settings, folder: str) -> str:
    """Where the tokenizer is: its own folder if the settings name one, else the model's.

    ModelError when the model has no embedding for some of its tokens.
    """
    if not settings.tokenizer_name_or_path:
        return folder
    words = loading.resolve_model(settings.tokenizer_name_or_path, settings.hub)
    count = len(loading.load_tokenizer(words))
    rows = loading.load_config(folder).vocab_size
    if count > rows:
        raise ModelError(
            f"The tokenizer {settings.tokenizer_name_or_path} has {count} tokens and "
            f"{settings.pretrained_model_name_or_path} embeddings for {rows}. Enlarge the model "
            "first, or use its own tokenizer."
        )
    return str(words)
