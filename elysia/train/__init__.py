"""Training: from settings to weights. Settings become a full MMEngine config, which MMEngine's runner
carries out.

`train` is the verb; `build_settings` and `run_training` are its parts for programs. What a later stage must
know of a run travels in `run_card.json`.
"""

from elysia.train.config.settings import Settings, build_settings, load_settings
from elysia.train.launch import build_runner, run_training, train

__all__ = [
    "Settings",
    "build_runner",
    "build_settings",
    "load_settings",
    "run_training",
    "train",
]
