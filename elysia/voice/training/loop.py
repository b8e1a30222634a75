"""A voice's training step: the discriminators' optimizer first, then the generator's.

The loop, its position in the data, exact resuming and checkpoints are those of the language model
(`train.engine.loop`, `train.distributed.strategy`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from torch import nn

from elysia.core.errors import ElysiaError
from elysia.train.distributed.strategy import SingleDeviceStrategy
from elysia.train.engine.loop import TrainLoop
from elysia.voice.training.generator import ClipBatch
from elysia.voice.training.model import DISCRIMINATOR, GENERATOR


class VoiceTrainLoop(TrainLoop):
    """A `TrainLoop` whose step has two optimizers."""

    def run_step(self, window: list[ClipBatch], data_time: float) -> None:  # type: ignore[override]
        """Update the discriminators, then the generator. Raises ElysiaError for a loss that is not finite."""
        runner, (batch,) = self.runner, window
        runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=window)
        model, optimizers = runner.strategy.unwrapped_model.train(), runner.strategy.optim_wrapper
        batch = batch.to(model.device)
        output = model.generate(batch)
        real = model.recorded_segments(batch, output)
        discriminator_loss = model.discriminator_loss(real, output)
        _step_optimizer(optimizers[DISCRIMINATOR], discriminator_loss)
        losses = model.generator_losses(batch, real, output)
        _step_optimizer(optimizers[GENERATOR], model.weighted_sum(losses))
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        values["discriminator"] = float(discriminator_loss.detach())
        self._check_finite(values)
        outputs = {"loss": torch.tensor(values["mel"]), **values}
        runner.call_hook(
            "after_train_iter", batch_idx=self._iter, data_batch=window, outputs=outputs
        )

    def _check_finite(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise ElysiaError(
                    "voice.loss_not_finite", name=name, value=value, step=self._iter + 1
                )


def _step_optimizer(optimizer: Any, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    optimizer.backward(loss)
    optimizer.step()
    optimizer.zero_grad()


class VoiceStrategy(SingleDeviceStrategy):
    """The single-device strategy with an optimizer for each half of the model."""

    def _with_trainable(self, optim_wrapper: Any) -> Any:
        halves: dict[str, nn.Module] = {
            GENERATOR: self.unwrapped_model.generator,
            DISCRIMINATOR: self.unwrapped_model.discriminator,
        }
        return OptimWrapperDict(
            **{
                name: build_optim_wrapper(half, dict(optim_wrapper))
                for name, half in halves.items()
            }
        )

    def build_param_scheduler(
        self, scheduler: Any, optim_wrapper: Any, default_args: Any = None
    ) -> dict[str, Any]:
        """A schedule for each optimizer. MMEngine's own method pops the run's length from a dict that it
        shares between the optimizers, so that the second one finds nothing there.
        """
        names = ("epoch_length", "max_epochs", "max_iters")
        known = {name: self.dispatch_kwargs[name] for name in names}
        return {
            name: self._build_param_scheduler(scheduler, optimizer, dict(known))
            for name, optimizer in optim_wrapper.items()
        }
