"""Proof that samples in a pack do not touch each other: `verify_packing`.

The same samples go through the training's own model, strategy and collation twice, packed and each
alone; losses and gradients must agree as far as the number format allows.
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
from elysia.train.config.settings import Settings
from elysia.train.data.dataset import Pack
from elysia.train.distributed.comm import all_gather_object, all_reduce_sum
from elysia.train.engine.loop import count_units
from elysia.train.hooks.dpo_reference_hook import DPOReferenceHook
from elysia.train.verify.resume_proof import build_subset

# (nats per labelled token or pair, share of the gradient): differences that rounding may cause. In float32,
# sums in another order differ in the sixth digit; 16-bit formats keep 8 (bfloat16) or 11 bits of each
# product.
TOLERANCES = {
    "float32": (1e-5, 1e-4),
    "float16": (5e-3, 2e-2),
    "bfloat16": (1e-2, 5e-2),
}
Dtype = Literal["float32", "float16", "bfloat16"]
# A gradient below this share of the largest one is compared relative to that share: its own digits are noise.
MIN_GRADIENT_SHARE = 0.01


@dataclasses.dataclass(frozen=True)
class PackingProof:
    """For one number format: what was compared, the largest difference of a pack's loss (nats per
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
    own: Any = settings.compute_dtype
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
            if isinstance(hook, DPOReferenceHook):
                hook.before_train(runner)
        return _compare(runner, dtype, packs)
    finally:
        runner.close()


def _make_deterministic(settings: Settings, dtype: Dtype) -> Settings:
    """`settings` without anything random in a pass, for one plain step."""
    return settings.replace(
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
    packed, single, dummy = _choose_packs(runner.train_dataloader.dataset, count)
    # One step first: LoRA's second factor starts at zero, and while it is zero the first one has no
    # gradient to compare.
    _run_step(runner, packed, dummy)
    for group in runner.strategy.optim_wrapper.optimizer.param_groups:
        group["lr"] = 0.0  # from here on a step only clears the gradients
    packed_losses, packed_gradients = _run_step(runner, packed, dummy)
    single_losses, single_gradients = _run_step(runner, single, dummy)
    gradient, worst = _find_largest_difference(packed_gradients, single_gradients)
    return PackingProof(
        dtype=dtype,
        packs=len(packed),
        samples=sum(len(pack["lengths"]) for (pack,) in packed),
        tensors=len(single_gradients),
        loss=max(abs(a - b) for a, b in zip(packed_losses, single_losses, strict=True)),
        gradient=gradient,
        worst=worst,
    )


def _choose_packs(data: Any, count: int) -> tuple[list[list[Pack]], list[list[Pack]], Pack]:
    """The packs of the most samples, those samples each in a pack of its own, and a dummy pack."""
    fullest = sorted(range(len(data)), key=lambda i: -len(data.packs[i]))[:count]
    chosen = [i for i in fullest if len(data.packs[i]) > 1]
    if not chosen:
        raise DataError("train.packs_of_one_sample", packs=len(data))
    unpacked = copy.copy(data)
    unpacked.packs = [[group] for i in chosen for group in data.packs[i]]
    bounds = pairwise(accumulate((len(data.packs[i]) for i in chosen), initial=0))
    single = [[unpacked[i] for i in range(start, end)] for start, end in bounds]
    return [[data[i]] for i in chosen], single, unpacked[~0]


def _run_step(
    runner: Any, groups: list[list[Pack]], dummy: Pack
) -> tuple[list[float], dict[str, Tensor]]:
    """A step over `groups` of packs: the loss of each group, nats per unit, and the gradients.

    Each process takes every world-th group, a pack per micro-batch, and dummies up to the number of the
    others.
    """
    strategy, collate = runner.strategy, runner.train_dataloader.collate_fn
    rank, world = runner.rank, runner.world_size
    own = {i: groups[i] for i in range(rank, len(groups), world)}
    batches = [(i, collate([pack])) for i, group in own.items() for pack in group]
    count = max(all_gather_object(len(batches)))
    batches += [(-1, collate([dummy]))] * (count - len(batches))
    units = all_reduce_sum(sum(count_units(batch) for _, batch in batches))
    runner.model.train()
    sums: dict[int, float] = {}
    counts: dict[int, int] = {}
    for number, (i, batch) in enumerate(batches, 1):
        with strategy.sync_context(number == len(batches)):
            loss = runner.model(batch)
            strategy.backward(loss * (world / max(units, 1)))
        sums[i] = sums.get(i, 0.0) + float(loss.detach())
        counts[i] = counts.get(i, 0) + count_units(batch)
    means = {i: sums[i] / max(counts[i], 1) for i in own}
    losses = {i: mean for part in all_gather_object(means) for i, mean in part.items()}
    gradients = strategy.gradients()
    strategy.step()
    return [losses[i] for i in sorted(losses)], gradients


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
