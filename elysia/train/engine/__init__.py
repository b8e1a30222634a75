"""What drives a run: MMEngine's runner as we need it, the loop, optimizer and schedule, and random state."""

from elysia.train.engine.runner import RunnerConfig, TrainRunner, class_path

__all__ = ["RunnerConfig", "TrainRunner", "class_path"]
