"""DPO's reference where all weights train: what the untrained model gives to every pair.

Measured once, before the first step, and stored as `reference.safetensors` in the work dir for resumed runs:
a second model would double the memory, and a pass of its own at every step the time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from elysia.core.errors import CheckpointError
from elysia.train import checkpoint
from elysia.train.distributed.comm import all_gather_object, barrier
from elysia.train.engine import rng
from elysia.train.hooks.evaluation_hooks import build_collate

REFERENCE_FILE = "reference.safetensors"


class DPOReferenceHook(Hook):  # type: ignore[misc]
    """Fills `reference` of the training's and held-out datasets. Args: `collate`, as in training."""

    priority = "HIGH"  # before anything that measures a loss

    def __init__(self, collate: Any) -> None:
        self.collate = build_collate(collate)

    def before_train(self, runner: Any) -> None:
        path = Path(runner.work_dir) / REFERENCE_FILE
        if runner.iter:
            self._load(runner, path)
            return
        references = {}
        for name, data in iter_datasets(runner):
            data.reference = self._measure(runner, data)
            references[f"{name}.{data.tokens.sha256()}"] = data.reference
            runner.logger.info("Reference of %d pairs (%s) measured", len(data.reference), name)
        if runner.rank == 0:
            staging = path.with_name(f".{REFERENCE_FILE}.writing")
            checkpoint.save_weights(references, staging)
            staging.replace(path)
        barrier()

    def _measure(self, runner: Any, data: Any) -> Tensor:
        """Log-probabilities of (pairs, 2), float32; every process takes its share of the packs."""
        model, world = runner.model, runner.world_size
        model.eval()
        own: dict[int, list[float]] = {}
        with torch.no_grad(), rng.preserve_rng_state():
            for index in range(runner.rank, -(-len(data) // world) * world, world):
                # ZeRO-3 gathers weights together: a process without a pack runs a dummy one.
                pack = data[index if index < len(data) else ~0]
                scores = model(self.collate([pack]), scores_only=True)
                if index < len(data):
                    own |= dict(zip(data.packs[index], scores.tolist(), strict=True))
        model.train()
        by_pair = {pair: row for part in all_gather_object(own) for pair, row in part.items()}
        return torch.tensor([by_pair[pair] for pair in sorted(by_pair)])

    def _load(self, runner: Any, path: Path) -> None:
        """Take the reference from beside the checkpoint: a resumed run's model has already changed."""
        stored_at = Path(runner._resume).parent / REFERENCE_FILE
        try:
            stored = load_file(stored_at)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                "train.reference_unreadable", path=stored_at, reason=error
            ) from error
        for name, data in iter_datasets(runner):
            key = f"{name}.{data.tokens.sha256()}"
            if key not in stored:
                raise CheckpointError("train.reference_of_other_pairs", path=stored_at)
            data.reference = stored[key]
        if runner.rank == 0 and stored_at.resolve() != path.resolve():
            shutil.copyfile(stored_at, path)
        barrier()


def iter_datasets(runner: Any) -> Iterator[tuple[str, Any]]:
    """Everything that pairs are drawn from, by name."""
    yield "train", runner.train_dataloader.dataset
    for hook in runner.hooks:
        if hasattr(hook, "data"):
            yield "heldout", hook.data
