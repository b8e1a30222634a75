"""`elysia train`: flags go through, the exit code comes back."""

import sys
import types

import pytest

from elysia import cli


@pytest.fixture
def launched(monkeypatch):
    """Stands in for elysia.train.launch; keeps the calls, returns the code it is told."""
    module = types.ModuleType("elysia.train.launch")
    module.calls, module.code = [], 0

    def train(config, **kwargs):
        module.calls.append((config, kwargs))
        return module.code

    module.train = train
    monkeypatch.setitem(sys.modules, "elysia.train.launch", module)
    return module


def test_flags_of_xtuner_are_handed_on(launched):
    words = (
        "train c.py --work-dir w --deepspeed deepspeed_zero2 --seed 7 --cfg-options lr=1e-4 a.b=x"
    )
    assert cli.main(words.split()) == 0
    [(config, kwargs)] = launched.calls
    assert config == "c.py"
    assert kwargs["work_dir"] == "w"
    assert kwargs["deepspeed"] == "deepspeed_zero2"
    assert kwargs["seed"] == 7
    assert kwargs["cfg_options"] == {"lr": 1e-4, "a.b": "x"}
    assert kwargs["resume"] is None
    assert kwargs["launcher"] == "none"


@pytest.mark.parametrize(
    ("flags", "resume"), [(["--resume"], "auto"), (["--resume", "i.pth"], "i.pth")]
)
def test_resume_takes_a_checkpoint_or_finds_the_last(launched, flags, resume):
    cli.main(["train", "c.py", *flags])
    assert launched.calls[0][1]["resume"] == resume


def test_cfg_options_may_be_given_twice(launched):
    cli.main(["train", "c.py", "--cfg-options", "a=1", "--cfg-options", "b=2"])
    assert launched.calls[0][1]["cfg_options"] == {"a": 1, "b": 2}


def test_a_failing_childs_exit_code_comes_through(launched):
    launched.code = 37
    assert cli.main(["train", "c.py"]) == 37


def test_old_launchers_rank_reaches_the_environment(launched, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "")
    monkeypatch.delenv("LOCAL_RANK")
    import os

    cli.main(["train", "c.py", "--launcher", "pytorch", "--local-rank", "1"])
    assert os.environ["LOCAL_RANK"] == "1"
