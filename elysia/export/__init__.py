"""From a checkpoint to a model that others can use: adapter folder, merged weights, GGUF, AWQ.

Each step reads folders, writes one complete folder or file with a run card, and verifies it against
what it was made from.
"""

from importlib import import_module
from typing import Any

__all__ = [
    "merge_adapter",
    "pth_to_hf",
    "quantize_awq",
    "quantize_gguf",
    "split_per_tensor",
]

_MODULES = {
    "merge_adapter": "merge",
    "pth_to_hf": "adapter",
    "quantize_awq": "awq",
    "quantize_gguf": "gguf_writer",
    "split_per_tensor": "shards",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: these modules need torch, gguf and more, which take seconds.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
