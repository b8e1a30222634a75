"""GGUF files: reading their metadata and tokenizer, and serving them with llama.cpp in a child process."""

from elysia.core.lazy_imports import build_getattr

# Imported on first use: the child process imports this package too, and needs none of them.
_MODULES = {
    "GgufTokenizer": "gguf_reader",
    "LlamaServer": "llama_server",
    "read_gguf_header": "gguf_reader",
}

__all__ = list(_MODULES)
__getattr__ = build_getattr(__name__, _MODULES)
