"""GGUF files: reading their metadata and tokenizer, and serving them with llama.cpp in a child process."""

from importlib import import_module
from typing import Any

_MODULES = {
    "GgufTokenizer": "gguf_reader",
    "LlamaServer": "llama_server",
    "read_gguf_header": "gguf_reader",
}

__all__ = ["GgufTokenizer", "LlamaServer", "read_gguf_header"]


def __getattr__(name: str) -> Any:
    # Imported on first use: the child process imports this package too, and needs none of them.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
