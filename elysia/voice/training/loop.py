"""One step of a voice: the discriminators' optimizer, then the generator's, each with its state.

The loop, its place in the data and exact resuming are the language model's (`train.loop`); so are
checkpoints (`train.strategy`). Knows nothing of what the losses measure.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from torch import nn

from elysia.core.errors import ElysiaError
from elysia.train.distributed.strategy import SingleDevice
from elysia.train.engine.loop import TrainLoop
from elysia.voice.training.generator import ClipBatch
from elysia.voice.training.model import DISCRIMINATOR, GENERATOR


class VoiceTrainLoop(TrainLoop):
    """`train.loop.TrainLoop` whose step has two optimizers."""

    def run_step(self, window: list[ClipBatch], data_time: float) -> None:  # type: ignore[override]
        """Judge recorded and made sound, then learn to pass; ElysiaError when a loss is no number."""
        runner, (given,) = self.runner, window
        runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=window)
        model, optimizers = runner.strategy.unwrapped_model.train(), runner.strategy.optim_wrapper
        batch = given.to(model.device)
        made = model.make(batch)
        real = model.recorded(batch, made)
        judged = model.judge(real, made)
        _step_optimizer(optimizers[DISCRIMINATOR], judged)
        found = model.learn(batch, real, made)
        _step_optimizer(optimizers[GENERATOR], model.total(found))
        measured = {name: float(loss.detach()) for name, loss in found.items()}
        measured["discriminator"] = float(judged.detach())
        self._check(measured)
        outputs = {"loss": torch.tensor(measured["mel"]), **measured}
        runner.call_hook(
            "after_train_iter", batch_idx=self._iter, data_batch=window, outputs=outputs
        )

    def _check(self, measured: dict[str, float]) -> None:
        broken = [name for name, value in measured.items() if not math.isfinite(value)]
        if broken:
            raise ElysiaError(
                f"The {broken[0]} loss became {measured[broken[0]]} at step {self._iter + 1}. Lower lr, "
                "or set dtype = 'float32'; the last checkpoint is from before it."
            )


def _step_optimizer(optimizer: Any, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    optimizer.backward(loss)
    optimizer.step()
    optimizer.zero_grad()


class VoiceStrategy(SingleDevice):
    """`train.strategy.SingleDevice` with an optimizer for each half of the model."""

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
        """A schedule for each optimizer. MMEngine's own takes the run's length out of a dict that the
        second optimizer's schedule then finds empty.
        """
        names = ("epoch_length", "max_epochs", "max_iters")
        known = {name: self.dispatch_kwargs[name] for name in names}
        return {
            name: self._build_param_scheduler(scheduler, one, dict(known))
            for name, one in optim_wrapper.items()
        }
