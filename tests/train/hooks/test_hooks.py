import json
from types import SimpleNamespace

import pytest

from elysia.train.config.settings import build_settings
from elysia.train.hooks.monitoring_hooks import colour_learned, draw_curves, read_scalars
from elysia.train.hooks.plan_report_hook import PlanReportHook
from elysia.train.launch import run_training
from elysia.train.planner.hardware import DeviceRates, TargetDevice
from elysia.train.planner.training_plan import build_plan


class LetterTokenizer:
    """Decodes ids as the letters they index."""

    def decode(self, ids, skip_special_tokens):
        assert not skip_special_tokens
        return "".join("abcdefgh"[i] for i in ids)


def test_learned_runs_are_green_and_context_is_plain():
    text = colour_learned([0, 1, 2, 3, 4], [-100, 1, 2, -100, 4], LetterTokenizer())
    assert text == "a\x1b[32mbc\x1b[0md\x1b[32me\x1b[0m"


def test_scalars_of_a_resumed_run_continue_and_half_a_line_is_passed_over(tmp_path):
    for name, rows in (
        (
            "20260101_000000",
            [{"loss": 3.0, "step": 1}, {"loss": 2.0, "step": 2}, {"heldout_loss": 5.0, "step": 0}],
        ),
        ("20260102_000000", [{"loss": 1.5, "step": 2}, {"loss": 1.0, "step": 3}]),
    ):
        folder = tmp_path / name / "vis_data"
        folder.mkdir(parents=True)
        (folder / "scalars.json").write_text("\n".join(map(json.dumps, rows)) + '\n{"loss": 9')
    trained, heldout = read_scalars(tmp_path)
    assert trained == {1: 3.0, 2: 1.5, 3: 1.0}
    assert heldout == {0: 5.0}


def test_the_curve_is_a_picture(tmp_path):
    draw_curves({1: 3.0, 2: 2.0}, {}, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_planned_run_says_how_far_off_the_plan_was(plain_settings, tmp_path, caplog):
    settings = build_settings(plain_settings | {"max_steps": 2}, "here")
    rates = DeviceRates("a device", *[1e9] * 4)
    planned = build_plan(settings, TargetDevice("cpu", rates, 2**40, "float32"))
    (tmp_path / "plan.json").write_text(json.dumps(planned.to_dict()))
    run_training(settings, "x", tmp_path)
    metrics = json.loads((tmp_path / "run_card.json").read_text())["metrics"]
    assert metrics["planned_step_seconds"] == pytest.approx(planned.step_seconds)
    assert metrics["planned_peak_mb"] == pytest.approx(planned.peak / 2**20)
    assert metrics["step_seconds"] > 0 and metrics["peak_mb"] > 100
    (log,) = tmp_path.glob("*/*.log")
    assert "The plan said" in log.read_text()
    scalars = "".join(path.read_text() for path in tmp_path.glob("*/vis_data/scalars.json"))
    rows = [json.loads(line) for line in scalars.splitlines()]
    steps = [row for row in rows if "mfu" in row]
    assert len(steps) == 2
    for row in steps:
        assert 0 <= row["padding"] < 0.5 and 0 < row["mfu"] < row["hfu"] < 1.5


def test_a_plan_of_other_settings_is_passed_over(tmp_path):
    (tmp_path / "plan.json").write_text('{"settings": "a", "peak": 1, "step_seconds": 1.0}')
    messages = []
    runner = SimpleNamespace(work_dir=tmp_path, logger=SimpleNamespace(info=messages.append))
    hook = PlanReportHook("b")
    hook.before_train(runner)
    assert hook.plan is None and "other settings" in messages[0]
    (tmp_path / "plan.json").write_text('{"settings"')
    hook.before_train(runner)
    assert hook.plan is None and len(messages) == 1
