"""`train`: from a command's arguments to a training run in this process."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elysia.core.errors import ConfigError, DeviceError, nearest
from elysia.core.i18n import Text
from elysia.core.paths import get_configs_folder
from elysia.core.run_card import RunCard
from elysia.train.launch import make_work_dir, resolve_resume
from elysia.voice.dataset.manifest import MANIFEST_FILE, ClipManifest
from elysia.voice.training.settings import VoiceSettings, load_settings

log = logging.getLogger(__name__)


def find_config(name: str) -> Path:
    """The file that `name` means: a path, or a config of configs/voice by its name."""
    path = Path(name)
    if path.is_file():
        return path
    known = {file.stem: file for file in sorted((get_configs_folder() / "voice").glob("*.py"))}
    if path.stem in known and path.parent == Path("."):
        return known[path.stem]
    raise ConfigError(
        "voice.no_config", name=name, hint=nearest(path.stem, known),
        known=[*known] or Text("voice.none"),
    )  # fmt: skip


def train(
    config: str,
    *,
    work_dir: str | None = None,
    resume: str | None = None,
    seed: int | None = None,
    cfg_options: Mapping[str, Any] | None = None,
) -> Path:
    """Train a voice to the end; returns the work dir.

    resume: None, "auto" for the work dir's newest checkpoint, or a checkpoint's path.
    """
    options = dict(cfg_options or {})
    if seed is not None:
        options["seed"] = seed
    path = find_config(config)
    settings = load_settings(path, options)
    folder = Path(work_dir or Path("work_dirs") / path.stem)
    make_work_dir(folder)
    run_training(settings, path.stem, folder, resolve_resume(resume, folder))
    return folder


def run_training(settings: VoiceSettings, name: str, work_dir: Path, resume: Path | None) -> None:
    """Train in this process."""
    from elysia.train.engine.runner import RunnerConfig, TrainRunner
    from elysia.voice.training import initialize
    from elysia.voice.training.builder import build_runner_config

    manifest = ClipManifest.read(Path(settings.data_path))
    folder = work_dir / initialize.START_FOLDER
    if resume is None or not folder.is_dir():
        initialize.make_start_folder(settings, manifest.shape, work_dir)
    content = build_runner_config(
        settings, name=name, work_dir=str(work_dir), start=str(folder), dtype=resolve_dtype(settings),
        card=build_run_card(settings, manifest).to_dict(), resume=str(resume) if resume else None,
    )  # fmt: skip
    dumped = work_dir / f"{name}.py"
    dumped.touch()  # MMEngine reads a config's file, and dumps the config under its name
    config = RunnerConfig(content, filename=str(dumped))
    if settings.overrides:
        config.merge_from_dict(settings.overrides)
    runner = TrainRunner.from_cfg(config)
    try:
        runner.train()
    finally:
        runner.close()


def resolve_dtype(settings: VoiceSettings) -> str:
    """The dtype of matrix products: on a CPU float32 unless the settings name another.

    Raises DeviceError for float16 without a GPU.
    """
    import torch

    from elysia.models.device import pick_dtype

    cuda = torch.cuda.is_available()
    if settings.dtype == "float16" and not cuda:
        raise DeviceError("voice.float16_needs_gpu")
    if settings.dtype != "auto":
        return settings.dtype
    return str(pick_dtype(torch.device("cuda"))).removeprefix("torch.") if cuda else "float32"


def build_run_card(settings: VoiceSettings, manifest: ClipManifest) -> RunCard:
    """What the export needs: the speaker, the consent, the dataset and the settings."""
    from elysia.core.files import compute_sha256
    from elysia.train.config.provenance import collect_versions

    source = Path(settings.data_path) / MANIFEST_FILE
    return RunCard(
        stage="train",
        base_model=settings.base or "random weights",
        method="full",
        datasets=[{"path": settings.data_path, "format": "voice", "rows": len(manifest.clips),
                   "sha256": compute_sha256(source)}],
        config_sha256=settings.sha256(),
        versions=collect_versions(),
        extra={"voice": {"speaker": settings.speaker, "seconds": round(manifest.seconds, 2),
                         "consent": json.loads(json.dumps(manifest.consent))}},
    )  # fmt: skip
