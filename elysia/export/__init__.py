"""From a checkpoint to a model that others can use: adapter folder, merged weights, GGUF, AWQ.

Each step reads folders, writes one complete folder or file with a run card, and verifies it against
what it was made from.
"""

from elysia.core.lazy_imports import build_getattr

# Imported on first use: these modules need torch, gguf and more, which take seconds.
_MODULES = {
    "merge_adapter": "merge",
    "pth_to_hf": "adapter",
    "quantize_awq": "awq",
    "quantize_gguf": "gguf_writer",
    "split_per_tensor": "shards",
}

__all__ = list(_MODULES)
__getattr__ = build_getattr(__name__, _MODULES)
