import json
import re
from pathlib import Path

import pytest

from elysia.core.errors import CheckpointError, DataError, ElysiaError, ModelError, UsageError
from elysia.core.run_card import RunCard
from elysia.train import checkpoint
from elysia.train.launch import train


def config(folder, settings):
    path = folder / "run.py"
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    return str(path)


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny_internlm2, rows_file):
    """A whole small QLoRA run with every hook at work."""
    folder = tmp_path_factory.mktemp("run")
    settings = {
        "pretrained_model_name_or_path": str(tiny_internlm2), "data_path": str(rows_file), "method": "qlora",
        "lora_r": 4, "max_length": 256, "accumulative_counts": 2, "max_epochs": 6, "lr": 2e-2, "save_steps": 3,
        "save_total_limit": 1, "logging_interval": 1, "evaluation_freq": 5, "evaluation_max_new_tokens": 4,
        "evaluation_inputs": ["你好", "Who are you?"], "heldout": 4, "gradient_checkpointing": True,
    }  # fmt: skip
    assert train(config(folder, settings), work_dir=str(folder / "w")) == 0
    return folder / "w"


def test_the_loss_falls_on_trained_and_held_out_rows(done):
    metrics = RunCard.read(done).metrics
    assert metrics["heldout_loss"] < metrics["first_heldout_loss"] - 0.5
    rows = [
        json.loads(line)
        for f in done.glob("*/vis_data/scalars.json")
        for line in f.read_text().splitlines()
    ]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0] - 0.5


def test_it_leaves_what_xtuner_users_look_for(done):
    assert (done / "run.py").read_text().count("elysia.train.methods.sft.SupervisedFinetune") == 1
    last = Path((done / "last_checkpoint").read_text())
    assert last.exists() and [p.name for p in done.glob("iter_*.pth")] == [last.name]
    (vis,) = done.glob("*/vis_data")
    chats = sorted(p.name for p in vis.glob("eval_outputs_iter_*.txt"))
    assert "eval_outputs_iter_0.txt" in chats and "eval_outputs_iter_5.txt" in chats
    assert "Who are you?" in (vis / "eval_outputs_iter_0.txt").read_text()
    assert list(vis.glob("events.out.tfevents.*")), "TensorBoard is on by default"
    assert (done / "loss_curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_log_shows_progress_speed_memory_and_what_is_learned(done):
    (log,) = done.glob("*/*.log")
    text = log.read_text()
    for word in (
        "eta:",
        "tokens_per_s",
        "labelled_per_s",
        "rss_mb",
        "grad_norm",
        "learned (",
        "\x1b[32m",
    ):
        assert word in text, word


def test_the_rate_is_never_near_zero(done):
    (log,) = done.glob("*/*.log")
    rates = [float(r) for r in re.findall(r"lr: (\S+)", log.read_text())]
    assert max(rates) == pytest.approx(2e-2, rel=1e-3) and min(rates) > 2e-2 * 1e-3


def test_a_checkpoint_holds_the_adapter_and_not_the_base(done, tiny_internlm2):
    weights = checkpoint.load_weights(checkpoint.last_checkpoint(done))
    assert all("lora_" in name for name in weights)
    card = checkpoint.load_run_card(checkpoint.last_checkpoint(done))
    assert card.base_model == str(tiny_internlm2) and card.template["name"] == "internlm2_chat"


def test_the_dumped_config_runs_again(done, tmp_path):
    dumped = next(done.glob("run.py"))
    assert (
        train(
            str(dumped),
            work_dir=str(tmp_path / "again"),
            cfg_options={"max_steps": 1, "heldout": 0},
        )
        == 0
    )


def test_overrides_are_applied_last(tmp_path, plain_settings):
    settings = plain_settings | {"max_steps": 3, "overrides": {"train_cfg": {"max_steps": 1}}}
    assert train(config(tmp_path, settings), work_dir=str(tmp_path / "w")) == 0
    assert (tmp_path / "w" / "iter_1.pth").exists()


def test_accumulation_is_weighted_by_labelled_tokens(tmp_path, plain_settings):
    """One window of four micro-batches learns exactly what one micro-batch of four packs does."""
    settings = plain_settings | {"lora_dropout": 0.0, "max_steps": 3, "max_length": 192}
    runs = {}
    for name, counts, size in (("windows", 4, 1), ("batches", 1, 4)):
        options = {"accumulative_counts": counts, "batch_size": size}
        train(config(tmp_path, settings | options), work_dir=str(tmp_path / name))
        runs[name] = checkpoint.load_weights(tmp_path / name / "iter_3.pth")
    for weight, value in runs["windows"].items():
        assert (value - runs["batches"][weight]).abs().max() < 2e-4, weight


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"data_path": "nosuch.json"}, DataError, "nosuch.json"),
        ({"pretrained_model_name_or_path": "./nosuch"}, ModelError, "nosuch"),
        ({"max_length": 16}, DataError, "max_length"),
        ({"dataset_format": "alpaca"}, DataError, "xtuner"),
        ({"dataset_format": "alpacaa"}, ElysiaError, "alpaca"),
        ({"persona": "nosuch_card.json"}, ElysiaError, "nosuch_card.json"),
    ],
)
def test_bad_input_is_a_sentence_and_no_checkpoint(tmp_path, plain_settings, change, error, words):
    with pytest.raises(error, match=words):
        train(config(tmp_path, plain_settings | change), work_dir=str(tmp_path / "w"))
    assert not list((tmp_path / "w").glob("iter_*"))


def test_a_checkpoint_of_other_lora_settings_is_not_resumed(tmp_path, plain_settings):
    run = config(tmp_path, plain_settings | {"max_steps": 1})
    train(run, work_dir=str(tmp_path / "w"))
    with pytest.raises(ElysiaError, match="other LoRA settings"):
        train(run, work_dir=str(tmp_path / "w"), resume="auto", cfg_options={"lora_r": 8})


def test_a_loss_that_explodes_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path, plain_settings
):
    settings = plain_settings | {"lr": 1e30, "max_norm": 0, "save_steps": 1, "max_epochs": 9}
    with pytest.raises(ElysiaError, match="Lower lr"):
        train(config(tmp_path, settings), work_dir=str(tmp_path / "w"))
    assert checkpoint.last_checkpoint(tmp_path / "w") is not None


@pytest.mark.parametrize("name, value", [("NPROC_PER_NODE", "zero"), ("NNODES", "0")])
def test_a_wrong_number_of_processes_is_a_sentence(
    tmp_path, plain_settings, monkeypatch, name, value
):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name):
        train(config(tmp_path, plain_settings))


def test_mpi_is_refused(tmp_path, plain_settings):
    with pytest.raises(UsageError, match="mpi"):
        train(config(tmp_path, plain_settings), launcher="mpi")


def test_a_work_dir_that_cannot_be_made_is_a_sentence(tmp_path, plain_settings):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be made"):
        train(config(tmp_path, plain_settings), work_dir=str(tmp_path / "file" / "w"))


def test_a_damaged_checkpoint_is_not_resumed(tmp_path, plain_settings):
    (tmp_path / "iter_5.pth").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(CheckpointError, match="cut short"):
        train(config(tmp_path, plain_settings), work_dir=str(tmp_path), resume="auto")


def test_plain_text_is_learned_whole_and_the_loss_falls(tmp_path, plain_settings):
    path = tmp_path / "book.txt"
    path.write_text(
        "".join(f"第{i}章，从前有座山，山里有座庙。" * (i * 8) + "\n" for i in range(1, 6))
    )
    settings = plain_settings | {"data_path": str(path), "dataset_format": "pretrain"}
    settings |= {"max_epochs": 3, "heldout": 1, "method": "full", "overlong": "error"}
    config = tmp_path / "pretrain.py"
    config.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    assert train(str(config), work_dir=str(tmp_path / "w")) == 0
    metrics = RunCard.read(tmp_path / "w").metrics
    assert metrics["heldout_loss"] < metrics["first_heldout_loss"] - 1
