"""Every random number generator that a run draws from, saved and restored as plain values, so that a
checkpoint needs no unpickling.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def get_rng_state() -> dict[str, Any]:
    """Python's, numpy's, torch's and, where there is a GPU, CUDA's state."""
    version, words, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    return {
        "python": [version, list(words), gauss],
        "numpy": {
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),  # type: ignore[call-overload,index]
            "pos": int(numpy_state["state"]["pos"]),  # type: ignore[call-overload,index]
            "has_gauss": int(numpy_state["has_gauss"]),  # type: ignore[call-overload]
            "gauss": float(numpy_state["gauss"]),  # type: ignore[call-overload]
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(saved: dict[str, Any]) -> None:
    """Continue where `get_rng_state()` was taken."""
    version, words, gauss = saved["python"]
    random.setstate((version, tuple(words), gauss))
    numpy_state = saved["numpy"]
    np.random.set_state(
        {
            "bit_generator": "MT19937",
            "state": {
                "key": numpy_state["key"].numpy().astype(np.uint32),
                "pos": numpy_state["pos"],
            },
            "has_gauss": numpy_state["has_gauss"],
            "gauss": numpy_state["gauss"],
        }
    )
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(saved["cuda"])


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """What happens inside (such as an evaluation chat) leaves the training's randomness as it was."""
    before = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(before)
