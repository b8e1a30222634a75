"""The proof of resuming: what holds is said to hold, and the first thing that breaks is named."""

import os
import subprocess
import sys

import pytest
import torch

from elysia.core.errors import CheckpointError, ElysiaError, UsageError
from elysia.train import launch
from elysia.train.config.settings import Settings
from elysia.train.distributed.strategy import SingleDeviceStrategy
from elysia.train.engine import rng
from elysia.train.hooks.step_digest_hook import compute_digest
from elysia.train.verify import resume_proof


def here(config, work_dir, resume):
    """As launch.train_apart, in this process."""
    launch.train(str(config), work_dir=str(work_dir), resume=str(resume) if resume else None)


@pytest.fixture
def settings(plain_settings):
    return Settings(**plain_settings | {"heldout": 2})


def test_a_run_that_resumes_exactly_is_said_to(tmp_path, settings):
    proof = resume_proof.verify_resume(settings, tmp_path, here, steps=(2, 3))
    assert proof.holds and proof.differences == ()
    assert proof.losses == 5 and proof.numbers > 1000
    assert [seek.step for seek in proof.seeks] == [0, 2, 4, resume_proof.FAR_STEP]
    assert all(0 < seek.packs == seek.needed for seek in proof.seeks)
    assert not (tmp_path / "cut" / "iter_3.pth").exists()  # stopped at 2, and went on from there
    assert (tmp_path / "cut" / "iter_2.pth").exists()


def test_dpo_of_all_weights_keeps_its_reference_over_the_stop(tmp_path, pair_settings):
    settings = Settings(**pair_settings | {"method": "full", "lr": 1e-3})
    assert resume_proof.verify_resume(settings, tmp_path, here, steps=(1, 1)).holds


def test_randomness_that_is_not_restored_is_named_at_the_step_after_the_stop(
    tmp_path, settings, monkeypatch
):
    monkeypatch.setattr(rng, "set_rng_state", lambda saved: None)
    proof = resume_proof.verify_resume(settings, tmp_path, here, steps=(2, 2))
    assert not proof.holds
    assert proof.differences[0].startswith("step 3: rng before is ")


def test_an_optimizer_that_starts_anew_is_found_in_what_is_left(tmp_path, settings, monkeypatch):
    restored = SingleDeviceStrategy.restore

    def forgetful(self, path):
        payload = restored(self, path)
        for state in self.optim_wrapper.optimizer.state.values():
            state["exp_avg"].zero_()
        return payload

    monkeypatch.setattr(SingleDeviceStrategy, "restore", forgetful)
    proof = resume_proof.verify_resume(settings, tmp_path, here, steps=(2, 1))
    assert not proof.holds  # the loss of step 3 is still the same: what differs is what it left
    assert "numbers differ, by up to" in proof.differences[0]
    assert proof.differences[0].startswith("state_dict.")


def test_a_device_that_is_not_deterministic_is_not_blamed_on_resuming(
    tmp_path, settings, monkeypatch
):
    runs = []

    def other_seed(config, work_dir, resume):
        runs.append(config)
        if len(runs) > 1:  # as if the device gave other numbers in every run
            config.write_text(config.read_text().replace("seed = 42", "seed = 43"))
        here(config, work_dir, resume)

    proof = resume_proof.verify_resume(settings, tmp_path, other_seed, steps=(1, 1))
    assert proof.differences[0].startswith("step 1: data is ")
    assert "this says nothing about resuming" in proof.differences[-1]


def test_a_sampler_that_leads_elsewhere_is_a_fault(tmp_path, settings):
    part = resume_proof.build_subset(settings, 256)
    with pytest.raises(CheckpointError, match="Seeking to step 1 leads to other rows"):
        resume_proof.check_seeks(part, [0], 1, {1: {"data": "0" * 12}})


def test_seeking_that_replays_does_not_hold():
    replayed = resume_proof.SeekResult(3, packs=8, needed=2, seconds=0.1)
    assert not resume_proof.ResumeProof((), 1, 1, (replayed,)).holds


def test_bits_are_compared_not_values():
    compared = resume_proof._BitwiseDiff()
    zero, nan = torch.zeros(3), torch.full((2,), float("nan"))
    assert list(compared.values({"a": nan}, {"a": nan.clone()}, "x")) == []
    (text,) = compared.values([zero], [-zero], "x")
    assert text == "x[0]: 3 of 3 numbers differ, by up to 0"
    (text,) = compared.values({"a": 1}, {"a": 1, "b": 2}, "x")
    assert text == "x.b: only one of the runs has it"
    (text,) = compared.values(0.1, 0.1 + 1e-17 * 8, "x.loss")
    assert text.startswith("x.loss: 0.1 against ")
    (text,) = compared.values(zero, zero.double(), "x")
    assert "torch.float64" in text


def test_a_digest_sees_every_bit():
    batch = {"ids": torch.tensor([1, 2]), "lengths": [1, 1]}
    assert compute_digest([batch]) == compute_digest(
        [{"ids": torch.tensor([1, 2]), "lengths": [1, 1]}]
    )
    assert compute_digest([batch]) != compute_digest([batch | {"lengths": [2]}])
    assert compute_digest([batch]) != compute_digest([batch | {"ids": torch.tensor([1, 3])}])
    assert compute_digest(torch.tensor(0.0)) != compute_digest(torch.tensor(-0.0))


def test_the_excerpt_keeps_enough_rows_to_hold_some_out(settings):
    assert resume_proof.build_subset(settings, 8).sources[0]["limit"] == 10
    few = settings.replace(data_path=[{"path": "x.json", "limit": 5}])
    assert resume_proof.build_subset(few, 8).sources[0]["limit"] == 5


@pytest.mark.parametrize("text", ["8", "0+4", "4+0", "a+b", "4+4+4"])
def test_steps_that_are_not_two_numbers_are_refused(text):
    with pytest.raises(UsageError, match="is not N\\+M"):
        resume_proof.parse_steps(text)


def test_a_child_that_fails_hands_on_its_sentence(tmp_path):
    with pytest.raises(ElysiaError, match="There is no verb 'trian'"):
        launch.run_subprocess(["trian"], tmp_path / "log.txt")


def command(tmp_path, settings, verb, *flags):
    config = tmp_path / "run.py"
    config.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    words = [sys.executable, "-m", "elysia", verb, str(config), *flags]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


LORA, QLORA, FULL = {"method": "lora"}, {"method": "qlora"}, {"method": "full", "lr": 1e-3}
ZERO2, ZERO3 = (["--deepspeed", f"deepspeed_zero{n}", "--nproc", "2"] for n in (2, 3))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kind", "method", "flags"),
    [
        *[(kind, method, []) for kind in ("sft", "dpo") for method in (LORA, QLORA, FULL)],
        *[("sft", method, ZERO2) for method in (QLORA, FULL)],
        *[("dpo", method, ZERO2) for method in (QLORA, FULL)],
        *[(kind, method, ZERO3) for kind in ("sft", "dpo") for method in (LORA, FULL)],
    ],
    ids=str,
)
def test_every_method_is_proved_through_the_command_line(
    tmp_path, plain_settings, pair_settings, kind, method, flags
):
    settings = (pair_settings if kind == "dpo" else plain_settings) | method
    settings |= {"dtype": "bfloat16", "max_length": 512}
    output = command(tmp_path, settings, "verify-resume", "--steps", "2+2", *flags)
    assert "2 steps and 2 after resuming are 4 steps, to the bit." in output
    output = command(tmp_path, settings, "verify-packing", *flags)
    assert "float32: " in output and "bfloat16: " in output
    assert "Samples in a pack do not touch each other." in output
    print(output)
