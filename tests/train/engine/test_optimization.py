import pytest

from elysia.train.engine.optimization import lr_factor


@pytest.mark.parametrize("total", [1, 2, 3, 5, 10, 100, 1000])
def test_no_step_of_any_run_is_spent_near_zero(total):
    factors = [lr_factor(step, total, 0.03) for step in range(total)]
    assert min(factors) > 0.1 / total**2
    assert factors[0] >= 1 / (max(1, round(total * 0.03)) + 1)


def test_it_warms_up_to_the_full_rate_and_then_only_falls():
    factors = [lr_factor(step, 200, 0.1) for step in range(200)]
    assert factors[:20] == sorted(factors[:20])
    assert factors[20] == 1.0
    assert factors[20:] == sorted(factors[20:], reverse=True)
    assert factors[-1] < 0.001


def test_even_a_short_run_has_one_real_warm_up_step():
    assert lr_factor(0, 8, 0.03) == 0.5
    assert lr_factor(1, 8, 0.03) == 1.0


def test_a_ratio_of_zero_means_no_warm_up():
    assert lr_factor(0, 8, 0.0) == 1.0
