"""Safetensors folders, read and written one tensor at a time.

Memory holds one tensor, whatever the size of the model: names, dtypes and shapes alone fix a file's
layout, so its header is written first and the bytes follow as they are produced
(https://huggingface.co/docs/safetensors: 8 bytes of header length, a JSON header, the data).
`split_per_tensor` writes one file per tensor, so that any part of a model can be downloaded alone; it
also reads pickled `.bin` files, without executing them.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from elysia.core.errors import ExportError
from elysia.core.files import staged_folder

INDEX_FILE = "model.safetensors.index.json"
WEIGHTS_FILE = "model.safetensors"
PICKLE_INDEX_FILE = "pytorch_model.bin.index.json"
PICKLE_FILE = "pytorch_model.bin"

SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_CODES = {dtype: code for code, dtype in SAFETENSORS_DTYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor before its values: enough to lay out a file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the values, in bytes."""
        return prod(self.shape) * self.dtype.itemsize


class ShardReader:
    """The tensors of a model folder, by name; iterates over their names in file order.

    Raises ExportError for a folder without safetensors, a missing shard or one that is cut short.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._specs: dict[str, TensorSpec] = {}
        self._file_of: dict[str, Path] = {}
        for path in _list_weight_files(self.folder):
            for spec in read_shard_header(path):
                self._specs[spec.name] = spec
                self._file_of[spec.name] = path

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def spec(self, name: str) -> TensorSpec:
        """Dtype and shape of a tensor, without reading it."""
        return self._specs[name]

    def tensor(self, name: str) -> Tensor:
        """One tensor, on the CPU."""
        path = self._file_of[name]
        try:
            with safe_open(str(path), framework="pt") as file:
                tensor: Tensor = file.get_tensor(name)
                return tensor
        except (SafetensorError, OSError) as error:
            raise ExportError(
                "export.tensor_unreadable", path=path, name=name, reason=str(error)
            ) from error


def read_shard_header(path: Path) -> list[TensorSpec]:
    """What a safetensors file holds, in the order of its bytes; ExportError when it is damaged."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > size - 8:
                raise ValueError("it ends inside its header")
            header: dict[str, Any] = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"][0])
        end = max((entry["data_offsets"][1] for _, entry in entries), default=0)
        if size < 8 + length + end:
            raise ValueError(f"{8 + length + end - size} bytes are missing at its end")
        unknown = {entry["dtype"] for _, entry in entries} - SAFETENSORS_DTYPES.keys()
        if unknown:
            raise ExportError("export.unsupported_dtypes", path=path, dtypes=sorted(unknown))
        return [
            TensorSpec(n, SAFETENSORS_DTYPES[e["dtype"]], tuple(e["shape"])) for n, e in entries
        ]
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ExportError("export.file_damaged", path=path, reason=str(error)) from error


def write_shards(
    folder: Path,
    specs: Sequence[TensorSpec],
    produce: Callable[[str], Tensor],
    max_bytes: int,
) -> list[Path]:
    """Write the tensors that `produce` returns, in the order of `specs`, into files of `max_bytes`.

    A larger tensor gets a file of its own. A single file is `model.safetensors`; several are numbered
    and listed in an index. Peak memory: one tensor.
    """
    plan = _plan_files(specs, max_bytes)
    many = len(plan) > 1
    names = [f"model-{i:05d}-of-{len(plan):05d}.safetensors" for i in range(1, len(plan) + 1)]
    paths = [folder / name for name in (names if many else [WEIGHTS_FILE])]
    for path, group in zip(paths, plan, strict=True):
        _write_file(path, group, produce)
    if many:
        index = {
            "metadata": {"total_size": sum(spec.nbytes for spec in specs)},
            "weight_map": {
                spec.name: path.name
                for path, group in zip(paths, plan, strict=True)
                for spec in group
            },
        }
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")
    return paths


def parse_size(text: str | int) -> int:
    """Bytes of a size such as "2GB" (decimal) or "512MiB" (binary).

    >>> parse_size("2GB"), parse_size("1.5 MiB"), parse_size(4096)
    (2000000000, 1572864, 4096)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", str(text), re.IGNORECASE)
    size = 0
    if match:
        base = 1024 if match[3] else 1000
        size = int(float(match[1]) * base ** " KMGT".index(match[2].upper() or " "))
    if size < 1:
        raise ExportError("export.not_a_size", text=repr(text))
    return size


def _list_weight_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ExportError("export.no_model_folder", folder=folder)
    if (folder / INDEX_FILE).exists():
        return _read_index(folder / INDEX_FILE)
    if (folder / WEIGHTS_FILE).exists():
        return [folder / WEIGHTS_FILE]
    if (folder / PICKLE_INDEX_FILE).exists() or (folder / PICKLE_FILE).exists():
        raise ExportError("export.only_pickles", folder=folder)
    raise ExportError("export.no_weight_files", folder=folder, file=WEIGHTS_FILE, index=INDEX_FILE)


def _read_index(index: Path) -> list[Path]:
    try:
        listed: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(listed.values()))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ExportError("export.file_damaged", path=index, reason=repr(error)) from error
    for name in names:
        # A name with a folder in it could lead anywhere.
        if Path(name).name != name or not (index.parent / name).is_file():
            raise ExportError("export.file_of_index_missing", index=index, name=name)
    return [index.parent / name for name in names]


def _plan_files(specs: Sequence[TensorSpec], max_bytes: int) -> list[list[TensorSpec]]:
    plan: list[list[TensorSpec]] = [[]]
    room = max_bytes
    for spec in specs:
        if plan[-1] and spec.nbytes > room:
            plan.append([])
            room = max_bytes
        plan[-1].append(spec)
        room -= spec.nbytes
    return plan


def _write_file(path: Path, specs: Sequence[TensorSpec], produce: Callable[[str], Tensor]) -> None:
    # Wide dtypes first: then every tensor starts at a multiple of its item size.
    specs = sorted(specs, key=lambda spec: -spec.dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for spec in specs:
        header[spec.name] = {
            "dtype": _CODES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [offset, offset + spec.nbytes],
        }
        offset += spec.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for spec in specs:
            tensor = produce(spec.name)
            assert (tensor.dtype, tuple(tensor.shape)) == (spec.dtype, spec.shape), spec.name
            flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            stream.write(flat.numpy().data)
        stream.flush()
        os.fsync(stream.fileno())


_NOT_COPIED = (".safetensors", ".bin", ".pth", ".pt", ".h5", ".msgpack", ".onnx", ".gguf")


def split_per_tensor(src: str | Path, dst: str | Path) -> Path:
    """Write the model folder `src` to the absent or empty folder `dst`, with one file per tensor.

    Everything else in `src` is copied. Raises ExportError for a folder without weights, damaged files
    and a full disk; nothing half-written is left behind. Returns `dst`.
    """
    src, dst = Path(src), Path(dst)
    pickled = not (src / INDEX_FILE).exists() and not (src / WEIGHTS_FILE).exists()
    with staged_folder(dst) as staging:
        if pickled and ((src / PICKLE_INDEX_FILE).exists() or (src / PICKLE_FILE).exists()):
            _split_pickles(src, staging)
        else:
            shards = ShardReader(src)
            write_shards(staging, [shards.spec(name) for name in shards], shards.tensor, 1)
        for path in sorted(src.iterdir()):
            named = path.name in (INDEX_FILE, PICKLE_INDEX_FILE) or path.suffix in _NOT_COPIED
            if path.is_file() and not named and not path.name.startswith("."):
                shutil.copyfile(path, staging / path.name)
    return dst


def _split_pickles(src: Path, staging: Path) -> None:
    """Keeps one pickled file in memory at a time, and reads each once for its layout and once in order."""
    files = _list_pickles(src)
    specs, source = [], {}
    for path in files:
        for name, tensor in _read_pickle(path).items():
            specs.append(TensorSpec(name, tensor.dtype, tuple(tensor.shape)))
            source[name] = path
    cached: dict[Path, dict[str, Tensor]] = {}

    def produce(name: str) -> Tensor:
        path = source[name]
        if path not in cached:
            cached.clear()
            cached[path] = _read_pickle(path)
        return cached[path][name]

    write_shards(staging, specs, produce, 1)


def _list_pickles(src: Path) -> list[Path]:
    index = src / PICKLE_INDEX_FILE
    return _read_index(index) if index.exists() else [src / PICKLE_FILE]


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ExportError("export.pickle_holds_code", path=path) from error
    except (RuntimeError, EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExportError("export.file_damaged", path=path, reason=reason) from error
    if not isinstance(content, dict):
        raise ExportError("export.not_weights", path=path, kind=type(content).__name__)
    return {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
