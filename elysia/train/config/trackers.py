"""Experiment trackers that receive a run's scalars beside the log and TensorBoard: W&B and SwanLab, by
`report_to`.

Both are optional packages, which read their keys from their own login or environment: no key passes through
settings, and none is logged.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from elysia.core.errors import ConfigError, nearest

# name -> (package, MMEngine's backend)
TRACKERS = {
    "wandb": ("wandb", "WandbVisBackend"),
    "swanlab": ("swanlab", "swanlab.integration.mmengine.SwanlabVisBackend"),
}
ALWAYS_ON = ("tensorboard", "none")  # how other trainers spell what is done here anyway


def parse_trackers(report_to: str | list[str]) -> list[str]:
    """The trackers that a setting names, each once; ConfigError for an unknown one."""
    names = [report_to] if isinstance(report_to, str) else report_to
    for name in names:
        if name and name not in (*TRACKERS, *ALWAYS_ON):
            raise ConfigError(
                "train.unknown_tracker",
                name=name,
                hint=nearest(name, TRACKERS),
                trackers=list(TRACKERS),
            )
    return list(dict.fromkeys(name for name in names if name in TRACKERS))


def build_vis_backends(
    report_to: str | list[str], name: str, work_dir: str
) -> list[dict[str, Any]]:
    """MMEngine's backends; ConfigError when a tracker's package is not installed."""
    backends: list[dict[str, Any]] = [
        {"type": "LocalVisBackend"},
        {"type": "TensorboardVisBackend"},
    ]
    for tracker in parse_trackers(report_to):
        package, backend = TRACKERS[tracker]
        if find_spec(package) is None:
            raise ConfigError("train.tracker_not_installed", name=tracker, package=package)
        key = "experiment_name" if tracker == "swanlab" else "name"
        arguments = {"project": "elysia", key: name}
        backends.append({"type": backend, "save_dir": work_dir, "init_kwargs": arguments})
    return backends
