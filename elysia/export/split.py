"""One weight file a tensor: the finest cut, so that any part of a model can be fetched alone.

Reads safetensors, and pickled `.bin` files without executing them; writes safetensors. Knows
nothing of what the tensors are for.
"""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from elysia.core.errors import ExportError
from elysia.core.files import staged_folder
from elysia.export.shards import INDEX, OLD_INDEX, OLD_SINGLE, SINGLE, Shards, Spec, write_shards

_SKIPPED = (".safetensors", ".bin", ".pth", ".pt", ".h5", ".msgpack", ".onnx", ".gguf")


def split(src: str | Path, dst: str | Path) -> Path:
    """Write the model folder `src` into the absent or empty folder `dst`, a file for each tensor.

    Everything else of `src` is copied. Raises ExportError for a folder without weights, damaged
    files and a full disk; nothing half-written is left. Returns `dst`.
    """
    src, dst = Path(src), Path(dst)
    pickled = not (src / INDEX).exists() and not (src / SINGLE).exists()
    with staged_folder(dst) as staging:
        if pickled and ((src / OLD_INDEX).exists() or (src / OLD_SINGLE).exists()):
            _split_pickles(src, staging)
        else:
            shards = Shards(src)
            write_shards(staging, [shards.spec(name) for name in shards], shards.tensor, 1)
        for path in sorted(src.iterdir()):
            named = path.name in (INDEX, OLD_INDEX) or path.suffix in _SKIPPED
            if path.is_file() and not named and not path.name.startswith("."):
                shutil.copyfile(path, staging / path.name)
    return dst


def _split_pickles(src: Path, staging: Path) -> None:
    """One old file in memory at a time: each is read once, in order."""
    files = _pickles(src)
    specs, source = [], {}
    for path in files:
        for name, tensor in _read_pickle(path).items():
            specs.append(Spec(name, tensor.dtype, tuple(tensor.shape)))
            source[name] = path
    held: dict[Path, dict[str, Tensor]] = {}

    def tensor_of(name: str) -> Tensor:
        path = source[name]
        if path not in held:
            held.clear()
            held[path] = _read_pickle(path)
        return held[path][name]

    write_shards(staging, specs, tensor_of, 1)


def _pickles(src: Path) -> list[Path]:
    if not (src / OLD_INDEX).exists():
        return [src / OLD_SINGLE]
    try:
        listed = json.loads((src / OLD_INDEX).read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(listed.values()))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ExportError(f"{src / OLD_INDEX} is damaged: {error!r}. Fetch it again.") from error
    for name in names:
        if Path(name).name != name or not (src / name).is_file():
            raise ExportError(f"{src / OLD_INDEX} names {name}, which is not there.")
    return [src / name for name in names]


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ExportError(
            f"{path} holds more than tensors; it was not executed, and cannot be split."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise ExportError(f"{path} is damaged or cut short. Fetch it again.") from error
    if not isinstance(found, dict):
        raise ExportError(f"{path} holds a {type(found).__name__}, not weights by name.")
    return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
