"""How parameters are handed to an optimizer; runs themselves are in test_resume.py and test_zero.py."""

import torch

from elysia.models import adapters, loading
from elysia.train.distributed.strategy import build_parameter_groups


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
