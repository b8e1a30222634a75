"""Checkpoints on disk: written whole or not at all, read without executing anything.

A checkpoint is `iter_N.pth`, N in optimizer steps. On one device or under DDP it is a file; under
DeepSpeed it is a folder with `weights.safetensors` (the trainable weights, consolidated) beside
`shared.pth` and a `rank_R.pth` for each process. Only trainable weights are stored: the frozen base is
named in the run card.

Checkpoints of XTuner and DeepSpeed hold loss histories and configuration objects beside the tensors. They are
read as untrusted: every class outside a short list of tensor builders becomes an inert placeholder, so that
nothing of the file is imported or called.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from elysia.core.errors import CheckpointError
from elysia.core.files import is_disk_full, write_atomic
from elysia.core.i18n import Text
from elysia.core.run_card import RunCard

LAST = "last_checkpoint"
BEST = "best_checkpoint"
WEIGHTS = "weights.safetensors"
SHARED = "shared.pth"
FORMAT = "elysia-checkpoint/1"


def save(payload: dict[str, Any], path: Path) -> None:
    """Write `payload` so that `path` is the old file or the whole new one, whatever happens.

    Raises CheckpointError when the disk refuses; nothing half-written stays behind.
    """
    temporary = path.with_name(f".{path.name}.writing")
    with _translate_errors(path), _remove_on_failure(temporary):
        with open(temporary, "wb") as stream:
            torch.save(payload, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)


def save_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file in place; the caller stages the folder around it."""
    with _translate_errors(path):
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, str(path))


def load(path: Path, *, untrusted: bool = False) -> dict[str, Any]:
    """Read a checkpoint file onto the CPU without executing anything in it.

    Ours hold tensors and plain values only, and anything else is refused. With `untrusted`, objects of
    other programs are skipped and the tensors beside them are read.
    """
    if not path.exists():
        raise CheckpointError("train.no_checkpoint", path=path)
    try:
        # Mapped into memory: a conversion then reads the weights and not the optimizer beside them.
        payload = torch.load(path, map_location="cpu", weights_only=True, mmap=not untrusted)
    except pickle.UnpicklingError as error:
        if not untrusted:
            raise CheckpointError("train.checkpoint_not_plain", path=path) from error
        payload = _load_other_program(path)
    except (RuntimeError, EOFError, zipfile.BadZipFile, OSError, ValueError) as error:
        raise _build_damage_error(path, error) from error
    if not isinstance(payload, dict):
        raise CheckpointError("train.not_a_checkpoint", path=path, kind=type(payload).__name__)
    return payload


def _load_other_program(path: Path) -> Any:
    try:
        return load_untrusted(path)
    except Exception as error:  # a damaged pickle can raise anything
        raise _build_damage_error(path, error) from error


def _build_damage_error(path: Path, error: BaseException) -> CheckpointError:
    return CheckpointError("train.checkpoint_damaged", path=path, reason=_first_line(error))


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The trainable weights of a checkpoint, on the CPU, named as inside the language model.

    Reads our files and folders, XTuner's `.pth` files and its ZeRO-1/2 folders. Keys look like
    `base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight` under LoRA.
    """
    path = Path(path)
    if path.is_dir():
        weights = _load_folder_weights(path)
    else:
        payload = load(path, untrusted=True)
        weights = payload.get("state_dict", payload)
        weights = weights if isinstance(weights, dict) else {}
    named = {
        name.removeprefix("module.").removeprefix("llm."): tensor
        for name, tensor in weights.items()
        if isinstance(tensor, Tensor)
    }
    if not named:
        raise CheckpointError("train.checkpoint_without_weights", path=path)
    return named


def _load_folder_weights(path: Path) -> dict[str, Tensor]:
    if (path / WEIGHTS).exists():
        try:
            return load_file(str(path / WEIGHTS))
        except (SafetensorError, OSError) as error:
            raise _build_damage_error(path / WEIGHTS, error) from error
    states = path / "mp_rank_00_model_states.pt"
    if states.exists():
        module = load(states, untrusted=True).get("module")
        return module if isinstance(module, dict) else {}
    if list(path.glob("zero_pp_rank_*")):
        raise CheckpointError("train.checkpoint_of_zero3_shards", path=path)
    raise CheckpointError("train.folder_without_weights", path=path, file=WEIGHTS)


def load_run_card(path: str | Path) -> RunCard:
    """The run card that a checkpoint of ours carries; CheckpointError when it has none."""
    path = Path(path)
    if path.is_dir():
        card = RunCard.read(path)
        if card is None:
            raise CheckpointError("train.checkpoint_without_card", path=path)
        return card
    stored = load(path).get("run_card")
    if not isinstance(stored, dict):
        raise CheckpointError("train.checkpoint_without_card", path=path)
    return RunCard.from_dict(stored)


def last_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest whole checkpoint of a work dir, or None.

    `last_checkpoint` holds an absolute path, of which only the file name is used: once a work dir was
    copied, the path is another run's.
    """
    work_dir = Path(work_dir)
    if pointed := _read_pointer(work_dir / LAST):
        return pointed
    checkpoints = list_checkpoints(work_dir)
    return checkpoints[-1] if checkpoints else None


def list_checkpoints(work_dir: str | Path) -> list[Path]:
    """The checkpoints of a work dir, the oldest first."""
    return sorted(Path(work_dir).glob("iter_*.pth"), key=parse_step)


def best_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint that a run with early stopping found best, or None."""
    return _read_pointer(Path(work_dir) / BEST)


def _read_pointer(pointer: Path) -> Path | None:
    if not pointer.exists():
        return None
    named = pointer.parent / Path(pointer.read_text().strip()).name
    return named if parse_step(named) >= 0 and named.exists() else None


def write_pointer(path: Path, pointer: str = LAST) -> None:
    """Make `last_checkpoint` (or BEST) name `path`, atomically."""
    write_atomic(path.parent / pointer, str(path.resolve()))


def prune(work_dir: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints and the best; below 1 none is removed."""
    if keep < 1:
        return
    best = best_checkpoint(work_dir)
    for old in list_checkpoints(work_dir)[:-keep]:
        if old != best:
            remove(old)


def remove(path: Path) -> None:
    """Remove a checkpoint, file or folder. A folder is renamed first, so that nobody reads half of it."""
    if path.is_dir():
        doomed = path.with_name(f".{path.name}.removing")
        os.replace(path, doomed)
        shutil.rmtree(doomed)
    else:
        path.unlink(missing_ok=True)


def parse_step(path: Path) -> int:
    """N of `iter_N.pth`, or -1.

    >>> parse_step(Path("work_dirs/x/iter_120.pth"))
    120
    """
    match = re.fullmatch(r"iter_(\d+)\.pth", path.name)
    return int(match[1]) if match else -1


@contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    """Turn an error of the disk into a CheckpointError."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        full = is_disk_full(error)
        raise CheckpointError(
            "train.checkpoint_not_written",
            path=path,
            reason=Text("train.disk_full") if full else _first_line(error),
            folder=path.parent,
        ) from error


@contextmanager
def _remove_on_failure(temporary: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system supports it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


_BUILDERS = {
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch", "device"),
}
_STORAGES = ("Float", "Half", "BFloat16", "Double", "Byte", "Char", "Short", "Int", "Long", "Bool")
_BUILDERS |= {("torch", f"{name}Storage") for name in _STORAGES}


class UnknownObject:
    """A placeholder for an object of another program's class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> UnknownObject:
        return self

    def __setstate__(self, state: Any) -> None: ...

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module, name) if (module, name) in _BUILDERS else UnknownObject


class _PickleModule:
    """What `torch.load` takes as `pickle_module`."""

    __name__ = "elysia.train.checkpoint"
    Unpickler = _TensorUnpickler

    @staticmethod
    def load(stream: Any, **kwargs: Any) -> Any:
        return _TensorUnpickler(stream, **kwargs).load()


def load_untrusted(path: Path) -> Any:
    """The content of a torch file with every unknown object replaced by an `UnknownObject`."""
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_PickleModule())
