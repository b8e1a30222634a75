import pytest

from elysia.core.errors import ConfigError
from elysia.train.config import trackers
from elysia.train.config.settings import build_settings


def test_the_log_and_tensorboard_are_always_written():
    for nothing in ("", "none", "tensorboard", []):
        kinds = [b["type"] for b in trackers.build_vis_backends(nothing, "x", "w")]
        assert kinds == ["LocalVisBackend", "TensorboardVisBackend"]


def test_a_tracker_that_is_not_installed_is_a_sentence(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    for name in ("wandb", "swanlab"):
        with pytest.raises(ConfigError, match=f"pip install {name}"):
            trackers.build_vis_backends([name], "x", "w")


def test_an_installed_tracker_gets_the_runs_name_and_no_key(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: object())
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    *_, wandb, swanlab = trackers.build_vis_backends(["wandb", "swanlab"], "mine", "w")
    assert wandb["init_kwargs"]["name"] == swanlab["init_kwargs"]["experiment_name"] == "mine"
    assert "secret" not in str((wandb, swanlab))


def test_an_unknown_tracker_is_refused_with_the_settings(plain_settings):
    with pytest.raises(ConfigError, match="Did you mean 'wandb'"):
        build_settings(plain_settings | {"report_to": "wandbb"}, "here")
