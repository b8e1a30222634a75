"""DeepSpeed ZeRO on a CPU: one process here, two under torchrun."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from elysia.core.errors import CheckpointError, ConfigError, DeviceError
from elysia.train import checkpoint
from elysia.train.zero import PRESETS, _refuse_stale_lock, zero_config

pytest.importorskip("deepspeed")
# The suite keeps one of each kind; `-m slow` runs the others.
SLOW = pytest.mark.slow


def run(tmp_path, settings, work_dir, *flags, processes=1, code=0):
    config = tmp_path / "run.py"
    config.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    command = [
        sys.executable,
        "-m",
        "elysia",
        "train",
        str(config),
        "--work-dir",
        str(work_dir),
        *flags,
    ]
    env = os.environ | {"NPROC_PER_NODE": str(processes), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=280)
    assert (done.returncode == 0) == (code == 0), done.stdout[-3000:] + done.stderr[-3000:]
    return done


def final(work_dir):
    return checkpoint.load_weights(checkpoint.last_checkpoint(work_dir))


def forget_after(work_dir, step):
    for path in work_dir.glob("iter_*.pth"):
        if checkpoint.step_of(path) > step:
            checkpoint.remove(path)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def close(first, second, tolerance):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=tolerance, atol=tolerance)


@pytest.fixture
def settings(plain_settings):
    return plain_settings | {
        "max_steps": 4,
        "evaluation_inputs": ["你好"],
        "dtype": "bfloat16",
        "heldout": 3,
    }


@pytest.mark.parametrize("name", ["deepspeed_zero2", "deepspeed_zero3"])
def test_a_resumed_zero_run_ends_with_the_same_weights(tmp_path, settings, name):
    run(tmp_path, settings, tmp_path / "w", "--deepspeed", name)
    whole = final(tmp_path / "w")
    assert all(t.dtype == torch.float32 for t in whole.values())
    forget_after(tmp_path / "w", 2)
    run(tmp_path, settings, tmp_path / "w", "--deepspeed", name, "--resume")
    assert same(whole, final(tmp_path / "w"))


def test_two_processes_with_and_without_zero_learn_what_one_does(tmp_path, settings):
    """Without dropout, which differs by process on purpose; two halves of a batch are one batch."""
    settings = settings | {"lora_dropout": 0.0, "dtype": "float32", "lr": 1e-3}
    single = settings | {"accumulative_counts": 2}
    double = settings | {"accumulative_counts": 1}
    run(tmp_path, single, tmp_path / "one")
    run(tmp_path, double, tmp_path / "ddp", processes=2)
    run(tmp_path, double, tmp_path / "zero2", "--deepspeed", "deepspeed_zero2", processes=2)
    for other in ("ddp", "zero2"):
        close(final(tmp_path / "one"), final(tmp_path / other), 2e-4)


@pytest.mark.parametrize(
    "flags", [[], pytest.param(["--deepspeed", "deepspeed_zero2"], marks=SLOW)]
)
def test_two_processes_that_share_rows_learn_what_one_does(tmp_path, settings, flags):
    settings = settings | {"lora_dropout": 0.0, "dtype": "float32", "lr": 1e-3}
    run(tmp_path, settings, tmp_path / "one")
    run(tmp_path, settings | {"sequence_parallel_size": 2}, tmp_path / "two", *flags, processes=2)
    close(final(tmp_path / "one"), final(tmp_path / "two"), 2e-4)


@pytest.mark.parametrize("measured", [False, pytest.param(True, marks=SLOW)])
def test_two_processes_under_zero3_resume_exactly(tmp_path, settings, persona_files, measured):
    settings = settings | (persona_files if measured else {})
    run(tmp_path, settings, tmp_path / "w", "--deepspeed", "deepspeed_zero3", processes=2)
    whole = final(tmp_path / "w")
    history = measured and (tmp_path / "w" / "persona.jsonl").read_text()
    forget_after(tmp_path / "w", 2)
    run(
        tmp_path,
        settings,
        tmp_path / "w",
        "--deepspeed",
        "deepspeed_zero3",
        "--resume",
        processes=2,
    )
    assert same(whole, final(tmp_path / "w"))
    assert not measured or (tmp_path / "w" / "persona.jsonl").read_text() == history


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"deepspeed_zero2", "deepspeed_zero3"}))
def test_every_other_preset_trains(tmp_path, settings, name):
    run(tmp_path, settings | {"max_steps": 1}, tmp_path / "w", "--deepspeed", name)
    assert final(tmp_path / "w")


def test_nf4_under_zero3_is_refused_before_anything_is_loaded(tmp_path, settings):
    done = run(
        tmp_path,
        settings | {"method": "qlora"},
        tmp_path / "w",
        "--deepspeed",
        "deepspeed_zero3",
        code=1,
    )
    assert "ZeRO-3 scatters weights" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def dpo(pair_settings):
    return pair_settings | {"max_steps": 4, "dtype": "bfloat16", "heldout": 3}


@pytest.mark.parametrize(
    "method, name",
    [
        ("lora", "deepspeed_zero2"),
        pytest.param("lora", "deepspeed_zero3", marks=SLOW),
        pytest.param("full", "deepspeed_zero2", marks=SLOW),
        pytest.param("full", "deepspeed_zero3", marks=SLOW),
    ],
)
def test_dpo_of_two_processes_resumes_exactly_under_zero(tmp_path, dpo, name, method):
    dpo |= {"method": method, "lr": 1e-3}
    run(tmp_path, dpo, tmp_path / "w", "--deepspeed", name, processes=2)
    whole = final(tmp_path / "w")
    forget_after(tmp_path / "w", 2)
    run(tmp_path, dpo, tmp_path / "w", "--deepspeed", name, "--resume", processes=2)
    assert same(whole, final(tmp_path / "w"))


@SLOW
def test_dpo_of_two_processes_learns_what_one_does_with_and_without_zero(tmp_path, dpo):
    dpo |= {"method": "lora", "lora_dropout": 0.0, "dtype": "float32", "lr": 1e-3}
    run(tmp_path, dpo | {"accumulative_counts": 2}, tmp_path / "one")
    double = dpo | {"accumulative_counts": 1}
    for kind in ("deepspeed_zero2", "deepspeed_zero3"):
        run(tmp_path, double, tmp_path / kind, "--deepspeed", kind, processes=2)
        close(final(tmp_path / "one"), final(tmp_path / kind), 2e-4)
    run(tmp_path, double, tmp_path / "ddp", processes=2)
    close(final(tmp_path / "one"), final(tmp_path / "ddp"), 2e-4)


@pytest.mark.parametrize("objective", [pytest.param("orpo", marks=SLOW), "reward"])
def test_orpo_and_rewards_resume_exactly_under_zero2(tmp_path, dpo, objective):
    dpo |= {"method": "qlora", "objective": objective}
    run(tmp_path, dpo, tmp_path / "w", "--deepspeed", "deepspeed_zero2")
    whole = final(tmp_path / "w")
    forget_after(tmp_path / "w", 2)
    run(tmp_path, dpo, tmp_path / "w", "--deepspeed", "deepspeed_zero2", "--resume")
    assert same(whole, final(tmp_path / "w"))


def test_dora_and_lora_plus_resume_under_zero2_and_dora_is_refused_under_zero3(tmp_path, settings):
    settings |= {"method": "qlora", "use_dora": True, "loraplus_lr_ratio": 8.0}
    run(tmp_path, settings, tmp_path / "w", "--deepspeed", "deepspeed_zero2")
    whole = final(tmp_path / "w")
    assert any("magnitude" in name for name in whole)
    forget_after(tmp_path / "w", 2)
    run(tmp_path, settings, tmp_path / "w", "--deepspeed", "deepspeed_zero2", "--resume")
    assert same(whole, final(tmp_path / "w"))
    settings |= {"method": "lora"}
    done = run(tmp_path, settings, tmp_path / "x", "--deepspeed", "deepspeed_zero3", code=1)
    assert "rows DoRA must measure" in done.stderr and "Traceback" not in done.stderr


def test_a_childs_exit_code_comes_through_torchrun(tmp_path, settings):
    settings = settings | {"lr": 1e30}  # the loss explodes in the children, after they met
    done = run(tmp_path, settings | {"max_steps": 30}, tmp_path / "w", processes=2, code=1)
    assert "The loss became" in done.stdout + done.stderr


def test_a_checkpoint_of_deepspeed_is_not_resumed_without_it(tmp_path):
    from elysia.train.strategy import SingleDevice

    folder = tmp_path / "iter_1.pth"
    folder.mkdir()
    with pytest.raises(CheckpointError, match="same --deepspeed preset"):
        SingleDevice.restore(object.__new__(SingleDevice), folder)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'deepspeed_zero2'"):
        zero_config("deepspeed_zero_2")


def test_a_json_file_is_taken_as_it_is_and_a_broken_one_refused(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 1}}))
    assert zero_config(str(path)) == {"zero_optimization": {"stage": 1}}
    path.write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        zero_config(str(path))


def test_the_lock_of_a_killed_build_is_told_of_and_a_fresh_one_is_not(tmp_path):
    lock = tmp_path / "shm" / "lock"
    lock.parent.mkdir()
    lock.touch()
    _refuse_stale_lock(tmp_path)
    old = time.time() - 3600
    os.utime(lock, (old, old))
    with pytest.raises(DeviceError, match=f"rm {lock}"):
        _refuse_stale_lock(tmp_path)


@SLOW
def test_rewards_of_two_processes_resume_exactly_under_zero3(tmp_path, dpo):
    dpo |= {"method": "lora", "objective": "reward"}
    run(tmp_path, dpo, tmp_path / "w", "--deepspeed", "deepspeed_zero3", processes=2)
    whole = final(tmp_path / "w")
    assert any("score" in name for name in whole)
    forget_after(tmp_path / "w", 2)
    run(tmp_path, dpo, tmp_path / "w", "--deepspeed", "deepspeed_zero3", "--resume", processes=2)
    assert same(whole, final(tmp_path / "w"))
