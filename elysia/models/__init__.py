"""Models and tokenizers: finding, loading, adapting, creating, running and saving them.

Importing the package itself does not import torch; its modules do.
"""

from elysia.core.lazy_imports import build_getattr

# Imported on first use: torch and transformers take seconds, and most commands need neither.
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

__all__ = list(_MODULES)
__getattr__ = build_getattr(__name__, _MODULES)
