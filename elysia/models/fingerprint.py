"""A cheap fingerprint of a model folder, which tells an adapter's own base from any other model.

It reads the files themselves, about a kilobyte per tensor, and needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

from elysia.core.errors import ModelError

# What shapes the network or its positions. Names and versions, which saving again changes, are left out.
ARCHITECTURE_FIELDS = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
)
SAMPLE_BYTES = 256  # read at the start, the middle and the end of each tensor


def compute_fingerprint(folder: str | Path) -> dict[str, Any]:
    """`{"files": n, "bytes": n, "sha256": hex}` of the safetensors in a folder.

    The hash covers the architecture in config.json and, in order of name, every tensor's name, dtype,
    shape and samples of its bytes: other weights change it, re-sharding does not. Raises ModelError
    when a file is missing or cut short.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError("models.no_safetensors", folder=folder)
    tensors: dict[str, bytes] = {}
    for path in files:
        with path.open("rb") as stream:
            tensors.update(_read_samples(stream, path))
    digest = hashlib.sha256(json.dumps(_read_architecture(folder)).encode())
    for name in sorted(tensors):
        digest.update(tensors[name])
    total = sum(path.stat().st_size for path in files)
    return {"files": len(files), "bytes": total, "sha256": digest.hexdigest()}


def _read_architecture(folder: Path) -> list[Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return [config.get(field) for field in ARCHITECTURE_FIELDS]
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            "models.config_missing_or_damaged", path=path, reason=str(error)
        ) from error


def _read_samples(stream: BinaryIO, path: Path) -> dict[str, bytes]:
    """Description and sampled bytes of each tensor (for the format see the README of safetensors)."""
    size = path.stat().st_size
    samples: dict[str, bytes] = {}
    try:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(length) if length < size else b"")
        start = 8 + length
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            low, high = entry["data_offsets"]
            if start + high > size:
                raise ValueError("it ends too soon")
            text = json.dumps([name, entry["dtype"], entry["shape"]])
            samples[name] = text.encode() + _read_sample(stream, start + low, start + high)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError("models.weights_damaged", path=path, reason=str(error)) from error
    return samples


def _read_sample(stream: BinaryIO, low: int, high: int) -> bytes:
    if high - low <= 3 * SAMPLE_BYTES:
        stream.seek(low)
        return stream.read(high - low)
    sample = b""
    for offset in (low, (low + high - SAMPLE_BYTES) // 2, high - SAMPLE_BYTES):
        stream.seek(offset)
        sample += stream.read(SAMPLE_BYTES)
    return sample
