"""A cheap fingerprint of a model folder, to tell an adapter's own base from another one.

Knows nothing of torch: it reads files.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

from elysia.core.errors import ModelError

# What shapes the network or its positions. Names and versions that a re-save changes are left out.
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
SAMPLE_BYTES = 256  # bytes at the start, middle and end of each tensor


def compute_fingerprint(folder: str | Path) -> dict[str, Any]:
    """`{"files": n, "bytes": n, "sha256": hex}` of a folder's safetensors.

    The hash covers config.json's architecture, every tensor's name, dtype and shape, and samples
    of its bytes, in order of name: re-sharding does not change it, other weights do. Reads about
    a kilobyte a tensor. Raises ModelError when a file is missing or cut short.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder} holds no *.safetensors, so its weights cannot be told apart.")
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
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return [config.get(field) for field in ARCHITECTURE_FIELDS]
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder / 'config.json'} is missing or damaged ({error}).") from error


def _read_samples(stream: BinaryIO, path: Path) -> dict[str, bytes]:
    """For each tensor, its description and sampled bytes (format: safetensors' README)."""
    size = path.stat().st_size
    try:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(length) if length < size else b"")
        start = 8 + length
        found: dict[str, bytes] = {}
        for name, about in header.items():
            if name == "__metadata__":
                continue
            low, high = about["data_offsets"]
            if start + high > size:
                raise ValueError("it ends too soon")
            text = json.dumps([name, about["dtype"], about["shape"]])
            found[name] = text.encode() + _read_sample(stream, start + low, start + high)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is damaged or cut short ({error}). Fetch it anew.") from error
    return found


def _read_sample(stream: BinaryIO, low: int, high: int) -> bytes:
    if high - low <= 3 * SAMPLE_BYTES:
        stream.seek(low)
        return stream.read(high - low)
    found = b""
    for place in (low, (low + high - SAMPLE_BYTES) // 2, high - SAMPLE_BYTES):
        stream.seek(place)
        found += stream.read(SAMPLE_BYTES)
    return found
