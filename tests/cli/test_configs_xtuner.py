"""`elysia check-configs` and `elysia migrate`: what is printed, and the exit codes."""

import json
from pathlib import Path

import pytest

from elysia import cli

CONFIG = (Path(__file__).parents[1] / "compat" / "xtuner" / "whole_config.txt").read_text()

LLAVA = "from xtuner.model import LLaVAModel\nmodel = dict(type=LLaVAModel)\ntrain_dataloader = dict()\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "text.py").write_text(CONFIG)
    (tmp_path / "a" / "images.py").write_text(LLAVA)
    (tmp_path / "__init__.py").write_text("")
    return tmp_path


def test_a_folder_is_judged_config_by_config(folder, capsys):
    assert cli.main(["check-configs", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("runs with changes a/text.py: ") for line in lines)
    assert any(
        line.startswith("not supported     a/images.py: ") and "images" in line for line in lines
    )
    assert any("packing (1): packed rows are whole" in line for line in lines)
    assert lines[-1] == "1 not supported, 1 runs with changes"


def test_json_holds_changes_reasons_and_counts(folder, capsys):
    assert cli.main(["check-configs", str(folder), "--json", "--device", "cuda"]) == 0
    printed = json.loads(capsys.readouterr().out)
    images, text = printed["configs"]
    assert printed["counts"] == {"not supported": 1, "runs with changes": 1}
    assert "LLaVAModel" in images["reasons"][0]
    assert "packing" in text["changes"] and "float16" not in text["changes"]


def test_a_file_that_does_not_run_is_a_failure_and_the_others_are_judged(folder, capsys):
    (folder / "broken.py").write_text("import torch\nlr = 1 / 0\n")
    assert cli.main(["check-configs", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "does not run      broken.py" in out and "ZeroDivisionError" in out
    assert "1 does not run" in out.splitlines()[-1]


def test_build_makes_what_would_be_trained_from_a_stand_in(folder, capsys):
    assert cli.main(["check-configs", str(folder / "a"), "--build"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("1 built, 1 tried")


def test_what_does_not_build_is_told_and_fails(folder, capsys):
    odd = CONFIG.replace("task_type='CAUSAL_LM'", "target_modules=['no_such_layer']")
    (folder / "a" / "text.py").write_text(odd)
    assert cli.main(["check-configs", str(folder / "a"), "--build"]) == 1
    assert "no linear layer called no_such_layer" in capsys.readouterr().out


def test_an_empty_folder_is_told(tmp_path, capsys):
    assert cli.main(["check-configs", str(tmp_path)]) == 1
    assert "no .py file" in capsys.readouterr().err


def test_migrate_writes_a_flat_config_and_lists_the_changes(folder, tmp_path, capsys):
    target = tmp_path / "flat.py"
    assert cli.main(["migrate", str(folder / "a" / "text.py"), "-o", str(target)]) == 0
    out = capsys.readouterr()
    assert "- packed rows are whole" in out.out and "needed first" in out.err
    assert "pretrained_model_name_or_path = 'owner/base'" in target.read_text()
    assert cli.main(["migrate", str(folder / "a" / "text.py"), "-o", str(target)]) == 1
    assert cli.main(["migrate", str(target)]) == 1
    assert "flat settings already" in capsys.readouterr().err


def test_migrate_says_why_a_config_cannot_be_trained_and_writes_nothing(folder, tmp_path, capsys):
    target = tmp_path / "flat.py"
    assert cli.main(["migrate", str(folder / "a" / "images.py"), "-o", str(target)]) == 1
    assert "images" in capsys.readouterr().err and not target.exists()
