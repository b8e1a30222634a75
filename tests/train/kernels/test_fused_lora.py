"""The short way of adapters and gates against PEFT's and transformers' own."""

import pytest
import torch

from elysia.models import adapters, loading
from elysia.train.kernels import fused_lora

IDS = torch.arange(20, 84).view(2, 32)


def build(folder, short, bits=None, dtype="float32", **adapter):
    """A model with adapters that change something; a scale that is no power of two."""
    torch.manual_seed(0)
    base = loading.load_causal_lm(folder, dtype=dtype, device="cpu", bits=bits)
    model = adapters.add_lora(base, **{"r": 4, "alpha": 6, "dropout": 0.0} | adapter)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.02)
    if short:
        fused_lora.patch_lora_and_mlp(model)
    return model.train()


def step(model, dtype=torch.float32):
    """Logits of one pass, and the gradients of their mean square."""
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        logits = model(input_ids=IDS, use_cache=False).logits
    logits.float().square().mean().backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert all(grad.abs().max() > 0 for grad in grads.values())
    return {"logits": logits.detach(), **grads}


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"dropout": 0.3},
        {"rslora": True},
        {"dora": True},  # takes PEFT's way
        {"bits": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("fixture", ["tiny_internlm2", "tiny_llama"])
def test_the_short_way_gives_the_same_logits_and_gradients(request, fixture, how):
    folder = request.getfixturevalue(fixture)
    plain, short = (step(build(folder, way, **how)) for way in (False, True))
    for name, value in plain.items():
        torch.testing.assert_close(short[name], value, rtol=1e-5, atol=1e-6)


def test_under_autocast_it_is_as_near_to_float32_as_the_plain_way(tiny_llama):
    exact = step(build(tiny_llama, False))
    plain, short = (
        step(build(tiny_llama, way, dtype="bfloat16"), torch.bfloat16) for way in (False, True)
    )

    def off(actual):
        """Mean over the gradients: any one of them is off by chance."""
        parts = [(actual[n].float() - value).norm() / value.norm() for n, value in exact.items()]
        return float(torch.stack(parts).mean())

    assert 1e-3 < off(short) < 1.1 * off(plain) < 0.05


def count_saved(model):
    """Bytes that a forward pass keeps for the backward pass."""
    saved = {}

    def keep(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(input_ids=IDS, use_cache=False).logits
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    assert logits.requires_grad
    return sum(size for place, size in saved.items() if place not in own)


def test_it_keeps_less_for_the_backward_pass(tiny_llama):
    plain, short = (build(tiny_llama, way) for way in (False, True))
    layers, wide = short.config.num_hidden_layers, short.config.intermediate_size
    # Of each gated MLP the activated half, in float32.
    assert count_saved(plain) - count_saved(short) >= layers * wide * IDS.numel() * 4


def test_an_adapter_that_is_switched_off_stays_off(tiny_llama):
    plain, short = (build(tiny_llama, way) for way in (False, True))
    on = short(input_ids=IDS, use_cache=False).logits
    with plain.disable_adapter(), short.disable_adapter():
        off = short(input_ids=IDS, use_cache=False).logits
        assert torch.equal(off, plain(input_ids=IDS, use_cache=False).logits)
    assert not torch.allclose(on, off, atol=1e-4)


def test_scattered_weights_go_through_their_own_modules(tiny_llama):
    """ZeRO-3 gathers a weight when its module is called: it must be."""
    model = build(tiny_llama, True)
    called = []
    for name, module in model.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
            module.weight.ds_id = 0
    model(input_ids=IDS, use_cache=False)
    assert len(called) == 7 * model.config.num_hidden_layers
