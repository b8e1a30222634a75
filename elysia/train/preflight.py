"""What is refused before anything is loaded: what the device cannot do, a tokenizer too large.

Knows nothing of recipes.
"""

from __future__ import annotations

from importlib.util import find_spec

from elysia.core.errors import DeviceError, ModelError
from elysia.models import load
from elysia.train.settings import Settings


def check_device(settings: Settings) -> None:
    """DeviceError for what this device cannot do, before anything is loaded."""
    cuda = load.pick_device().type == "cuda"
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


def tokenizer_folder(settings: Settings, folder: str) -> str:
    """Where the tokenizer is: its own folder if the settings name one, else the model's.

    ModelError when the model has no embedding for some of its tokens.
    """
    if not settings.tokenizer_name_or_path:
        return folder
    words = load.resolve(settings.tokenizer_name_or_path, settings.hub)
    count = len(load.load_tokenizer(words))
    rows = load.load_config(folder).vocab_size
    if count > rows:
        raise ModelError(
            f"The tokenizer {settings.tokenizer_name_or_path} has {count} tokens and "
            f"{settings.pretrained_model_name_or_path} embeddings for {rows}. Enlarge the model "
            "first, or use its own tokenizer."
        )
    return str(words)
