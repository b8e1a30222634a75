"""Where scalars go beside the log and TensorBoard: W&B or SwanLab, by `report_to`.

Both are packages of their own, which read their keys from their own login or environment: no key passes
through settings, and none is logged. Knows nothing of what is measured.
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
ALWAYS_ON = ("tensorboard", "none")  # as other trainers spell what is done anyway


def parse_trackers(report_to: str | list[str]) -> list[str]:
    """The trackers that a setting names; ConfigError for one that there is not."""
    given = [report_to] if isinstance(report_to, str) else report_to
    for name in given:
        if name and name not in (*TRACKERS, *ALWAYS_ON):
            raise ConfigError(
                f"report_to = '{name}' is no tracker.{nearest(name, TRACKERS)} Choose of "
                f"{', '.join(TRACKERS)}; TensorBoard is always written."
            )
    return list(dict.fromkeys(name for name in given if name in TRACKERS))


def build_vis_backends(
    report_to: str | list[str], name: str, work_dir: str
) -> list[dict[str, Any]]:
    """MMEngine's backends; ConfigError when a tracker's package is not installed."""
    found: list[dict[str, Any]] = [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}]
    for tracker in parse_trackers(report_to):
        package, kind = TRACKERS[tracker]
        if find_spec(package) is None:
            raise ConfigError(
                f"report_to = '{tracker}' needs the package {package}, which is not installed: pip "
                f"install {package}, or take report_to out."
            )
        key = "experiment_name" if tracker == "swanlab" else "name"
        found.append(
            {"type": kind, "save_dir": work_dir, "init_kwargs": {"project": "elysia", key: name}}
        )
    return found
