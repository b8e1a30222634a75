from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from elysia.core.errors import ModelError
from elysia.models import adapters, loading
from elysia.models.device import cpu_has_bf16

IDS = torch.arange(20, 36)[None]
LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def adapted(folder: Path, bits: int | None = 4, dtype: str = "float32", **options: Any) -> Any:
    torch.manual_seed(0)
    model = loading.load_causal_lm(folder, dtype=dtype, device="cpu", bits=bits)
    model = adapters.add_lora(model, r=4, alpha=8, **options)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # away from zero, so that every adapter has a gradient
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.train()
    model.zero_grad()
    model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return grads


def chat(model: Any) -> None:
    """What an evaluation does between two training steps."""
    model.eval()
    with torch.no_grad():
        model.generate(input_ids=IDS[:, :4], max_new_tokens=3, do_sample=False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nf4_gradients_are_the_same_after_an_evaluation_chat_as_before(
    tiny_internlm2: Path, dtype: str
) -> None:
    model = adapted(tiny_internlm2, dtype=dtype)
    assert adapters.keep_nf4_trainable(model) == 14
    before = gradients(model)
    chat(model)
    after = gradients(model)
    assert before.keys() == after.keys()
    assert len(before) == 28
    assert all(before[name].abs().max() > 0 for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.skipif(not cpu_has_bf16(), reason="bitsandbytes repacks only with avx512_bf16")
@pytest.mark.filterwarnings("ignore")
def test_without_the_guard_an_evaluation_chat_takes_gradients_away(tiny_internlm2: Path) -> None:
    model = adapted(tiny_internlm2)
    if not any(getattr(m, "support_avx512bf16_for_cpu", False) for m in model.modules()):
        pytest.skip("bitsandbytes does not repack on this CPU")
    before = gradients(model)
    chat(model)
    after = gradients(model)
    worst = max(
        float(
            (before[n] - after.get(n, torch.zeros_like(before[n]))).abs().max()
            / before[n].abs().max()
        )
        for n in before
    )
    assert worst > 0.5


@pytest.mark.filterwarnings("ignore")
def test_the_guard_unpacks_layers_that_were_packed_before_it(tiny_internlm2: Path) -> None:
    model = adapted(tiny_internlm2)
    before = gradients(model)
    chat(model)
    adapters.keep_nf4_trainable(model)
    after = gradients(model)
    assert before.keys() == after.keys()
    # Packing rounds the scales, so the same direction is all that can be had back.
    for name in before:
        cosine = torch.nn.functional.cosine_similarity(
            before[name].flatten(), after[name].flatten(), 0
        )
        assert cosine > 0.99, name


def test_a_model_without_4_bit_layers_needs_no_guard(tiny_llama: Path) -> None:
    assert (
        adapters.keep_nf4_trainable(
            loading.load_causal_lm(tiny_llama, dtype="float32", device="cpu")
        )
        == 0
    )


@pytest.mark.parametrize("bits", [None, 4])
def test_a_fresh_adapter_changes_nothing(tiny_internlm2: Path, bits: int | None) -> None:
    model = loading.load_causal_lm(tiny_internlm2, dtype="float32", device="cpu", bits=bits)
    with torch.no_grad():
        before = model(IDS).logits
        assert torch.equal(adapters.add_lora(model, r=4, alpha=8).eval()(IDS).logits, before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_the_adapter_trains_and_in_float32(tiny_internlm2: Path, dtype: str) -> None:
    model = adapted(tiny_internlm2, dtype=dtype)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in trained.items())
    assert {name.split(".")[-4] for name in trained} == LINEAR
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight" in trained


def test_the_trainable_weights_are_copies_under_their_names(tiny_llama: Path) -> None:
    model = adapted(tiny_llama, bits=None)
    state = adapters.trainable_state_dict(model)
    assert state.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    name = next(iter(state))
    before = state[name].clone()
    with torch.no_grad():
        model.get_parameter(name).add_(1)
    assert torch.equal(state[name], before)


def test_a_saved_adapter_loads_back_onto_its_base(tiny_internlm2: Path, tmp_path: Path) -> None:
    model = adapted(tiny_internlm2).eval()
    adapters.keep_nf4_trainable(model)
    with torch.no_grad():
        expected = model(IDS).logits
        model.save_pretrained(tmp_path)
        # Without the guard, asking for the state dict requantizes the packed base a little off.
        assert torch.equal(model(IDS).logits, expected)
    base = loading.load_causal_lm(tiny_internlm2, dtype="float32", device="cpu", bits=4)
    adapters.keep_nf4_trainable(base)
    with torch.no_grad():
        plain = base(IDS).logits
        back = PeftModel.from_pretrained(base, str(tmp_path)).eval()(IDS).logits
    assert (plain - expected).abs().max() > 1e-3
    assert torch.equal(back, expected)


def test_a_merged_adapter_saves_and_loads_as_the_same_model(
    tiny_internlm2: Path, tmp_path: Path
) -> None:
    model = adapted(tiny_internlm2, bits=None).eval()
    with torch.no_grad():
        expected = model(IDS).logits
        loading.save_model(model.merge_and_unload(), None, tmp_path)
        merged = loading.load_causal_lm(tmp_path, dtype="float32", device="cpu")(IDS).logits
    assert (merged - expected).abs().max() < 1e-5


def test_internlm2s_own_layer_names_mean_the_split_layers(tiny_internlm2: Path) -> None:
    model = adapted(tiny_internlm2, bits=None, targets=["wqkv", "w2"])
    names = {n.split(".")[-4] for n in adapters.trainable_state_dict(model)}
    assert names == {"q_proj", "k_proj", "v_proj", "down_proj"}


def test_a_target_that_is_not_there_is_refused_with_the_names_that_are(tiny_llama: Path) -> None:
    base = loading.load_causal_lm(tiny_llama, dtype="float32", device="cpu")
    with pytest.raises(ModelError, match=r"no linear layer called wqkv.*q_proj"):
        adapters.add_lora(base, r=4, alpha=8, targets=["q_proj", "wqkv"])


@pytest.mark.parametrize("wrong", [{"r": 0}, {"alpha": 0}, {"dropout": 1.0}])
def test_impossible_numbers_are_refused(tiny_llama: Path, wrong: dict[str, float]) -> None:
    base = loading.load_causal_lm(tiny_llama, dtype="float32", device="cpu")
    with pytest.raises(ModelError, match="impossible"):
        adapters.add_lora(base, **{"r": 4, "alpha": 8, "dropout": 0.0, **wrong})  # type: ignore[arg-type]


def test_gradient_checkpointing_gives_the_same_gradients(tiny_internlm2: Path) -> None:
    plain = gradients(adapted(tiny_internlm2))
    model = adapted(tiny_internlm2)
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    saved = gradients(model)
    assert plain.keys() == saved.keys()
    assert all((plain[n] - saved[n]).abs().max() <= 1e-6 for n in plain)


@pytest.mark.parametrize("bits", [None, 4])
def test_a_fresh_dora_changes_nothing_and_its_magnitudes_train_in_float32(
    tiny_internlm2: Path, bits: int | None
) -> None:
    torch.manual_seed(0)
    base = loading.load_causal_lm(tiny_internlm2, dtype="float32", device="cpu", bits=bits)
    adapters.keep_nf4_trainable(base)
    with torch.no_grad():
        before = base(input_ids=IDS).logits
    model = adapters.add_lora(base, r=4, alpha=8, dora=True)
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=IDS).logits, before, rtol=1e-4, atol=1e-5)
    grads = gradients(model)
    lengths = {n: g for n, g in grads.items() if "magnitude" in n}
    assert len(lengths) == 14 and all(g.abs().max() > 0 for g in lengths.values())
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


def test_rank_stabilized_scaling_divides_by_the_root_of_the_rank(tiny_llama: Path) -> None:
    base = loading.load_causal_lm(tiny_llama, dtype="float32", device="cpu")
    model = adapters.add_lora(base, r=4, alpha=8, rslora=True)
    scalings = {
        m.scaling["default"] for m in model.modules() if isinstance(getattr(m, "scaling", 0), dict)
    }
    assert scalings == {4.0}
