"""Proof that samples in a pack do not touch each other: `verify_packing`.

The same samples go through the training's own model, strategy and collation twice, packed and each
alone; losses and gradients must agree as far as the number format can. Knows nothing of how
processes are started.
"""

from __future__ import annotations

import copy
import dataclasses
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from elysia.core.errors import DataError
from elysia.train.config.provenance import get_dtype
from elysia.train.config.settings import Settings
from elysia.train.data.dataset import Pack
from elysia.train.distributed.strategy import all_gather_object, all_reduce_sum
from elysia.train.engine.loop import count_units
from elysia.train.verify.resume_proof import build_subset

# (nats a labelled token or pair, share of the gradient): what rounding may give. In float32 sums of
# another order differ in the sixth digit; 16-bit formats keep 8 (bfloat16) or 11 bits of each product.
TOLERANCES = {
    "float32": (1e-5, 1e-4),
    "float16": (5e-3, 2e-2),
    "bfloat16": (1e-2, 5e-2),
}
Dtype = Literal["float32", "float16", "bfloat16"]
MIN_GRADIENT_SHARE = (
    0.01  # a tensor's gradient below this share of the largest one is measured against that
)


@dataclasses.dataclass(frozen=True)
class PackingProof:
    """Of one number format: what was compared, the largest difference of a pack's loss (nats a
    labelled token, or pair), and of a tensor's gradient (norm of the difference over its norm)."""

    dtype: str
    packs: int
    samples: int
    tensors: int
    loss: float
    gradient: float
    worst: str  # the name of that tensor

    @property
    def tolerance(self) -> tuple[float, float]:
        """Of loss and gradient."""
        return TOLERANCES[self.dtype]

    @property
    def holds(self) -> bool:
        return self.loss <= self.tolerance[0] and self.gradient <= self.tolerance[1]


def get_checked_dtypes(settings: Settings) -> list[Dtype]:
    """float32, in which a leak stands out, and the config's own."""
    own: Any = get_dtype(settings)
    return list(dict.fromkeys(["float32", own]))


def verify_packing(
    settings: Settings,
    dtype: Dtype,
    folder: Path,
    *,
    packs: int = 4,
    rows: int = 256,
    deepspeed: str | None = None,
    launcher: str = "none",
) -> PackingProof:
    """Compare in this process, or with the others that `launcher` started; all of them get the
    same proof.

    packs: how many are compared, those of the most samples. rows: how many of each source are
    packed. folder: for what a run leaves. DataError when no pack holds two samples.
    """
    from elysia.train.launch import build_runner

    settings = _make_deterministic(build_subset(settings, rows), dtype)
    runner = build_runner(settings, f"packing_{dtype}", folder, deepspeed, None, launcher)
    try:
        runner.build()
        for hook in runner.hooks:
            if type(hook).__name__ == "ReferenceHook":
                hook.before_train(runner)
        return _compare(runner, dtype, packs)
    finally:
        runner.close()


def _make_deterministic(settings: Settings, dtype: Dtype) -> Settings:
    """`settings` with nothing drawn at random in a pass, and one plain step to take."""
    return dataclasses.replace(
        settings,
        dtype=dtype,
        pack_to_max_length=True,
        lora_dropout=0.0,
        neftune_noise_alpha=0.0,
        heldout=0.0,
        evaluation_inputs=[],
        dataloader_num_workers=0,
        lr=1e-3,
        lr_schedule="constant",
        warmup_ratio=0.0,
        warmup_steps=0,
        weight_decay=0.0,
        overrides=settings.overrides | {"log_level": "WARNING"},
    )


def _compare(runner: Any, dtype: str, count: int) -> PackingProof:
    for module in runner.strategy.unwrapped_model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    packed, single, silent = _choose_packs(runner.train_dataloader.dataset, count)
    # One step from where training begins: LoRA's second factor starts at zero, and while it is
    # there the first one has no gradient to compare.
    _run_step(runner, packed, silent)
    for group in runner.strategy.optim_wrapper.optimizer.param_groups:
        group["lr"] = 0.0  # from here on a step only clears the gradients
    together, of_packs = _run_step(runner, packed, silent)
    alone, of_samples = _run_step(runner, single, silent)
    gradient, worst = _find_largest_difference(of_packs, of_samples)
    return PackingProof(
        dtype=dtype,
        packs=len(packed),
        samples=sum(len(pack["lengths"]) for (pack,) in packed),
        tensors=len(of_samples),
        loss=max(abs(a - b) for a, b in zip(together, alone, strict=True)),
        gradient=gradient,
        worst=worst,
    )


def _choose_packs(data: Any, count: int) -> tuple[list[list[Pack]], list[list[Pack]], Pack]:
    """The packs of the most samples, those samples each in a pack of its own, and a pack that
    teaches nothing."""
    fullest = sorted(range(len(data)), key=lambda i: -len(data.packs[i]))[:count]
    chosen = [i for i in fullest if len(data.packs[i]) > 1]
    if not chosen:
        raise DataError(
            f"None of {len(data)} packs holds two samples, so there is nothing to compare: raise "
            "max_length."
        )
    singly = copy.copy(data)
    singly.packs = [[group] for i in chosen for group in data.packs[i]]
    bounds = pairwise(accumulate((len(data.packs[i]) for i in chosen), initial=0))
    single = [[singly[i] for i in range(start, end)] for start, end in bounds]
    return [[data[i]] for i in chosen], single, singly[~0]


def _run_step(
    runner: Any, groups: list[list[Pack]], silent: Pack
) -> tuple[list[float], dict[str, Tensor]]:
    """A step over `groups` of packs: the loss of each group, nats a unit, and the gradients.

    Each process takes every world-th group, a pack a micro-batch, as many of them as the others.
    """
    strategy, collate = runner.strategy, runner.train_dataloader.collate_fn
    rank, world = runner.rank, runner.world_size
    mine = {i: groups[i] for i in range(rank, len(groups), world)}
    turns = [(i, collate([pack])) for i, group in mine.items() for pack in group]
    most = max(all_gather_object(len(turns)))
    turns += [(-1, collate([silent]))] * (most - len(turns))
    units = all_reduce_sum(sum(count_units(batch) for _, batch in turns))
    runner.model.train()
    sums: dict[int, float] = {}
    counts: dict[int, int] = {}
    for number, (i, batch) in enumerate(turns, 1):
        with strategy.sync_context(number == len(turns)):
            loss = runner.model(batch)
            strategy.backward(loss * (world / max(units, 1)))
        sums[i] = sums.get(i, 0.0) + float(loss.detach())
        counts[i] = counts.get(i, 0) + count_units(batch)
    means = {i: sums[i] / max(counts[i], 1) for i in mine}
    everywhere = {i: mean for part in all_gather_object(means) for i, mean in part.items()}
    gradients = strategy.gradients()
    strategy.step()
    return [everywhere[i] for i in sorted(everywhere)], gradients


def _find_largest_difference(
    first: dict[str, Tensor], second: dict[str, Tensor]
) -> tuple[float, str]:
    """The largest relative difference of two sets of gradients, and the tensor it is in."""
    assert first.keys() == second.keys() and first, "the same tensors train in both passes"
    norms = {name: float(second[name].double().norm()) for name in second}
    least = MIN_GRADIENT_SHARE * max(norms.values())
    return max(
        (
            float((first[name].double() - second[name].double()).norm())
            / max(norms[name], least, 1e-30),
            name,
        )
        for name in second
    )
