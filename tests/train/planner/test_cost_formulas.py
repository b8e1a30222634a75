"""Bytes by formula beside what a real step of the same model keeps for its backward pass."""

import weakref
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from elysia.train.config.builder import build_model_config
from elysia.train.config.settings import build_settings
from elysia.train.data.dataset import collate_flat
from elysia.train.distributed import sequence_parallel
from elysia.train.kernels import packed_attention
from elysia.train.methods.reward import RewardFinetune
from elysia.train.methods.sft import SupervisedFinetune
from elysia.train.planner import flops
from elysia.train.planner.batch_shapes import MicroBatchShape, rank_typical
from elysia.train.planner.cost_formulas import KERNEL, CostModel, nf4_bytes
from elysia.train.planner.hardware import DeviceRates, TargetDevice

RATES = DeviceRates("a device", *[1e9] * 4)
ONE_EACH = TargetDevice("cpu", RATES, 2**40, "float32")
CASES = {
    "full": {"method": "full"},
    "lora": {"method": "lora", "lora_dropout": 0.0},
    "lora, dropout": {"method": "lora"},
    "recomputed": {"method": "lora", "gradient_checkpointing": True},
    "reward": {"method": "lora", "objective": "reward"},
    "full reward": {"method": "full", "objective": "reward"},
    "dora": {"method": "lora", "use_dora": True},
    "qlora": {"method": "qlora"},
    "qlora and dora": {"method": "qlora", "use_dora": True},
    "qlora and dora, no dropout": {"method": "qlora", "use_dora": True, "lora_dropout": 0.0},
    "reward, qlora and dora": {"method": "qlora", "use_dora": True, "objective": "reward"},
    "shared": {"method": "lora", "sequence_parallel_size": 2},
    "shared, qlora and dora": {"method": "qlora", "use_dora": True, "sequence_parallel_size": 2},
}
SHAPE = MicroBatchShape((50, 78), False, 32)


class SavedTensor:
    """A tensor that a pass keeps for its backward: DoRA drops some of them before."""

    def __init__(self, tensor):
        self.tensor = tensor


def count_saved_bytes(real, batch):
    """Bytes of the tensors that a real pass keeps for its backward, weights not counted."""
    saved = weakref.WeakSet()

    def pack(tensor):
        entry = SavedTensor(tensor)
        saved.add(entry)
        return entry

    packed_attention.clear_cache()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda entry: entry.tensor):
        loss = real(batch)
    storages = {entry.tensor.untyped_storage().data_ptr(): entry.tensor for entry in saved}
    weights = {p.untyped_storage().data_ptr() for p in (*real.parameters(), *real.buffers())}
    assert loss.requires_grad  # and so is alive, with what it keeps
    return sum(t.untyped_storage().nbytes() for at, t in storages.items() if at not in weights)


def build_batch(settings):
    """A pack of two samples; all that is learned lies in its first half, which a first process of two
    has."""
    labels = torch.arange(20, 148)
    labels[:64:2] = labels[64:] = -100
    ids = torch.arange(20, 148).numpy()
    pack = {"ids": ids, "labels": labels.numpy(), "lengths": [50, 78]}
    if settings.objective == "reward":
        pack["labels"], pack["pairs"] = ids, 1
    return collate_flat([pack])


def build_real_model(settings, folder):
    arguments = build_model_config(settings, str(folder), "float32")
    kind = RewardFinetune if settings.objective == "reward" else SupervisedFinetune
    arguments = {
        name: value
        for name, value in arguments.items()
        if name not in ("type", "objective", "sequence_parallel_size")
    }
    model = kind(**arguments, device="cpu").train()
    if settings.sequence_parallel_size > 1:
        size = settings.sequence_parallel_size
        model.sequence_group = sequence_parallel.FakeProcessGroup(size)
    return model


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_activations_are_the_tensors_that_a_real_step_keeps(case, tiny_internlm2, plain_settings):
    values = plain_settings | {"lora_dropout": 0.1, "dataset_format": "xtuner"} | case
    if "objective" in case:
        values["dataset_format"] = "preference"
    settings = build_settings(values, "the case")
    saved = count_saved_bytes(build_real_model(settings, tiny_internlm2), build_batch(settings))
    activations, logits = CostModel(settings, ONE_EACH, tiny_internlm2).activation_bytes(SHAPE)
    if settings.gradient_checkpointing:  # a layer is computed again in backward
        assert activations > saved
        return
    assert 0.95 * saved < activations + logits < 1.35 * saved


def test_recomputation_holds_less_and_computes_more(tiny_internlm2, plain_settings):
    shape = MicroBatchShape((512,), False, 64)
    plain, recomputed = (
        CostModel(
            build_settings(plain_settings | {"gradient_checkpointing": on}, "here"),
            ONE_EACH,
            tiny_internlm2,
        )
        for on in (False, True)
    )
    assert sum(recomputed.activation_bytes(shape)) < 0.8 * sum(plain.activation_bytes(shape))
    seconds = [sum(cost.micro_batch_seconds(shape).values()) for cost in (plain, recomputed)]
    assert seconds[1] > 1.1 * seconds[0]


def test_weights_of_4_bits_have_scales_beside_them():
    assert nf4_bytes(64 * 256, double_quant=False) == 64 * 128 + 256 * 4
    assert nf4_bytes(64 * 256, double_quant=True) == 64 * 128 + 256 + 4


def test_the_typical_micro_batch_is_so_in_what_it_learns_too():
    few, many = MicroBatchShape((100,), False, 10), MicroBatchShape((100,), False, 90)
    usual = MicroBatchShape((98,), False, 50)
    assert rank_typical([few, many, usual, few, many])[0] == usual


def test_the_products_of_a_full_step_are_those_that_torch_counts(tiny_internlm2, plain_settings):
    settings = build_settings(plain_settings | {"method": "full"}, "here")
    work = flops.count_token_work(CostModel(settings, ONE_EACH, tiny_internlm2).model.causal)
    real = SupervisedFinetune({"path": str(tiny_internlm2)}, None, device="cpu").train()
    assert flops.count_token_work(real.causal) == work
    ids = torch.arange(20, 84).numpy()
    labels = ids.copy()
    labels[: 64 - 32] = -100
    batch = collate_flat([{"ids": ids, "labels": labels, "lengths": [64]}])
    counter = FlopCounterMode(display=False)
    with counter:
        real(batch).backward()
    counts = counter.get_flop_counts()["Global"].items()
    products = sum(count for op, count in counts if "mm" in str(op) and "bmm" not in str(op))
    load = flops.BatchLoad(64, 64, 32, 32, 0, 0)
    assert products == flops.executed_flops(work, load)


def test_every_length_of_a_row_has_kernels_of_its_own_in_16_bits(tiny_internlm2, plain_settings):
    settings = build_settings(plain_settings, "here")
    single = [MicroBatchShape((100,), False, 32)]
    three = [*single, MicroBatchShape((300,), False, 32), MicroBatchShape((120,), False, 32)]
    half = CostModel(settings, replace(ONE_EACH, dtype="bfloat16"), tiny_internlm2)
    assert half.kernel_bytes(three) == 2 * half.kernel_bytes(single) > 10 * KERNEL
    assert CostModel(settings, ONE_EACH, tiny_internlm2).kernel_bytes(three) == 0
