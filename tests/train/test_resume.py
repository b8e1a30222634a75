"""A run that was killed and resumed ends as the run that was never killed: bit for bit, on a CPU."""

import json
import random
import time
from pathlib import Path

import pytest
import torch

from elysia.core.errors import CheckpointError
from elysia.train import checkpoint
from elysia.train.launch import train
from tests.exact import STATE, same


def config(folder, settings):
    path = folder / "run.py"
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    return str(path)


def final(work_dir):
    path = checkpoint.last_checkpoint(work_dir)
    return checkpoint.load(path)


PLUS = {"method": "qlora", "use_dora": True, "use_rslora": True, "loraplus_lr_ratio": 8.0}


@pytest.mark.parametrize(
    "method", [{"method": "lora"}, {"method": "qlora"}, {"method": "full"}, PLUS], ids=str
)
def test_a_resumed_run_ends_with_the_same_weights_optimizer_and_randomness(
    tmp_path, plain_settings, method
):
    path = plain_settings["data_path"]
    weighed = [{"path": path, "weight": 0.7}, {"path": path, "weight": 0.3}]
    resumes_exactly(
        tmp_path,
        plain_settings
        | method
        | {"evaluation_inputs": ["你好"], "heldout": 2, "data_path": weighed},
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "lora"},
        {"method": "qlora"},
        {"method": "full", "lr": 1e-3},
        {"method": "qlora", "objective": "orpo"},
        {"method": "qlora", "objective": "reward"},
    ],
    ids=str,
)
def test_a_resumed_run_of_pairs_ends_as_the_one_that_was_never_stopped(
    tmp_path, pair_settings, changes
):
    resumes_exactly(tmp_path, pair_settings | changes | {"heldout": 4, "max_epochs": 3})


def test_dpo_of_all_weights_is_not_resumed_without_its_reference_or_on_other_pairs(
    tmp_path, pair_settings
):
    settings = pair_settings | {"method": "full", "max_steps": 2}
    train(config(tmp_path, settings), work_dir=str(tmp_path / "w"))
    last = str(tmp_path / "w" / "iter_2.pth")
    run = config(tmp_path, settings | {"max_steps": 3, "seed": 7, "SYSTEM": "别的"})
    with pytest.raises(CheckpointError, match="taken of other pairs"):
        train(run, work_dir=str(tmp_path / "w"), resume=last)
    (tmp_path / "w" / "reference.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"reference.safetensors cannot be read"):
        train(run, work_dir=str(tmp_path / "w"), resume=last)


def resumes_exactly(tmp_path, settings):
    run = config(tmp_path, settings)
    assert train(run, work_dir=str(tmp_path / "whole")) == 0
    whole = final(tmp_path / "whole")
    assert whole["progress"]["step"] > 4
    assert train(run, work_dir=str(tmp_path / "cut"), cfg_options={"max_steps": 0}) == 0
    for later in sorted((tmp_path / "cut").glob("iter_*.pth"), key=checkpoint.parse_step)[1:]:
        later.unlink()
    (tmp_path / "cut" / "last_checkpoint").unlink()
    assert train(run, work_dir=str(tmp_path / "cut"), resume="auto") == 0
    resumed = final(tmp_path / "cut")
    for part in STATE:
        assert same(whole[part], resumed[part]), part


def test_resuming_a_finished_run_changes_nothing(tmp_path, plain_settings):
    run = config(tmp_path, plain_settings | {"max_steps": 2})
    train(run, work_dir=str(tmp_path / "w"))
    before = final(tmp_path / "w")
    assert train(run, work_dir=str(tmp_path / "w"), resume="auto") == 0
    assert same(before["state_dict"], final(tmp_path / "w")["state_dict"])


def test_resuming_with_no_checkpoint_yet_starts_from_the_beginning(
    tmp_path, plain_settings, caplog
):
    run = config(tmp_path, plain_settings | {"max_steps": 1})
    assert train(run, work_dir=str(tmp_path / "w"), resume="auto") == 0
    assert "starts from the beginning" in caplog.text
    assert final(tmp_path / "w")["progress"]["step"] == 1


def test_a_missing_checkpoint_is_a_sentence(tmp_path, plain_settings):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*iter_7"):
        train(
            config(tmp_path, plain_settings),
            work_dir=str(tmp_path),
            resume=str(tmp_path / "iter_7.pth"),
        )


def test_weights_without_the_state_of_a_run_are_not_resumed(tmp_path, plain_settings):
    torch.save({"state_dict": {}}, tmp_path / "iter_1.pth")
    with pytest.raises(CheckpointError, match="can be converted and merged, not resumed"):
        train(
            config(tmp_path, plain_settings),
            work_dir=str(tmp_path),
            resume=str(tmp_path / "iter_1.pth"),
        )


def kill_and_resume(python, tmp_path: Path, settings: dict, kills: int) -> None:
    """Kill -9 at random moments, resume each time, compare with the run that was left alone."""
    run = config(tmp_path, settings)
    log = tmp_path / "log"

    def start(*words):
        return python.start("-m", "elysia", "train", run, "--work-dir", *words, output=log)

    began = time.monotonic()
    assert start(str(tmp_path / "whole")).wait() == 0, log.read_text()
    usual = time.monotonic() - began
    work_dir = tmp_path / "killed"
    moments = random.Random(0)
    seen = []
    for _ in range(kills):
        child = start(str(work_dir), "--resume")
        time.sleep(usual * (0.3 + 0.6 * moments.random()))
        child.kill()
        child.wait()
        last = checkpoint.last_checkpoint(work_dir) if work_dir.exists() else None
        seen.append(checkpoint.load(last)["progress"]["step"] if last else 0)  # always readable
    assert seen == sorted(seen)
    assert start(str(work_dir), "--resume").wait() == 0, log.read_text()
    first, second = final(tmp_path / "whole"), final(work_dir)
    for part in STATE:
        assert same(first[part], second[part]), (part, json.dumps(seen))


def test_two_kills_at_random_moments_change_nothing(preloaded_python, tmp_path, plain_settings):
    kill_and_resume(
        preloaded_python, tmp_path, plain_settings | {"max_epochs": 6, "save_steps": 1}, kills=2
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_kills_at_random_moments_change_nothing(preloaded_python, tmp_path, plain_settings):
    kill_and_resume(
        preloaded_python, tmp_path, plain_settings | {"max_epochs": 20, "save_steps": 1}, kills=10
    )
