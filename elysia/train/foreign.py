"""Reading tensors out of other programs' pickles without running them.

XTuner's and DeepSpeed's checkpoints hold loss histories and configuration objects beside the tensors.
Here every class outside a short list of tensor builders becomes an inert placeholder: nothing of the
file is imported or called. Knows nothing of what the tensors mean.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

_BUILDERS = {
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch", "device"),
}
_STORAGES = ("Float", "Half", "BFloat16", "Double", "Byte", "Char", "Short", "Int", "Long", "Bool")
_BUILDERS |= {("torch", f"{name}Storage") for name in _STORAGES}


class Inert:
    """Stands where an object of another program's class stood."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return self

    def __setstate__(self, state: Any) -> None: ...

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module, name) if (module, name) in _BUILDERS else Inert


class _PickleModule:
    """What `torch.load` takes as `pickle_module`."""

    __name__ = "elysia.train.foreign"
    Unpickler = _Unpickler

    @staticmethod
    def load(stream: Any, **kwargs: Any) -> Any:
        return _Unpickler(stream, **kwargs).load()


def load_inert(path: Path) -> Any:
    """The content of a torch file with every unknown object replaced by an `Inert`."""
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_PickleModule())
