"""The run card of a fine-tune: what later stages must know of it, and the texts and dtype that a recipe
shares with it. Knows nothing of MMEngine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from elysia.core.paths import resolve_bundled
from elysia.core.persona import Persona
from elysia.core.run_card import RunCard
from elysia.core.templates import get_stop_words, get_template
from elysia.models import loading
from elysia.train.config.settings import Settings


def system_text(settings: Settings) -> str:
    """The system prompt: what the config says, else what the persona's card says."""
    if settings.SYSTEM is not None or not settings.persona:
        return settings.SYSTEM or ""
    persona = Persona.load(resolve_bundled(settings.persona))
    # The card's own line: the whole card would stand before every row.
    return persona.system_line()


def evaluation_system(settings: Settings) -> str:
    """The system prompt of evaluation chats: their own, else the one of training."""
    own = settings.evaluation_system
    return system_text(settings) if own is None else own


def get_dtype(settings: Settings) -> str:
    """The name of the dtype that matrix products run in."""
    if settings.dtype != "auto":
        return settings.dtype
    return str(loading.pick_dtype(loading.pick_device())).removeprefix("torch.")


def run_card(settings: Settings, folder: str) -> RunCard:
    """What later stages must know of this run; metrics and row counts are added as they are known."""
    from elysia.core.files import compute_sha256

    template = get_template(settings.prompt_template)
    sources = [
        {"path": path, "format": s["format"], "sha256": compute_sha256(Path(resolve_bundled(path)))}
        for s in settings.sources
        for path in ([s["path"]] if isinstance(s["path"], str) else s["path"])
        if Path(resolve_bundled(path)).is_file()
    ]
    return RunCard(
        stage="train",
        base_model=settings.pretrained_model_name_or_path,
        base_weights=loading.compute_fingerprint(Path(folder)),
        template=template.to_dict(),
        stop_words=list(get_stop_words(template)),
        system=system_text(settings),
        persona=settings.persona,
        method=settings.method,
        datasets=sources,
        config_sha256=settings.sha256(),
        versions=collect_versions(),
        metrics={},
        extra={
            # What converting must know and no shape shows.
            "training": {
                "dtype": get_dtype(settings),
                "double_quant": settings.double_quant,
                "lora_r": settings.lora_r,
                "lora_alpha": settings.lora_alpha,
                "use_rslora": settings.use_rslora,
                "objective": settings.objective,
                "hub": settings.hub,
            }
        },
    )


def collect_versions() -> dict[str, str]:
    """Of everything that shapes the weights."""
    from importlib.metadata import version

    import elysia

    names = ("transformers", "peft", "bitsandbytes", "deepspeed", "mmengine-lite")
    return {"elysia": elysia.__version__, "torch": torch.__version__} | {
        n: _get_version(version, n) for n in names
    }


def _get_version(version: Any, name: str) -> str:
    from importlib.metadata import PackageNotFoundError

    try:
        return str(version(name))
    except PackageNotFoundError:
        return "absent"
