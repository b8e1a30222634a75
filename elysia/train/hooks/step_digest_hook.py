"""Writes digests of every step's data, randomness and losses, and can end a run early: `verify-resume`
compares two runs by them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

from elysia.train.engine import rng


class StepDigestHook(Hook):  # type: ignore[misc]
    """A line of `trace_RANK.jsonl` in the work dir for each step: digests of its data and of every
    random generator before and after it, and all that it logs.

    Args: `until`, the step after which the run stops as a killed one would have, with a checkpoint;
    0 lets it go on to the end.
    """

    def __init__(self, until: int = 0) -> None:
        self.until = until

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.before = {
            "data": compute_digest(strip_reference(data_batch)),
            "rng before": compute_digest(rng.get_rng_state()),
        }

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        step = runner.iter + 1
        # The loop hands the loss over as a tensor of one number; repr of a float is exact.
        logged = {name: float(value) for name, value in outputs.items()}
        line = {
            "step": step,
            **self.before,
            **logged,
            "rng after": compute_digest(rng.get_rng_state()),
        }
        with open(Path(runner.work_dir) / f"trace_{runner.rank}.jsonl", "a") as trace:
            trace.write(json.dumps(line) + "\n")
        if step == self.until:
            runner.train_loop.stop_training = True  # the checkpoint hook, which is later, saves


def strip_reference(window: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Micro-batches as they came from the data, without what a reference model added."""
    return [{key: batch[key] for key in batch if key != "reference"} for batch in window]


def compute_digest(value: Any) -> str:
    """Twelve hex digits of everything in nested lists, dicts, tensors and plain values."""
    sha256 = hashlib.sha256()
    for part in _iter_parts(value):
        sha256.update(part)
    return sha256.hexdigest()[:12]


def _iter_parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{key}:".encode()
            yield from _iter_parts(inner)
    elif isinstance(value, list | tuple) and not all(isinstance(v, int) for v in value):
        for inner in value:
            yield from _iter_parts(inner)
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    else:
        yield f"{value!r};".encode()
