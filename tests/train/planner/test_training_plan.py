"""Plans of whole configs: what users read in them, by formula and with a measured micro-batch."""

import dataclasses
import json
import shutil

import pytest
import torch

from elysia.core.errors import ConfigError, DeviceError, ModelError
from elysia.train.config.settings import build_settings
from elysia.train.planner.cost_formulas import CostEstimate
from elysia.train.planner.hardware import DeviceRates, TargetDevice, lookup_gpu, resolve_target
from elysia.train.planner.measure import StepMeasurement
from elysia.train.planner.training_plan import adjust, build_plan, suggest_change

RATES = DeviceRates("a device", *[1e9] * 4)
ONE_EACH = TargetDevice("cpu", RATES, 2**40, "float32")
BODY = 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 128)  # weights of the tiny model's linear layers


def test_a_plan_needs_no_weights_and_no_tokenizer(tiny_internlm2, plain_settings, tmp_path):
    shutil.copy(tiny_internlm2 / "config.json", tmp_path)
    values = plain_settings | {"pretrained_model_name_or_path": str(tmp_path), "method": "full"}
    plan = build_plan(build_settings(values, "here"), ONE_EACH)
    count = json.loads((tiny_internlm2 / "config.json").read_text())["vocab_size"] * 64 * 2
    assert plan.memory["weights"] > 4 * count
    assert plan.memory["gradients"] == plan.memory["optimizer"] // 2
    assert plan.fits and "no tokenizer" in plan.notes[0] and not plan.data


@pytest.mark.parametrize("name", ["torch_compile", "liger_kernel"])
def test_kernels_that_were_not_measured_are_not_planned_and_it_says_so(
    tiny_internlm2, plain_settings, name
):
    plan, plain = (
        build_plan(build_settings(plain_settings | {name: on}, "here"), ONE_EACH)
        for on in (True, False)
    )
    assert plan.notes == [
        f"{name} = True is not in these figures: they are those of {name} = False."
    ]
    assert not plain.notes and plan.step_seconds == plain.step_seconds
    assert plan.memory["activations"] == plain.memory["activations"]


def test_methods_differ_in_what_they_hold(tiny_internlm2, plain_settings):
    def memory(**changes):
        return build_plan(build_settings(plain_settings | changes, "here"), ONE_EACH).memory

    full, lora, qlora = (memory(method=m) for m in ("full", "lora", "qlora"))
    assert full["adapters"] == 0 and lora["adapters"] == qlora["adapters"] > 0
    assert lora["weights"] == full["weights"]
    body = 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 128)
    assert qlora["weights"] == pytest.approx(lora["weights"] - 3.5 * body, rel=0.02)
    assert lora["optimizer"] == 2 * lora["adapters"]


def test_zero_divides_what_its_stage_divides(tiny_internlm2, plain_settings):
    settings = build_settings(plain_settings | {"method": "full"}, "here")

    def memory(preset):
        return build_plan(
            settings, TargetDevice("cuda", RATES, 2**40, "bfloat16", 2, preset)
        ).memory

    second, third = memory("deepspeed_zero2"), memory("deepspeed_zero3")
    assert third["weights"] == second["weights"] // 2
    assert second["gradients"] == third["gradients"]
    assert second["gradients"] == pytest.approx(second["weights"] / 2, rel=0.01)
    # Float32 masters and Adam's two states for weights of 16 bits.
    assert second["optimizer"] == 6 * second["gradients"]
    with pytest.raises(ConfigError, match="neither a file nor a preset"):
        memory("deepspeed_zero4")


def test_what_the_data_are_is_told(tiny_internlm2, plain_settings):
    values = plain_settings | {"max_length": 64, "overlong": "drop"}
    plan = build_plan(build_settings(values, "here"), ONE_EACH)
    data = plan.data
    assert data["rows"] == 24 and 0 < data["dropped"] < 1 and data["longest"] <= 64
    assert 0 < data["labelled"] < 1 and 0 <= data["padding"] < 1
    assert plan.tokens_per_s > plan.labelled_per_s > 0
    assert plan.seconds == pytest.approx(plan.steps * plan.step_seconds)


def test_what_does_not_fit_names_a_setting_that_does(tiny_internlm2, plain_settings):
    settings = build_settings(plain_settings, "here")
    needed = build_plan(settings, ONE_EACH)
    tight = TargetDevice("cuda", RATES, 0, "float32")
    gpu = build_plan(settings, tight)
    assert not gpu.fits and gpu.advice.startswith("No setting makes it fit")
    just = TargetDevice("cuda", RATES, gpu.peak - 4096, "float32")
    assert build_plan(settings, just).advice == "Set gradient_checkpointing = True: then it fits."
    assert needed.advice == ""


def test_known_gpus_are_found_by_name_and_others_refused(plain_settings):
    card = lookup_gpu("NVIDIA A100-SXM4-80GB", torch.bfloat16)
    assert card.peak == 312e12 and lookup_gpu("Something", torch.bfloat16) is None
    settings = build_settings(plain_settings | {"dtype": "auto"}, "here")
    target = resolve_target(settings, "H100", 80 * 2**30)
    assert (target.kind, target.dtype, target.memory) == ("cuda", "bfloat16", 80 * 2**30)
    with pytest.raises(ConfigError, match="RTX 4090"):
        resolve_target(settings, "RTX 409", 1)
    with pytest.raises(ConfigError, match="--memory"):
        resolve_target(settings, "H100")


def planned(values, target=ONE_EACH, **changes):
    return build_plan(build_settings(values | changes, "here"), target)


def test_a_reward_model_is_planned_with_its_head_and_without_logits(
    tiny_internlm2, pair_settings, tmp_path
):
    ranked, compared = (planned(pair_settings, objective=name) for name in ("reward", "orpo"))
    assert ranked.memory["logits"] == 0 < compared.memory["logits"]
    head = 64 * 4  # one number of 64; a copy that trains beside the one that came
    words = json.loads((tiny_internlm2 / "config.json").read_text())["vocab_size"]
    assert ranked.memory["adapters"] == compared.memory["adapters"] + head
    # The embeddings of both are read as far as the data need them.
    assert compared.memory["weights"] - ranked.memory["weights"] == words * head - head
    # The same rows: all but the head of the language model, and what it takes, is as long.
    assert 0.5 * compared.step_seconds < ranked.step_seconds < compared.step_seconds
    shutil.copy(tiny_internlm2 / "config.json", tmp_path)  # without a tokenizer, pairs stand in
    bare = planned(pair_settings, objective="reward", pretrained_model_name_or_path=str(tmp_path))
    assert "no tokenizer" in bare.notes[0] and bare.memory["activations"] > 0


def test_dropout_makes_dora_keep_every_weight_whole(plain_settings):
    """PEFT multiplies by the weight a second time, and autograd keeps it: 4 bits save nothing then."""
    values = plain_settings | {"method": "qlora", "use_dora": True}
    dropped, plain = (planned(values, lora_dropout=share) for share in (0.2, 0.0))
    more = dropped.memory["activations"] - plain.memory["activations"]
    assert more > 4 * BODY
    # Its norm takes the weight whole once more than forward and backward do.
    rest = planned(values, use_dora=False).spent["4-bit weights"]
    assert 1.45 * rest < plain.spent["4-bit weights"] < 1.6 * rest


def test_processes_that_share_a_row_hold_a_part_of_it(plain_settings):
    pair = dataclasses.replace(ONE_EACH, world=2)
    whole = planned(plain_settings | {"max_length": 1024}, pair)
    half = planned(plain_settings | {"max_length": 1024}, pair, sequence_parallel_size=2)
    assert half.memory["activations"] == pytest.approx(whole.memory["activations"] / 2, rel=0.1)
    assert half.memory["weights"] == whole.memory["weights"]
    # Together they take as many rows as one does alone.
    alone = planned(plain_settings | {"max_length": 1024})
    assert half.steps == alone.steps
    assert half.spent["attention"] < 0.6 * alone.spent["attention"]
    with pytest.raises(DeviceError, match="this run has 2: start a multiple of 3"):
        planned(plain_settings, pair, sequence_parallel_size=3)
    with pytest.raises(ModelError, match="4 attention heads"):
        planned(plain_settings, dataclasses.replace(ONE_EACH, world=3), sequence_parallel_size=3)


SUGGEST_BASE = {
    "pretrained_model_name_or_path": "m",
    "data_path": "d",
    "gradient_checkpointing": True,
}


def suggest_settings(**more):
    return build_settings(SUGGEST_BASE | more, "c")


@pytest.mark.parametrize(
    "more, needed, advice",
    [
        ({"gradient_checkpointing": False}, {"gradient_checkpointing": True}, "gradient_checkpointing = True"),
        ({"batch_size": 4, "accumulative_counts": 2}, {"batch_size": 1, "accumulative_counts": 8},
         "batch_size = 1, accumulative_counts = 8"),
        ({"method": "full"}, {"method": "lora"}, "method = 'lora'"),
        ({"method": "lora"}, {"method": "qlora"}, "method = 'qlora'"),
        ({"method": "lora", "use_dora": True}, {"method": "qlora"}, "method = 'qlora'"),
        ({"max_length": 4096}, {"max_length": 2048}, "max_length = 2048"),
    ],
)  # fmt: skip
def test_the_first_change_that_suffices_is_named(more, needed, advice):
    def fits(changed):
        return all(getattr(changed, name) == value for name, value in needed.items())

    assert suggest_change(suggest_settings(**more), fits) == f"Set {advice}: then it fits."


def test_changes_that_only_suffice_together_are_named_together():
    def fits(changed):
        return changed.method == "qlora" and changed.max_length == 1024

    advice = suggest_change(suggest_settings(method="lora", max_length=2048), fits)
    assert advice.startswith("No setting alone suffices.")
    assert "method = 'qlora', max_length = 1024" in advice


def test_where_nothing_helps_that_is_said():
    assert suggest_change(suggest_settings(max_length=256), lambda _: False).startswith(
        "No setting makes it fit."
    )


def test_the_parts_of_a_measured_plan_sum_to_its_peak():
    memory = {"weights": 50, "activations": 30, "allocator": 9, "program": 100}
    estimate = CostEstimate(memory, {"products": 3.0, "attention": 1.0}, 9.0)
    more = adjust(estimate, StepMeasurement(8.0, 2.0, peak=210, program=120), "cpu")
    assert more.memory == {"weights": 50, "activations": 30, "allocator": 10, "program": 120}
    assert more.micro_batch_seconds == {"products": 6.0, "attention": 2.0}
    assert more.optimizer_seconds == 2.0
    # Weights that nobody read are mapped from their file.
    less = adjust(estimate, StepMeasurement(8.0, 2.0, peak=180, program=120), "cpu")
    assert less.memory == {"weights": 30, "activations": 30, "allocator": 0, "program": 120}


def test_a_micro_batch_is_measured_where_the_weights_are(plain_settings):
    settings = build_settings(plain_settings | {"accumulative_counts": 4}, "here")
    local = dataclasses.replace(ONE_EACH, is_local=True)
    measured, estimated = build_plan(settings, local), build_plan(settings, ONE_EACH)
    assert not measured.notes
    assert measured.peak == sum(measured.memory.values()) > 100 * 2**20
    assert measured.step_seconds == pytest.approx(sum(measured.spent.values()))
    assert measured.step_seconds != estimated.step_seconds
    assert measured.memory["gradients"] == estimated.memory["gradients"]


def test_where_nothing_can_be_measured_the_plan_says_why(plain_settings, monkeypatch):
    monkeypatch.setattr("elysia.train.planner.measure.sys.executable", "false")
    local = dataclasses.replace(ONE_EACH, is_local=True)
    plan = build_plan(build_settings(plain_settings, "here"), local)
    assert "No micro-batch could be measured" in plan.notes[0] and plan.step_seconds > 0
