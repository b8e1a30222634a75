"""Plans of reward models, of DoRA on 4 bits and of rows that processes share, each beside a real step of
the same model: the products it carries out, and the tensors it keeps for the backward pass."""

import dataclasses
import json
import shutil
import weakref

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from elysia.core.errors import DeviceError, ModelError
from elysia.train.config.settings import build_settings
from elysia.train.data.dataset import collate_flat
from elysia.train.distributed import sequence_parallel
from elysia.train.kernels import packed_attention
from elysia.train.methods.reward import RewardFinetune
from elysia.train.methods.sft import SupervisedFinetune
from elysia.train.planner.hardware import DeviceRates
from elysia.train.planner.meta_model import MetaModel
from elysia.train.planner.op_tracer import trace_micro_batch
from elysia.train.planner.training_plan import KERNEL, TargetDevice, build_plan

RATES = DeviceRates("a device", *[1e9] * 9, 1e-6, False)
ONE_EACH = TargetDevice("cpu", RATES, 2**40, "float32")
# Bytes cost nothing: seconds of products are their number.
COUNTING = dataclasses.replace(RATES, flops=1.0, batched=1.0, bytes=1e30, fresh=1e30)
BODY = 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 128)  # weights of the tiny model's linear layers
LORA = {"r": 4, "alpha": 8, "dropout": 0.1, "targets": "all-linear"}
CASES = {
    "reward": {"objective": "reward"},
    "full reward": {"objective": "reward", "adapter": None},
    "dora": {"dora": True},
    "qlora": {"bits": 4},
    "qlora and dora": {"bits": 4, "dora": True},
    "qlora and dora, no dropout": {"bits": 4, "dora": True, "dropout": 0.0},
    "reward, qlora and dora": {"bits": 4, "dora": True, "objective": "reward"},
    "shared": {"sharing": 2},
    "shared, qlora and dora": {"sharing": 2, "bits": 4, "dora": True},
}


def built(folder, *, objective="sft", adapter=LORA, bits=None, sharing=1, dtype="float32", **lora):
    """A real model and its outline."""
    adapter = adapter and adapter | lora
    arguments = {"llm": {"path": str(folder), "bits": bits}, "adapter": adapter, "dtype": dtype}
    kind = RewardFinetune if objective == "reward" else SupervisedFinetune
    real = kind(**arguments, device="cpu").train()
    if sharing > 1:
        real.sequence_group = sequence_parallel.FakeProcessGroup(sharing)
    outline = MetaModel(objective=objective, sequence_parallel_size=sharing, **arguments)
    return real, outline.train()


def batches(objective="sft", **others):
    """The same pack of two samples, as training and as an outline takes it. All that is learned lies in
    the first half, which a first process of two has."""
    labels = torch.arange(20, 148)
    labels[:64:2] = labels[64:] = -100
    ids = torch.arange(20, 148).numpy()
    pack = {"ids": ids, "labels": labels.numpy(), "lengths": [50, 78]}
    if objective == "reward":
        pack["labels"], pack["pairs"] = ids, 1
    shared = others.get("sharing", 1)
    shape = {"shape": (1, 128), "segments": [50, 78], "predictions": 32 * shared}
    return collate_flat([pack]), shape


class Held:
    """A tensor that a pass has kept for its backward: DoRA drops some of them before."""

    def __init__(self, tensor):
        self.tensor = tensor


def kept(real, batch):
    """Bytes of the tensors that a real pass keeps for its backward, weights left out."""
    seen = weakref.WeakSet()

    def keep(tensor):
        held = Held(tensor)
        seen.add(held)
        return held

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda held: held.tensor):
        loss = real(batch)
    storages = {held.tensor.untyped_storage().data_ptr(): held.tensor for held in seen}
    weights = {p.untyped_storage().data_ptr() for p in (*real.parameters(), *real.buffers())}
    assert loss.requires_grad  # and so is alive, with what it keeps
    return sum(t.untyped_storage().nbytes() for at, t in storages.items() if at not in weights)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_traced_products_are_those_of_a_real_step(case, tiny_internlm2):
    real, outline = built(tiny_internlm2, **case)
    batch, shape = batches(**case)
    packed_attention.clear_cache()
    counter = FlopCounterMode(display=False)
    with counter:
        real(batch).backward()
    counts = counter.get_flop_counts()["Global"]
    matrix = sum(count for op, count in counts.items() if "mm" in str(op) and "bmm" not in str(op))
    if case.get("bits"):  # bitsandbytes' products forward are out of the counter's sight
        matrix += 2 * 128 // case.get("sharing", 1) * BODY
    # What is no product takes nothing in this counting, but for the operations it starts.
    assert trace_micro_batch(outline, shape, COUNTING, True).seconds["products"] == pytest.approx(
        matrix
    )


def test_attention_in_blocks_is_counted_as_its_products(tiny_internlm2):
    real, outline = built(tiny_internlm2, dtype="bfloat16")
    batch, shape = batches()
    counter = FlopCounterMode(display=False)
    with counter:
        real(batch).backward()
    counts = counter.get_flop_counts()["Global"]
    attended = sum(count for op, count in counts.items() if "bmm" in str(op))
    assert attended > 0
    seconds = trace_micro_batch(outline, shape, COUNTING, True).seconds["attention"]
    assert seconds == pytest.approx(
        attended, rel=1e-3
    )  # softmax starts no product, but an operation


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_peak_is_that_of_the_tensors_a_real_step_keeps(case, tiny_internlm2):
    real, outline = built(tiny_internlm2, **case)
    batch, shape = batches(**case)
    held, peak = kept(real, batch), trace_micro_batch(outline, shape, RATES, True).peak
    assert held < peak < 1.25 * held


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


def test_every_length_of_a_row_has_kernels_of_its_own_in_16_bits(plain_settings):
    def program(dtype, **more):
        return planned(plain_settings | more, dataclasses.replace(ONE_EACH, dtype=dtype)).memory[
            "program"
        ]

    many = program("bfloat16", pack_to_max_length=False)
    assert many - program("float32", pack_to_max_length=False) > 20 * KERNEL
    one = program("bfloat16", max_steps=1, accumulative_counts=1, pack_to_max_length=False)
    assert many - one > 10 * KERNEL
