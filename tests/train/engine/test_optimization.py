"""The learning rate of every step, and how parameters are handed to an optimizer."""

import pytest
import torch

from elysia.models import adapters, loading
from elysia.train.engine.optimization import build_parameter_groups, lr_factor


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


def test_lora_plus_gives_the_second_factor_alone_a_higher_rate(tiny_llama):
    base = loading.load_causal_lm(tiny_llama, dtype="float32", device="cpu")
    model = adapters.add_lora(base, r=4, alpha=8, dora=True)
    names = {p: name for name, p in model.named_parameters()}
    rest, second = build_parameter_groups(model, 1e-4, 16.0)
    assert (rest["lr"], second["lr"]) == (1e-4, 16e-4)
    assert {names[p].split(".lora_")[1].split(".")[0] for p in rest["params"]} == {
        "A",
        "magnitude_vector",
    }
    assert {names[p].split(".lora_")[1].split(".")[0] for p in second["params"]} == {"B"}
    everything = {p for p in model.parameters() if p.requires_grad}
    assert {*rest["params"], *second["params"]} == everything
    assert set(build_parameter_groups(model, 1e-4, 1.0)) == everything
    torch.optim.AdamW([rest, second])
