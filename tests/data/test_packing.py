"""Packing: every sample once, none cut, packs nearly full, the same for the same seed."""

from __future__ import annotations

import random

import pytest
from transformers import AutoTokenizer

from elysia.core.errors import DataError
from elysia.core.templates import get_template
from elysia.data.formats.conversion import load_conversations
from elysia.data.packing import _order, pack_best_fit
from elysia.data.tokenize.sample_tokenizer import tokenize_samples


def random_lengths(seed: int) -> tuple[list[int], int]:
    draw = random.Random(seed)
    capacity = draw.choice([1, 2, 7, 100, 2048])
    return [draw.randint(1, capacity) for _ in range(draw.randint(0, 300))], capacity


@pytest.mark.parametrize("seed", range(40))
def test_every_sample_comes_once_and_no_pack_overflows(seed):
    lengths, capacity = random_lengths(seed)
    packs = pack_best_fit(lengths, capacity, seed)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in pack) <= capacity for pack in packs)


@pytest.mark.parametrize("seed", range(40))
def test_no_two_packs_could_have_been_one(seed):
    # Best fit opens a pack only when no other has room, so at most one pack is half empty.
    lengths, capacity = random_lengths(seed)
    packs = pack_best_fit(lengths, capacity, seed)
    fill = sorted(sum(lengths[i] for i in pack) for pack in packs)
    assert len(fill) < 2 or fill[0] + fill[1] > capacity


def naive(lengths, capacity, order):
    """Best fit as its definition says it, in n^2 steps."""
    packs: list[list[int]] = []
    for index in order:
        room = [capacity - sum(lengths[i] for i in pack) - lengths[index] for pack in packs]
        fitting = [(left, at) for at, left in enumerate(room) if left >= 0]
        if fitting:
            packs[min(fitting)[1]].append(index)
        else:
            packs.append([index])
    return packs


@pytest.mark.parametrize("seed", range(10))
def test_packs_are_as_few_as_the_definition_gives(seed):
    lengths, capacity = random_lengths(seed)
    order = _order(lengths, random.Random(seed))
    expected = [sum(lengths[i] for i in pack) for pack in naive(lengths, capacity, order)]
    sizes = [sum(lengths[i] for i in pack) for pack in pack_best_fit(lengths, capacity, seed)]
    assert sorted(order) == list(range(len(lengths)))
    assert sorted(sizes) == sorted(expected)


def test_other_seeds_put_other_samples_together():
    lengths = [random.Random(5).randint(100, 400) for _ in range(500)]
    pairs = [
        {(a, b) for pack in pack_best_fit(lengths, 1000, seed) for a in pack for b in pack if a < b}
        for seed in (0, 1)
    ]
    assert len(pairs[0] & pairs[1]) < len(pairs[0]) / 10


def test_the_seed_decides():
    lengths, capacity = [random.Random(1).randint(1, 50) for _ in range(200)], 100
    assert pack_best_fit(lengths, capacity, 3) == pack_best_fit(lengths, capacity, 3)
    assert pack_best_fit(lengths, capacity, 3) != pack_best_fit(lengths, capacity, 4)


def test_packs_come_in_no_order_of_fill():
    lengths, capacity = [random.Random(2).randint(1, 60) for _ in range(2000)], 64
    fill = [sum(lengths[i] for i in pack) for pack in pack_best_fit(lengths, capacity, 0)]
    half = len(fill) // 2
    assert abs(sum(fill[:half]) / half - sum(fill[half:]) / (len(fill) - half)) < 2


@pytest.mark.parametrize("length", [0, -1, 11])
def test_a_length_that_no_pack_can_hold_is_refused(length):
    with pytest.raises(DataError, match=f"Sample 1 has {length} tokens and a pack holds 1 to 10"):
        pack_best_fit([3, length], 10, 0)


def test_nothing_packs_into_nothing():
    assert pack_best_fit([], 10, 0) == []


def test_packs_of_the_real_dialogues_are_nearly_full(shared_data):
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers/qwen2")
    samples = load_conversations(shared_data / "persona/emollm_aiwei.json", "xtuner")
    template = get_template("internlm2_chat")
    lengths = tokenize_samples(samples, template, tokenizer, max_length=2048).lengths.tolist()
    # At 1,024 tokens two or three of these lengths (nearly all 284 to 435) fit, and less is filled.
    for capacity, share in ((768, 0.95), (1024, 0.88), (2048, 0.955), (4096, 0.97)):
        packs = pack_best_fit(lengths, capacity, seed=0)
        assert sum(lengths) / (len(packs) * capacity) >= share
