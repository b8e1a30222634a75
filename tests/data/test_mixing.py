"""How often sources are seen."""

import pytest

from elysia.core.errors import DataError
from elysia.data.sources import compute_repeats


def test_without_weights_repeats_are_as_they_are():
    assert compute_repeats([{"path": "a", "repeat": 2.5}, {"path": "b"}], [10, 20]) == [2.5, 1]


def test_weights_are_shares_of_the_rows_seen():
    sources = [
        {"path": "plain", "repeat": 3},
        {"path": "her", "weight": 3, "repeat": 2},
        {"path": "general", "weight": 1},
    ]
    repeats = compute_repeats(sources, [5, 300, 1000])
    assert repeats[:2] == [3, 2]
    assert repeats[2] * 1000 == pytest.approx(300 * 2 / 3)


@pytest.mark.parametrize("weight", [0, -1, True, "much"])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(DataError, match="weight of b must be above 0"):
        compute_repeats([{"path": "a", "weight": 1}, {"path": "b", "weight": weight}], [1, 1])


def test_a_weight_beside_a_repeat_is_refused():
    with pytest.raises(DataError, match="a weight and a repeat"):
        compute_repeats(
            [{"path": "a", "weight": 1}, {"path": "b", "weight": 1, "repeat": 2}], [1, 1]
        )
