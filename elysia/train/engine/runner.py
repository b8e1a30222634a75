"""MMEngine's runner, with what an exact resume and a quiet start need changed.

MMEngine 0.10.7 imports DeepSpeed when it is installed, for a strategy that no longer fits it and that is not
used here. Importing it is prevented below, which also saves seconds at every start.
"""

from __future__ import annotations

import sys
from pathlib import Path
from pprint import pformat
from typing import Any

from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer


def _import_mmengine_runner() -> Any:
    loaded = sys.modules.get("deepspeed")
    sys.modules["deepspeed"] = None  # type: ignore[assignment]
    try:
        import mmengine.runner
    finally:
        if loaded is None:
            del sys.modules["deepspeed"]
        else:
            sys.modules["deepspeed"] = loaded
    return mmengine.runner


_runner = _import_mmengine_runner()
_FlexibleRunner: Any = _runner.FlexibleRunner
# To be imported from here by whoever derives from them: a direct import could come first, and load DeepSpeed.
BaseLoop: Any = _runner.BaseLoop
BaseStrategy: Any = sys.modules["mmengine._strategy"].BaseStrategy


def class_path(target: Any) -> str:
    """The dotted path of a class or function, which MMEngine's config takes as `type`.

    >>> class_path(Path)
    'pathlib.Path'
    """
    return f"{target.__module__}.{target.__qualname__}"


class RunnerConfig(Config):  # type: ignore[misc]
    """A Config that is written out quickly: MMEngine's own asks yapf for the layout, which takes 4 s for a
    run's config, and a start writes it four times.
    """

    @property
    def pretty_text(self) -> str:
        """The config as a Python file that MMEngine reads back."""
        values = self.to_dict().items()
        return "".join(f"{k} = {pformat(v, width=100, sort_dicts=False)}\n" for k, v in values)


class TrainRunner(_FlexibleRunner):  # type: ignore[misc]
    """A FlexibleRunner whose resume is exact and whose log is short."""

    model: Any
    _train_loop: Any

    def build(self) -> dict[str, Any]:
        """Make everything that `train` makes before its first step; returns the first batch."""
        self._train_loop = self.build_train_loop(self._train_loop)
        loader = self.train_dataloader
        self.strategy.prepare(
            self.model,
            optim_wrapper=self.optim_wrapper,
            param_scheduler=self.param_schedulers,
            dispatch_kwargs={
                "epoch_length": len(loader),
                "max_epochs": self.max_epochs,
                "max_iters": self.max_iters,
                "train_micro_batch_size_per_gpu": loader.batch_size,
            },
        )
        self.model = self.strategy.model
        first: dict[str, Any] = next(iter(loader))
        return first

    def load_or_resume(self) -> None:
        """Continue from `resume`, a checkpoint's path, if one was given."""
        if not self._resume:
            return
        path = Path(self._resume)
        payload = self.strategy.restore(path)
        self.train_loop.seek(payload["progress"], payload["rng"][self.rank])
        self.resumed_card = payload.get("run_card")
        self.logger.info("Resumed from %s: step %d of %d", path, self.iter, self.max_iters)

    def close(self) -> None:
        """Release this run's log, scalars and pictures. MMEngine keeps them by name and second, and another
        run of this process within the same second would write into these files.
        """
        for registry in (MMLogger, MessageHub, Visualizer):
            registry._instance_dict.pop(self.experiment_name, None)

    def _log_env(self) -> None:
        """One line instead of the output of every compiler on the machine."""
        import torch
        import transformers

        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        self.logger.info(
            "torch %s, transformers %s on %s; %d process(es), %d thread(s), seed %s",
            torch.__version__, transformers.__version__, device, self.world_size,
            torch.get_num_threads(), self.seed,
        )  # fmt: skip

    def get_hooks_info(self) -> str:
        """Only the names: MMEngine's table of stages is thirty lines of every log."""
        return ", ".join(type(hook).__name__ for hook in self.hooks)
