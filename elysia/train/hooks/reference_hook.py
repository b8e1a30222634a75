"""What the untrained model gives to every pair: DPO's reference where all weights train.

Taken once, before the first step, and kept as `reference.safetensors` in the work dir for resumed
parts: a second model would double the memory, and a pass of its own at every step the time. Knows
nothing of losses.
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
from elysia.train.distributed.strategy import all_gather_object, barrier
from elysia.train.engine import rng

REFERENCE_FILE = "reference.safetensors"


class ReferenceHook(Hook):  # type: ignore[misc]
    """Args: `collate`, as in training. Fills `reference` of the training's and held-out datasets."""

    priority = "HIGH"  # before anything that measures a loss

    def __init__(self, collate: Any) -> None:
        from mmengine.registry import FUNCTIONS

        self.collate: Any = FUNCTIONS.get(collate["type"])
        self.collate_args = {k: v for k, v in collate.items() if k != "type"}

    def before_train(self, runner: Any) -> None:
        path = Path(runner.work_dir) / REFERENCE_FILE
        if runner.iter:
            self._take_back(runner, path)
            return
        found = {}
        for name, data in iter_datasets(runner):
            data.reference = self._scores(runner, data)
            found[f"{name}.{data.tokens.sha256()}"] = data.reference
            runner.logger.info("Reference of %d pairs (%s) taken", len(data.reference), name)
        if runner.rank == 0:
            staging = path.with_name(f".{REFERENCE_FILE}.writing")
            checkpoint.save_weights(found, staging)
            staging.replace(path)
        barrier()

    def _scores(self, runner: Any, data: Any) -> Tensor:
        """(pairs, 2), float32; every process takes its share of the packs."""
        model, world = runner.model, runner.world_size
        model.eval()
        mine: dict[int, list[float]] = {}
        with torch.no_grad(), rng.preserve_rng_state():
            for index in range(runner.rank, -(-len(data) // world) * world, world):
                # ZeRO-3 gathers weights together: who has no pack left runs a silent one.
                pack = data[index if index < len(data) else ~0]
                scores = model(self.collate([pack], **self.collate_args), scores_only=True)
                if index < len(data):
                    mine |= dict(zip(data.packs[index], scores.tolist(), strict=True))
        model.train()
        whole = {pair: row for part in all_gather_object(mine) for pair, row in part.items()}
        return torch.tensor([whole[pair] for pair in sorted(whole)])

    def _take_back(self, runner: Any, path: Path) -> None:
        """A resumed run's model is no reference any more: what was taken at its start is."""
        beside = Path(runner._resume).parent / REFERENCE_FILE
        try:
            stored = load_file(beside)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{beside} cannot be read ({error}): it holds what the untrained model gave to each "
                "pair, and without it this run cannot go on. Start it anew."
            ) from error
        for name, data in iter_datasets(runner):
            key = f"{name}.{data.tokens.sha256()}"
            if key not in stored:
                raise CheckpointError(
                    f"{beside} was taken of other pairs than this config's: resume with the data "
                    "and settings that the run began with."
                )
            data.reference = stored[key]
        if runner.rank == 0 and beside.resolve() != path.resolve():
            shutil.copyfile(beside, path)
        barrier()


def iter_datasets(runner: Any) -> Iterator[tuple[str, Any]]:
    """Everything that pairs are drawn from, by name."""
    yield "train", runner.train_dataloader.dataset
    for hook in runner.hooks:
        if hasattr(hook, "data"):
            yield "heldout", hook.data
