"""A tiny base, and checkpoints of it as training leaves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from elysia.core.run_card import RunCard
from elysia.core.templates import get_stop_words, get_template
from elysia.train.config.settings import Settings

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def settings_for(base: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "data_path": "rows.json",
        "prompt_template": "internlm2_chat",
        "method": "lora",
        "lora_r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "SYSTEM": "你是爱莉希雅。",
        "dtype": "float32",
    }
    return Settings(pretrained_model_name_or_path=str(base), **(values | changes))


def card_for(settings: Settings, base: Path) -> RunCard:
    from elysia.models.loading import compute_fingerprint

    template = get_template(settings.prompt_template)
    return RunCard(
        stage="train",
        base_model=str(base),
        base_weights=compute_fingerprint(base),
        template=template.to_dict(),
        stop_words=list(get_stop_words(template)),
        system=settings.SYSTEM,
        method=settings.method,
        datasets=[{"path": "data/rows.json", "format": "xtuner", "rows": 3, "sha256": "0"}],
        config_sha256=settings.sha256(),
        versions={"elysia": "0.1.0"},
    )


def lora_weights(base: Path, settings: Settings, bits: int | None = None) -> dict[str, Any]:
    """Trained-looking adapter weights: every B is far from zero."""
    from elysia.models.adapters import add_lora, trainable_state_dict
    from elysia.models.loading import load_causal_lm

    torch.manual_seed(5)
    model = add_lora(
        load_causal_lm(base, dtype="float32", device="cpu", bits=bits),
        r=settings.lora_r,
        alpha=settings.lora_alpha,
        dropout=0.0,
        targets=settings.lora_target_modules,
        dora=settings.use_dora,
        rslora=settings.use_rslora,
    )
    state = trainable_state_dict(model)
    state = {
        name: torch.randn_like(w) * 0.2 if "lora_B" in name else w for name, w in state.items()
    }
    return {
        name: w * (1 + 0.3 * torch.rand_like(w)) if "magnitude" in name else w
        for name, w in state.items()
    }


def save_checkpoint(path: Path, weights: dict[str, Any], card: RunCard | None) -> Path:
    payload = {"state_dict": {f"llm.{name}": w for name, w in weights.items()}}
    torch.save(payload | ({"run_card": card.to_dict()} if card else {}), path)
    return path


@pytest.fixture
def lab() -> SimpleNamespace:
    """The functions of this file, for tests that vary what they make."""
    return SimpleNamespace(
        settings_for=settings_for,
        card_for=card_for,
        lora_weights=lora_weights,
        save_checkpoint=save_checkpoint,
    )


Trained = Callable[..., tuple[Settings, Path]]


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """Make a checkpoint of a LoRA training of `base`: (settings, path)."""

    def make(base: Path, **changes: Any) -> tuple[Settings, Path]:
        settings = settings_for(base, **changes)
        card = card_for(settings, base)
        weights = lora_weights(base, settings)
        return settings, save_checkpoint(tmp_path / "iter_7.pth", weights, card)

    return make


@pytest.fixture
def adapter_of(trained: Trained, tmp_path: Path) -> Callable[..., Path]:
    """Make an adapter folder for `base`."""

    def make(base: Path, **changes: Any) -> Path:
        from elysia.export.adapter import pth_to_hf

        settings, pth = trained(base, **changes)
        return pth_to_hf(settings, pth, tmp_path / f"adapter_{base.name}")

    return make
