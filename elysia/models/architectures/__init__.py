"""Architectures that transformers does not know: InternLM2's network and its tokenizer."""

from elysia.core.lazy_imports import build_getattr

# Imported on first use: LMDeploy's environment can import the network, but not the tokenizer.
_MODULES = {
    "InternLM2ForCausalLM": "internlm2",
    "load_internlm2_tokenizer": "internlm2_tokenizer",
}

__all__ = list(_MODULES)
__getattr__ = build_getattr(__name__, _MODULES)
