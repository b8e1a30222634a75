"""DeepSpeed ZeRO on a CPU: one process, or two.

Starting a run takes ten times what its steps do here, so most runs are done one after another by a crew
of processes (crew.py) that is started once. That a run resumes in processes that never saw the first, and
all that torchrun adds, is for the runs of the command line, and for the slow proofs of test_resume_proof.py.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from elysia.core.errors import CheckpointError, ConfigError, DeviceError, ModelError
from elysia.train import checkpoint
from elysia.train.config.deepspeed_presets import PRESETS, load_deepspeed_config
from elysia.train.distributed import comm
from elysia.train.distributed.deepspeed_strategy import _refuse_stale_lock
from elysia.train.launch import train

pytest.importorskip("deepspeed")
# The suite keeps one of each kind; `-m slow` runs the others.
SLOW = pytest.mark.slow


def written(tmp_path, settings):
    config = tmp_path / "run.py"
    config.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    return str(config)


class Crew:
    """Processes that carry out trainings together, one after another."""

    def __init__(self, python, folder, size):
        self.folder, self.count, self.size = folder, 0, size
        env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(comm.find_free_port())}
        script = str(Path(__file__).with_name("crew.py"))
        command = [script, str(folder), "pytorch" if size > 1 else "none"]
        self.members = [
            python.start(
                *command, output=folder / f"log-{rank}",
                env=env | {"WORLD_SIZE": str(size), "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(size)
        ]  # fmt: skip

    def train(self, tmp_path, settings, work_dir, deepspeed=None, resume=None):
        """Train to the end."""
        self.count += 1
        values = {"config": written(tmp_path, settings), "work_dir": str(work_dir)}
        request = self.folder / f"{self.count}.json"
        request.with_suffix(".new").write_text(
            json.dumps(values | {"deepspeed": deepspeed, "resume": resume})
        )
        request.with_suffix(".new").rename(request)
        answers = [self.folder / f"{self.count}.{rank}" for rank in range(self.size)]
        while not all(answer.exists() for answer in answers):
            ended = [member.poll() for member in self.members]
            assert ended == [None] * self.size, self.logs()
            time.sleep(0.02)
        assert [answer.read_text() for answer in answers] == [""] * self.size

    def logs(self):
        return "\n".join(path.read_text()[-3000:] for path in self.folder.glob("log-*"))

    def end(self):
        for member in self.members:
            member.kill()
            member.wait()


@pytest.fixture(scope="module")
def alone(preloaded_python, tmp_path_factory):
    crew = Crew(preloaded_python, tmp_path_factory.mktemp("alone"), 1)
    yield crew
    crew.end()


@pytest.fixture(scope="module")
def pair(preloaded_python, tmp_path_factory):
    crew = Crew(preloaded_python, tmp_path_factory.mktemp("pair"), 2)
    yield crew
    crew.end()


def run_by_torchrun(tmp_path, settings, work_dir, *, code=0):
    """`elysia train` from the command line, which starts two processes."""
    words = ["train", written(tmp_path, settings), "--work-dir", str(work_dir)]
    command = [sys.executable, "-m", "elysia", *words]
    env = os.environ | {"NPROC_PER_NODE": "2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=280)
    assert (done.returncode == 0) == (code == 0), done.stdout[-3000:] + done.stderr[-3000:]
    return done


def final(work_dir):
    return checkpoint.load_weights(checkpoint.last_checkpoint(work_dir))


def forget_after(work_dir, step):
    for path in work_dir.glob("iter_*.pth"):
        if checkpoint.parse_step(path) > step:
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


def resumes_exactly(crew, tmp_path, settings, deepspeed):
    """The weights of a run of two checkpoints, after it was found to end with them from its first, too."""
    work_dir = tmp_path / "w"
    crew.train(tmp_path, settings, work_dir, deepspeed)
    whole = final(work_dir)
    forget_after(work_dir, 2)
    assert checkpoint.parse_step(checkpoint.last_checkpoint(work_dir)) == 2
    crew.train(tmp_path, settings, work_dir, deepspeed, resume="auto")
    assert same(whole, final(work_dir))
    return whole


def test_a_resumed_zero2_run_ends_with_the_same_weights(alone, tmp_path, settings):
    whole = resumes_exactly(alone, tmp_path, settings, "deepspeed_zero2")
    assert all(t.dtype == torch.float32 for t in whole.values())


def test_a_zero3_run_that_is_resumed_by_the_command_line_ends_with_the_same_weights(
    alone, preloaded_python, tmp_path, settings
):
    """It goes on in a process that knows of the first only what the work dir holds."""
    alone.train(tmp_path, settings, tmp_path / "w", "deepspeed_zero3")
    whole = final(tmp_path / "w")
    assert all(t.dtype == torch.float32 for t in whole.values())
    forget_after(tmp_path / "w", 2)
    words = ["train", written(tmp_path, settings), "--work-dir", str(tmp_path / "w")]
    words += ["--deepspeed", "deepspeed_zero3", "--resume"]
    child = preloaded_python.start("-m", "elysia", *words, output=tmp_path / "log")
    assert child.wait(280) == 0, (tmp_path / "log").read_text()[-3000:]
    assert same(whole, final(tmp_path / "w"))


def test_two_processes_with_and_without_zero_learn_what_one_does(pair, tmp_path, settings):
    """Without dropout, which differs by process on purpose; two halves of a batch are one batch."""
    settings = settings | {"lora_dropout": 0.0, "dtype": "float32", "lr": 1e-3}
    double = settings | {"accumulative_counts": 1}
    train(written(tmp_path, settings | {"accumulative_counts": 2}), work_dir=str(tmp_path / "one"))
    run_by_torchrun(tmp_path, double, tmp_path / "ddp")
    pair.train(tmp_path, double, tmp_path / "zero2", "deepspeed_zero2")
    for other in ("ddp", "zero2"):
        close(final(tmp_path / "one"), final(tmp_path / other), 2e-4)


@pytest.mark.parametrize("deepspeed", [None, "deepspeed_zero2"])
def test_two_processes_that_share_rows_learn_what_one_does(pair, tmp_path, settings, deepspeed):
    settings = settings | {"lora_dropout": 0.0, "dtype": "float32", "lr": 1e-3}
    train(written(tmp_path, settings), work_dir=str(tmp_path / "one"))
    pair.train(tmp_path, settings | {"sequence_parallel_size": 2}, tmp_path / "two", deepspeed)
    close(final(tmp_path / "one"), final(tmp_path / "two"), 2e-4)


@pytest.mark.parametrize("deepspeed", [None, "deepspeed_zero2"])
@pytest.mark.parametrize("share", [1, 2])
def test_two_processes_with_compiled_layers_learn_what_one_without_does(
    pair, tmp_path, settings, deepspeed, share
):
    settings = settings | {"lora_dropout": 0.0, "dtype": "float32", "lr": 1e-3}
    # An adapter before attention and one behind it: most of the time goes to reading each adapter's code.
    settings["lora_target_modules"] = ["wqkv", "w2"]
    train(written(tmp_path, settings), work_dir=str(tmp_path / "one"))
    settings |= {
        "torch_compile": True,
        "sequence_parallel_size": share,
        "accumulative_counts": share,
    }
    pair.train(tmp_path, settings, tmp_path / "two", deepspeed)
    close(final(tmp_path / "one"), final(tmp_path / "two"), 2e-4)


def test_compiled_layers_under_zero3_are_refused_before_anything_is_loaded(tmp_path, settings):
    nowhere = {"pretrained_model_name_or_path": "no/such-model", "torch_compile": True}
    config = written(tmp_path, settings | nowhere)
    with pytest.raises(ConfigError, match="ZeRO-3 gathers the weights of each module"):
        train(config, work_dir=str(tmp_path / "w"), deepspeed="deepspeed_zero3")


@pytest.mark.parametrize("measured", [False, pytest.param(True, marks=SLOW)])
def test_two_processes_under_zero3_resume_exactly(
    pair, tmp_path, settings, persona_files, measured
):
    settings = settings | (persona_files if measured else {})
    work_dir = tmp_path / "w"
    pair.train(tmp_path, settings, work_dir, "deepspeed_zero3")
    whole = final(work_dir)
    history = measured and (work_dir / "persona.jsonl").read_text()
    forget_after(work_dir, 2)
    pair.train(tmp_path, settings, work_dir, "deepspeed_zero3", resume="auto")
    assert same(whole, final(work_dir))
    assert not measured or (work_dir / "persona.jsonl").read_text() == history


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"deepspeed_zero2", "deepspeed_zero3"}))
def test_every_other_preset_trains(alone, tmp_path, settings, name):
    alone.train(tmp_path, settings | {"max_steps": 1}, tmp_path / "w", name)
    assert final(tmp_path / "w")


def test_nf4_under_zero3_is_refused_before_anything_is_loaded(tmp_path, settings):
    config = written(tmp_path, settings | {"method": "qlora"})
    with pytest.raises(ModelError, match="ZeRO-3 scatters weights, which 4-bit"):
        train(config, work_dir=str(tmp_path / "w"), deepspeed="deepspeed_zero3")


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
def test_dpo_of_two_processes_resumes_exactly_under_zero(pair, tmp_path, dpo, name, method):
    resumes_exactly(pair, tmp_path, dpo | {"method": method, "lr": 1e-3}, name)


@SLOW
def test_dpo_of_two_processes_learns_what_one_does_with_and_without_zero(pair, tmp_path, dpo):
    dpo |= {"method": "lora", "lora_dropout": 0.0, "dtype": "float32", "lr": 1e-3}
    train(written(tmp_path, dpo | {"accumulative_counts": 2}), work_dir=str(tmp_path / "one"))
    double = dpo | {"accumulative_counts": 1}
    for kind in (None, "deepspeed_zero2", "deepspeed_zero3"):
        pair.train(tmp_path, double, tmp_path / str(kind), kind)
        close(final(tmp_path / "one"), final(tmp_path / str(kind)), 2e-4)


@pytest.mark.parametrize("objective", ["orpo", "reward"])
def test_orpo_and_rewards_resume_exactly_under_zero2(alone, tmp_path, dpo, objective):
    settings = dpo | {"method": "qlora", "objective": objective}
    resumes_exactly(alone, tmp_path, settings, "deepspeed_zero2")


def test_dora_and_lora_plus_resume_under_zero2_and_dora_is_refused_under_zero3(
    alone, tmp_path, settings
):
    settings |= {"method": "qlora", "use_dora": True, "loraplus_lr_ratio": 8.0}
    whole = resumes_exactly(alone, tmp_path, settings, "deepspeed_zero2")
    assert any("magnitude" in name for name in whole)
    config = written(tmp_path, settings | {"method": "lora"})
    with pytest.raises(ModelError, match="rows DoRA must measure"):
        train(config, work_dir=str(tmp_path / "x"), deepspeed="deepspeed_zero3")


def test_a_childs_exit_code_comes_through_torchrun(tmp_path, settings):
    settings = settings | {"lr": 1e30}  # the loss explodes in the children, after they met
    done = run_by_torchrun(tmp_path, settings | {"max_steps": 30}, tmp_path / "w", code=1)
    assert "The loss became" in done.stdout + done.stderr


def test_a_checkpoint_of_deepspeed_is_not_resumed_without_it(tmp_path):
    from elysia.train.distributed.strategy import SingleDeviceStrategy

    folder = tmp_path / "iter_1.pth"
    folder.mkdir()
    with pytest.raises(CheckpointError, match="same --deepspeed preset"):
        SingleDeviceStrategy.restore(object.__new__(SingleDeviceStrategy), folder)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'deepspeed_zero2'"):
        load_deepspeed_config("deepspeed_zero_2")


def test_a_json_file_is_taken_as_it_is_and_a_broken_one_refused(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 1}}))
    assert load_deepspeed_config(str(path)) == {"zero_optimization": {"stage": 1}}
    path.write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        load_deepspeed_config(str(path))


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
def test_rewards_of_two_processes_resume_exactly_under_zero3(pair, tmp_path, dpo):
    settings = dpo | {"method": "lora", "objective": "reward"}
    whole = resumes_exactly(pair, tmp_path, settings, "deepspeed_zero3")
    assert any("score" in name for name in whole)
