"""A row that several processes share: what each holds, and what cannot be shared.

That two processes learn what one does is shown in test_deepspeed_strategy.py.
"""

import pytest
import torch

from elysia.core.errors import ConfigError, DeviceError, ModelError
from elysia.train.config.settings import build_settings
from elysia.train.data.dataset import EpochSampler
from elysia.train.distributed import sequence_parallel


def test_neighbours_share_a_place_in_the_data(monkeypatch):
    assert [sequence_parallel.data_parallel_rank(2, rank, 4) for rank in range(4)] == [
        (0, 2),
        (0, 2),
        (1, 2),
        (1, 2),
    ]
    seen = []
    for rank in range(4):
        monkeypatch.setattr("mmengine.dist.get_dist_info", lambda rank=rank: (rank, 4))
        seen.append(list(EpochSampler(range(6), seed=3, sequence_parallel_size=2)))
    assert seen[0] == seen[1] and seen[2] == seen[3]
    assert sorted(seen[0] + seen[2]) == list(range(6))


def test_processes_that_do_not_divide_are_told_what_to_start():
    with pytest.raises(DeviceError, match="this run has 1: start a multiple of 3"):
        sequence_parallel.build_sequence_group(3)
    assert sequence_parallel.build_sequence_group(1) is None


@pytest.mark.parametrize(
    "heads, shared, size, expected",
    [(8, 4, 2, 4), (8, 2, 4, 4), (8, 1, 2, 2), (12, 3, 2, 6), (12, 4, 6, 12), (4, 4, 4, 4)],
)
def test_query_heads_stay_with_their_keys(heads, shared, size, expected):
    """Cut into equal parts, the repeated keys of each part are those its queries had."""
    query = torch.arange(heads).view(1, heads, 1, 1)
    key = torch.arange(shared).view(1, shared, 1, 1)
    keys, values = sequence_parallel.repeat_kv_heads(query, key, key, size)
    assert keys.shape[1] == expected and torch.equal(keys, values)
    belongs = query // (heads // shared)
    for part, own in zip(keys.chunk(size, 1), belongs.chunk(size, 1), strict=True):
        assert torch.equal(part.repeat_interleave(own.shape[1] // part.shape[1], 1), own)


def test_heads_that_do_not_divide_are_refused():
    q = torch.zeros(1, 6, 1, 1)
    with pytest.raises(ModelError, match="6 attention heads"):
        sequence_parallel.repeat_kv_heads(q, q, q, 4)


@pytest.mark.parametrize(
    "more, what",
    [
        ({"objective": "dpo", "dataset_format": "preference"}, "compares whole ones"),
        ({"attention": "eager"}, "needs attention = 'auto'"),
        ({"sequence_parallel_size": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_shared_is_refused_with_the_settings(more, what):
    values = {"pretrained_model_name_or_path": "m", "data_path": "d", "sequence_parallel_size": 2}
    with pytest.raises(ConfigError, match=what):
        build_settings(values | more, "c")
