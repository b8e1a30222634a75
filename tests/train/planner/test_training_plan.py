import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from elysia.core.errors import ConfigError
from elysia.train.config.settings import build_settings
from elysia.train.data.dataset import collate_flat
from elysia.train.methods.sft import SupervisedFinetune
from elysia.train.planner import flops
from elysia.train.planner.batch_shapes import MicroBatchShape, pick_typical
from elysia.train.planner.hardware import DeviceRates, lookup_gpu
from elysia.train.planner.heap import grown
from elysia.train.planner.meta_model import WINDOW, MetaModel
from elysia.train.planner.op_tracer import trace_micro_batch
from elysia.train.planner.training_plan import TargetDevice, build_plan, resolve_target

RATES = DeviceRates("a device", *[1e9] * 9, 1e-6, False)
ONE_EACH = TargetDevice("cpu", RATES, 2**40, "float32")
LORA = {"r": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"}


def outline(folder, adapter=LORA, bits=None, **kwargs):
    llm = {"path": str(folder), "bits": bits}
    return MetaModel(llm=llm, adapter=adapter, **kwargs).train()


def batch(length=64, predictions=32):
    return {"shape": (1, length), "segments": [length], "predictions": predictions}


@pytest.mark.parametrize("adapter", [None, LORA])
def test_a_traced_step_has_the_products_that_the_meter_counts(tiny_internlm2, adapter):
    model = outline(tiny_internlm2, adapter)
    counted = trace_micro_batch(model, batch(), RATES, True).seconds["products"] * RATES.flops
    load = flops.BatchLoad(64, 64, 32, 32, 0, 0)  # attention is timed apart
    ours = flops.executed_flops(flops.count_token_work(model.causal), load)
    # A frozen embedding asks for no gradient of the first layer's queries, keys and values.
    first = 2 * 64 * (64 * 128 + 3 * 64 * LORA["r"]) if adapter else 0
    # Small products are slower by their bytes than by their products: never faster.
    assert ours - first <= counted * 1.001


def test_the_peak_of_a_trace_is_that_of_the_tensors_a_real_step_makes(tiny_internlm2):
    """Every tensor that forward saves is there at the end of it, on both sides."""
    ids = torch.arange(20, 84).numpy()
    labels = ids.copy()
    labels[0] = -100
    real = SupervisedFinetune({"path": str(tiny_internlm2)}, None, device="cpu").train()
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in real.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        real(collate_flat([{"ids": ids, "labels": labels, "lengths": [64]}]))
    held = sum(size for place, size in saved.items() if place not in weights)
    peak = trace_micro_batch(outline(tiny_internlm2, None), batch(64, 63), RATES, True).peak
    assert held < peak < 2.5 * held


def test_recomputation_is_slower_and_holds_less(tiny_internlm2):
    plain = trace_micro_batch(outline(tiny_internlm2), batch(512, 64), RATES, True)
    again = trace_micro_batch(
        outline(tiny_internlm2, gradient_checkpointing=True), batch(512, 64), RATES, True
    )
    assert again.peak < 0.8 * plain.peak
    assert sum(again.seconds.values()) > 1.1 * sum(plain.seconds.values())


def test_a_plan_needs_no_weights_and_no_tokenizer(tiny_internlm2, plain_settings, tmp_path):
    shutil.copy(tiny_internlm2 / "config.json", tmp_path)
    values = plain_settings | {"pretrained_model_name_or_path": str(tmp_path), "method": "full"}
    found = build_plan(build_settings(values, "here"), ONE_EACH)
    count = json.loads((tiny_internlm2 / "config.json").read_text())["vocab_size"] * 64 * 2
    assert found.memory["weights"] > 4 * count
    assert found.memory["gradients"] == found.memory["optimizer"] // 2
    assert found.fits and "no tokenizer" in found.notes[0] and not found.data


@pytest.mark.parametrize("name", ["torch_compile", "liger_kernel"])
def test_kernels_that_were_not_measured_are_not_planned_and_it_says_so(
    tiny_internlm2, plain_settings, name
):
    found, plain = (
        build_plan(build_settings(plain_settings | {name: on}, "here"), ONE_EACH)
        for on in (True, False)
    )
    assert found.notes == [
        f"{name} = True is not in these figures: they are those of {name} = False."
    ]
    assert not plain.notes and found.step_seconds == plain.step_seconds
    assert found.memory["activations"] == plain.memory["activations"]


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
    found = build_plan(build_settings(values, "here"), ONE_EACH)
    data = found.data
    assert data["rows"] == 24 and 0 < data["dropped"] < 1 and data["longest"] <= 64
    assert 0 < data["labelled"] < 1 and 0 <= data["padding"] < 1
    assert found.tokens_per_s > found.labelled_per_s > 0
    assert found.seconds == pytest.approx(found.steps * found.step_seconds)


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


def test_a_heap_reuses_what_fits_and_grows_by_what_does_not():
    kb = 1024
    a, b, c = 1, 2, 3
    # Below the mapped size: the hole of `a` is too small to align `c` in, and serves a smaller one.
    assert grown([(a, 100 * kb), (b, 10 * kb), (a, 0), (c, 100 * kb)], 1) > 210 * kb
    assert grown([(a, 100 * kb), (b, 10 * kb), (a, 0), (c, 90 * kb)], 1) < 111 * kb
    # Mapped blocks go back.
    assert grown([(a, 2**26), (a, 0), (b, 2**26), (b, 0)], 2) == 2**26


def test_holes_that_are_there_before_are_filled_first():
    kb = 1024
    holes = [110 * kb, 64 * kb, 220 * kb]
    assert grown([(1, 100 * kb), (2, 100 * kb), (3, 100 * kb)], 1, holes) < sum(holes) + kb
    assert grown([(1, 100 * kb)], 1, [90 * kb]) > 190 * kb  # too small a hole
    assert (
        grown([(1, 100 * kb)], 1, [], 90 * kb) < 102 * kb
    )  # what is free at the top is grown from


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone tells of its holes")
def test_the_holes_of_a_process_are_told():
    code = """if True:  # in a process whose heap nobody else is at
        from elysia.train.planner.heap import free_here
        before = sum(free_here()[0])
        kept = [bytearray(100_000) for _ in range(60)]
        between = kept[1::2]
        del kept[::2], kept
        print(sum(free_here()[0]) - before)
    """
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert int(told.stdout) > 20 * 100_000, told.stderr


def test_embeddings_are_held_where_the_data_read_them(tiny_internlm2):
    model = outline(tiny_internlm2)
    weight = model.causal.get_input_embeddings().weight
    row, size = weight.shape[1] * 4, weight.numel() * 4
    assert model.unread(np.array([0])) == size - WINDOW
    assert model.unread(np.arange(weight.shape[0])) == 0
    far = WINDOW // row
    assert model.unread(np.array([0, 1, far])) == size - 2 * WINDOW
    assert model.unread(None) == 0
    assert outline(tiny_internlm2, None).unread(np.array([0])) == 0  # all of it trains
    assert outline(tiny_internlm2, dtype="bfloat16").unread(np.array([0])) == 0  # a copy is made


def test_the_typical_micro_batch_is_so_in_what_it_learns_too():
    few, many = MicroBatchShape((100,), False, 10), MicroBatchShape((100,), False, 90)
    usual = MicroBatchShape((98,), False, 50)
    assert pick_typical([few, many, usual, few, many]) == usual


def test_the_traced_products_of_a_full_step_are_torchs(tiny_internlm2):
    """FlopCounterMode on a real padded step, and the trace of the same shapes, without attention."""
    model = outline(tiny_internlm2, None)
    work = flops.count_token_work(model.causal)
    real = SupervisedFinetune({"path": str(tiny_internlm2)}, None, device="cpu").train()
    assert flops.count_token_work(real.causal) == work
    ids = torch.arange(20, 84).numpy()
    labels = ids.copy()
    labels[: 64 - 32] = -100
    data = collate_flat([{"ids": ids, "labels": labels, "lengths": [64]}])
    counter = FlopCounterMode(display=False)
    with counter:
        real(data).backward()
    counts = counter.get_flop_counts()["Global"].items()
    matrix = sum(count for op, count in counts if "mm" in str(op) and "bmm" not in str(op))
    load = flops.BatchLoad(64, 64, 32, 32, 0, 0)
    assert matrix == flops.executed_flops(work, load)
