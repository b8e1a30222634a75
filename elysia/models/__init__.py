"""Models and tokenizers: finding, loading, adapting, creating, running and saving them.

Importing the package itself does not import torch; its modules do.
"""

from importlib import import_module
from typing import Any

__all__ = [
    "add_lora",
    "compute_fingerprint",
    "generate_batch",
    "init_model",
    "load_causal_lm",
    "load_config",
    "load_reward_model",
    "load_tokenizer",
    "resolve_model",
    "save_model",
    "save_tokenizer",
    "train_tokenizer",
]

_MODULES = {
    "add_lora": "adapters",
    "compute_fingerprint": "fingerprint",
    "generate_batch": "batch_generate",
    "init_model": "tiny",
    "load_causal_lm": "loading",
    "load_config": "loading",
    "load_reward_model": "loading",
    "load_tokenizer": "loading",
    "resolve_model": "hub",
    "save_model": "saving",
    "save_tokenizer": "saving",
    "train_tokenizer": "tiny",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: torch and transformers take seconds, and most commands need neither.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
