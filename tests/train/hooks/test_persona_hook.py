"""A persona measured while it trains: no trace in the training, exact resuming, early stopping."""

import json

import pytest

from elysia.core.errors import CheckpointError, ConfigError
from elysia.export.adapter import find_checkpoint
from elysia.train import checkpoint
from elysia.train.config.settings import build_settings
from elysia.train.data.dataset import PackedDataset
from elysia.train.hooks import persona_hook
from elysia.train.hooks.persona_hook import HISTORY_FILE, collect_learned_texts, read_history
from elysia.train.launch import train
from tests.exact import STATE, same


def final(work_dir):
    return checkpoint.load(checkpoint.last_checkpoint(work_dir))


def run(folder, settings, **options):
    """Train `settings` in `folder`; its work dir."""
    folder.mkdir(exist_ok=True)
    config = folder / "run.py"
    config.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    assert train(str(config), work_dir=str(folder / "w"), **options) == 0
    return folder / "w"


@pytest.mark.parametrize("method", ["qlora", "full"])
def test_measuring_leaves_no_trace_and_a_resumed_run_measures_the_same(
    tmp_path, plain_settings, persona_files, method
):
    settings = plain_settings | {"method": method, "SYSTEM": "", "max_steps": 4}
    bare = run(tmp_path / "bare", settings)
    measured = run(tmp_path / "measured", settings | persona_files)
    last = final(measured)
    assert all(same(final(bare)[part], last[part]) for part in STATE)
    history = read_history(measured / HISTORY_FILE)
    assert [step for step, _ in history] == [0, 2, 4]
    base, trained = history[0][1], history[-1][1]
    assert "voice_gain" not in base
    assert trained["heldout_bits"] < base["heldout_bits"]
    assert trained["voice_gain"] == pytest.approx(base["heldout_bits"] - trained["heldout_bits"])
    assert {"next_line", "identity", "leak", "copy_longest", "forgetting"} <= set(trained)
    scalars = "".join(path.read_text() for path in measured.glob("*/vis_data/scalars.json"))
    assert '"persona_tradeoff"' in scalars and '"persona_voice_gain"' in scalars
    metrics = json.loads((measured / "run_card.json").read_text())["metrics"]
    assert metrics["persona_heldout_bits"] == trained["heldout_bits"]
    resumed = run(
        tmp_path / "resumed", settings | persona_files, resume=str(measured / "iter_2.pth")
    )
    assert all(same(final(resumed)[part], last[part]) for part in STATE)
    assert read_history(resumed / HISTORY_FILE) == history


def test_a_run_stops_when_the_trade_off_gets_worse_and_keeps_its_best(
    tmp_path, plain_settings, persona_files, caplog
):
    """What training lowers is taken for what is wanted: the first measurement stays the best."""
    early = {"persona_tradeoff": {"heldout_bits": 1.0}, "persona_patience": 1}
    settings = plain_settings | persona_files | early | {"save_steps": 0, "save_total_limit": 1}
    settings |= {"max_steps": 50}
    work = run(tmp_path, settings)
    assert sorted(path.name for path in work.glob("iter_*.pth")) == ["iter_2.pth", "iter_4.pth"]
    assert find_checkpoint(work) == checkpoint.best_checkpoint(work) == work / "iter_2.pth"
    assert checkpoint.last_checkpoint(work) == work / "iter_4.pth"
    card = json.loads((work / "run_card.json").read_text())
    assert card["metrics"]["best_step"] == 2
    assert card["stopped"].startswith(
        "Stopped early: the trade-off (heldout_bits) was best at step 2"
    )
    (log,) = work.glob("*/*.log")
    assert card["stopped"] in log.read_text()
    run(tmp_path, settings, resume="auto")
    assert checkpoint.last_checkpoint(work) == work / "iter_4.pth"  # it stays stopped
    run(tmp_path, settings | {"persona_patience": 2}, resume="auto")
    assert [step for step, _ in read_history(work / HISTORY_FILE)] == [0, 2, 4, 6]
    assert find_checkpoint(work) == work / "iter_2.pth"
    # Whoever trains to the end after all wants what is there.
    run(tmp_path, settings | {"persona_patience": 0, "max_steps": 7}, resume="auto")
    assert find_checkpoint(work) == work / "iter_7.pth"


def test_a_base_that_no_file_holds_is_measured_under_the_adapter(
    tmp_path, plain_settings, persona_files
):
    settings = plain_settings | persona_files | {"max_steps": 3}
    work = run(tmp_path, settings)
    before = read_history(work / HISTORY_FILE)
    (work / HISTORY_FILE).unlink()
    run(tmp_path, settings, resume=str(work / "iter_2.pth"))
    after = read_history(work / HISTORY_FILE)
    assert [step for step, _ in after] == [0, 3]
    assert after[0][1]["heldout_bits"] == pytest.approx(before[0][1]["heldout_bits"], rel=1e-6)
    (work / HISTORY_FILE).write_text('{"step"')
    with pytest.raises(CheckpointError, match=r"persona.jsonl cannot be read"):
        run(tmp_path, settings, resume=str(work / "iter_2.pth"))


def test_copies_are_looked_for_in_the_replies_that_are_learned(
    tiny_internlm2, rows_file, pairs_file, monkeypatch
):
    options = {"tokenizer": str(tiny_internlm2), "template": "internlm2_chat", "max_length": 256}
    data = PackedDataset([{"path": str(rows_file), "format": "xtuner"}], **options)
    texts = collect_learned_texts(data)
    assert "这是第3个回答，" * 4 in texts and len(texts) == len(set(texts))
    assert not any("次？" in text or "im_end" in text for text in texts)
    source = {"path": str(pairs_file), "format": "preference_sharegpt"}
    assert all(
        "好呀" in text
        for text in collect_learned_texts(PackedDataset([source], pairs=True, **options))
    )
    monkeypatch.setattr(persona_hook, "MAX_LEARNED_CHARACTERS", 20)
    assert 0 < len(collect_learned_texts(data)) < len(texts)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"persona_heldout": ""}, "it needs persona_heldout"),
        ({"persona": None}, "it needs persona,"),
        ({"persona_tradeoff": {"voice_gian": 1.0}}, "no measure 'voice_gian'. Did you mean 'voice_gain'"),
        ({"persona_tradeoff": {"leak": "much"}}, "number|float"),
        ({"persona_freq": 0, "persona_patience": 2}, "set persona_freq"),
        ({"objective": "reward", "dataset_format": "preference_sharegpt"}, "asks for replies"),
    ],
)  # fmt: skip
def test_impossible_settings_are_sentences(plain_settings, persona_files, changes, message):
    with pytest.raises(ConfigError, match=message):
        build_settings(plain_settings | persona_files | changes, "here")
