"""What happens around steps. Hooks read the run; only CheckpointHook writes its state. `EvaluationHook` is
the base of those that measure now and then."""

from elysia.train.hooks.checkpoint_hook import CheckpointHook
from elysia.train.hooks.evaluation_hooks import EvaluationHook

__all__ = ["CheckpointHook", "EvaluationHook"]
