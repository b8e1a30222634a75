from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from elysia.train.data.dataset import collate_flat, collate_padded
from elysia.train.methods.sft import SupervisedFinetune
from elysia.train.planner.flops import (
    BatchLoad,
    TokenWork,
    count_batch_load,
    count_token_work,
    executed_flops,
    useful_flops,
)

LORA = {"r": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"}


def pack(lengths=(5, 70, 1, 33)):
    """Samples end to end, six tokens in ten labelled."""
    draw = np.random.default_rng(0)
    ids = draw.integers(20, 500, sum(lengths))
    labels = np.where(draw.random(len(ids)) < 0.6, ids, -100)
    labels[np.cumsum([0, *lengths[:-1]])] = -100
    return {"ids": ids, "labels": labels, "lengths": list(lengths)}


def counted(folder, adapter, checkpointing=False):
    """(what torch counts in a padded step, our count)."""
    model = SupervisedFinetune(
        {"path": str(folder)}, adapter, attention="eager", device="cpu",
        gradient_checkpointing=checkpointing,
    ).train()  # fmt: skip
    batch = collate_padded([pack()])
    model(batch).backward()  # warm: nothing lazy is left
    counter = FlopCounterMode(display=False)
    with counter:
        model(batch).backward()
    work = count_token_work(model.causal, recomputed=checkpointing, segments=False)
    return (
        counter.get_total_flops(),
        executed_flops(work, count_batch_load(batch, "cpu")),
        work,
        batch,
    )


def test_a_full_step_is_counted_as_torch_counts_it(tiny_internlm2):
    torch_count, own_count, _, _ = counted(tiny_internlm2, None)
    assert own_count == torch_count


def test_an_adapters_step_lacks_only_the_gradient_of_frozen_embeddings(tiny_internlm2):
    torch_count, own_count, work, batch = counted(tiny_internlm2, LORA)
    # Queries, keys and values of the first layer, and their adapters' first factors.
    first = 64 * (64 + 32 + 32) + 3 * 64 * LORA["r"]
    assert own_count - torch_count == 2 * first * batch["labels"].numel()
    assert work.frozen == 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 128)


def test_recomputation_is_executed_and_not_useful(tiny_llama):
    torch_count, own_count, work, batch = counted(tiny_llama, LORA, checkpointing=True)
    plain, load = replace(work, recomputed=False), count_batch_load(batch, "cpu")
    assert useful_flops(work, load) == useful_flops(plain, load)
    once = 2 * (work.frozen + work.trained) * load.positions
    once += 4 * work.width * load.computed_squares
    assert executed_flops(work, load) - executed_flops(plain, load) == once
    # torch stops the recomputation of a layer before its last product, whose result nobody needs.
    assert torch_count == pytest.approx(own_count, rel=0.03) and torch_count <= own_count


def test_a_hand_count_of_one_layer():
    """Ten tokens, three of them predicted; a frozen weight of 6, a trained one of 4, a head of 8."""
    work = TokenWork(frozen=6, trained=4, head=8, head_trains=False, width=2)
    load = BatchLoad(10, 16, 3, 32, squares=55, computed_squares=100)
    assert useful_flops(work, load) == (4 * 6 + 6 * 4) * 10 + 4 * 8 * 3 + 12 * 2 * 55
    assert executed_flops(work, load) == (4 * 6 + 6 * 4) * 16 + 4 * 8 * 32 + 4 * 2 * 100 * 3.5
    whole = TokenWork(frozen=0, trained=10, head=8, head_trains=True, width=2)
    assert useful_flops(whole, load) == 6 * 10 * 10 + 6 * 8 * 3 + 12 * 2 * 55


def test_four_bit_weights_count_as_the_weights_they_stand_for(tiny_internlm2):
    torch.manual_seed(0)
    models = [
        SupervisedFinetune({"path": str(tiny_internlm2), "bits": bits}, LORA, device="cpu")
        for bits in (None, 4)
    ]
    first, second = (count_token_work(model.causal) for model in models)
    assert first == second


def test_padding_is_what_holds_no_token():
    flat = count_batch_load(collate_flat([pack()]), "cpu")
    assert (flat.tokens, flat.positions) == (109, 128)
    assert flat.squares == 15 + 70 * 71 / 2 + 1 + 33 * 17
    assert count_batch_load(collate_flat([pack((5, 70))]), "cuda").padding == 0
    padded = count_batch_load(collate_padded([pack()]), "cpu")
    assert padded.padding == pytest.approx(1 - 109 / 280)
