"""Architectures that transformers does not know: InternLM2's network and its tokenizer."""

from importlib import import_module
from typing import Any

_MODULES = {"InternLM2ForCausalLM": "internlm2", "load_internlm2_tokenizer": "internlm2_tokenizer"}

__all__ = ["InternLM2ForCausalLM", "load_internlm2_tokenizer"]


def __getattr__(name: str) -> Any:
    # Imported on first use: LMDeploy's environment can import the network, but not the tokenizer.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
