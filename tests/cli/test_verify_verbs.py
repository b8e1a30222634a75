"""The verbs of the proofs: what they print, and with which exit code they end."""

from __future__ import annotations

from functools import partial

import pytest

from elysia.cli import main
from elysia.train import launch
from elysia.train.engine import rng
from tests.train.conftest import plain_settings, rows_file  # noqa: F401


@pytest.fixture
def config(tmp_path, plain_settings, monkeypatch):  # noqa: F811
    """A config file; its runs stay in this process."""
    path = tmp_path / "config.py"
    path.write_text("\n".join(f"{name} = {value!r}" for name, value in plain_settings.items()))

    def here(config, work_dir, resume, **_):
        launch.train(str(config), work_dir=str(work_dir), resume=str(resume) if resume else None)

    monkeypatch.setattr(
        launch, "train_subprocess", lambda *args, **kwargs: partial(here)(*args, **kwargs)
    )
    return str(path)


def test_resuming_is_shown_and_the_runs_are_removed(config, capsys, tmp_path):
    assert main(["verify-resume", config, "--steps", "1+2"]) == 0
    out = capsys.readouterr().out
    assert "1 steps and 2 after resuming are 3 steps, to the bit." in out
    assert "numbers in tensors compared" in out


def test_what_differs_is_named_and_ends_with_one(config, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(rng, "set_rng_state", lambda saved: None)
    work = tmp_path / "kept"
    assert main(["verify-resume", config, "--steps", "2+1", "--work-dir", str(work)]) == 1
    out = capsys.readouterr().out
    assert "Resuming is NOT exact." in out and "rng before is" in out
    assert any(work.iterdir())
    assert main(["verify-resume", config, "--work-dir", str(work)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_packing_is_shown_with_its_numbers_in_a_file(config, capsys, tmp_path):
    report = tmp_path / "report.json"
    assert main(["verify-packing", config, "--packs", "1", "--report", str(report)]) == 0
    assert "Samples in a pack do not touch each other." in capsys.readouterr().out
    assert '"gradient"' in report.read_text()


@pytest.mark.parametrize("flag", ["--rows", "--nproc", "--packs"])
def test_a_count_of_none_is_refused(config, capsys, flag):
    assert main(["verify-packing", config, flag, "0"]) == 2
    assert f"{flag} is 0; it must be 1 or more" in capsys.readouterr().err


def test_steps_that_are_none_are_refused(config, capsys):
    assert main(["verify-resume", config, "--steps", "many"]) == 2
    assert "N+M" in capsys.readouterr().err
