"""Compiled decoder layers against the plain ones.

Most tests let the compiler read the code and run what it read as it is ("eager"), or with the gradients that
it derives ("aot_eager"): that shows what is captured, and how often, in seconds. One makes real code.
"""

import re

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from elysia.core.errors import ConfigError, DeviceError, ModelError
from elysia.models import tiny
from elysia.train import checkpoint
from elysia.train.config.settings import build_settings
from elysia.train.config.validation import check_device
from elysia.train.data.dataset import collate_flat, collate_padded
from elysia.train.kernels import layer_compile
from elysia.train.launch import train
from elysia.train.methods.sft import SupervisedFinetune

LORA = {"r": 4, "alpha": 6, "dropout": 0.0, "targets": "all-linear"}
PACKS = [[70], [5, 70, 1, 33], [128], [64] * 3, [300, 10], [17] * 9]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def build(folder, compile, bits=None, adapter=LORA, **kwargs):
    torch.manual_seed(0)
    model = SupervisedFinetune(
        {"path": str(folder), "bits": bits}, adapter, torch_compile=compile, device="cpu", **kwargs
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # starts at zero, where half of the gradients vanish
            parameter.data.normal_(0, 0.02)
    return model.train()


def batch(lengths, collate=collate_flat):
    rng = np.random.default_rng(sum(lengths))
    ids = rng.integers(20, 500, sum(lengths))
    labels = np.where(rng.random(len(ids)) < 0.6, ids, -100)
    labels[np.cumsum([0, *lengths[:-1]])] = -100
    return collate([{"ids": ids, "labels": labels, "lengths": lengths}])


def gradients(model, batch):
    torch.manual_seed(1)
    model.zero_grad()
    loss = model(batch)
    loss.backward()
    gradients_by_name = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    assert all(g.abs().max() > 0 for g in gradients_by_name.values())
    return {"loss": loss.detach(), **gradients_by_name}


def agree(folder, backend, monkeypatch, packs=PACKS, collate=collate_flat, tolerance=1e-5, **how):
    """Losses and gradients of `packs` with and without, and the names of the weights, which a compiled model
    keeps; returns how many graphs were made.
    """
    monkeypatch.setattr(layer_compile, "BACKEND", backend)
    plain, compiled = (build(folder, way, **how) for way in (False, True))
    assert not counters["stats"]["unique_graphs"]
    names = list(plain.state_dict()), list(plain.trainable_state())
    for lengths in packs:
        expected, actual = (
            gradients(model, batch(lengths, collate)) for model in (plain, compiled)
        )
        for name, value in expected.items():
            torch.testing.assert_close(actual[name], value, rtol=tolerance, atol=tolerance)
    assert (list(compiled.state_dict()), list(compiled.trainable_state())) == names
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"adapter": LORA | {"dropout": 0.3}, "gradient_checkpointing": True},
        {"adapter": None, "gradient_checkpointing": True},
    ],
    ids=["lora", "dropout-and-checkpoints", "full"],
)
def test_packs_of_many_lengths_have_the_same_gradients_from_a_handful_of_graphs(
    tiny_internlm2, monkeypatch, how
):
    graphs = agree(tiny_internlm2, "eager", monkeypatch, **how)
    # Before attention two, behind it two; one or two again where gradients begin, or a pack is one sample.
    assert 4 <= graphs <= 8
    agreed = [text for text in counters["graph_break"] if "torch.compiler.disable" not in text]
    assert agreed == []  # but for attention, nothing breaks the code apart


def test_graphs_do_not_grow_with_the_layers(tiny_tokenizer, tmp_path, monkeypatch):
    deep = tiny.init_model(
        tmp_path / "deep", tokenizer=tiny_tokenizer, hidden_size=32, layers=9, heads=2, intermediate_size=64
    )  # fmt: skip
    assert agree(deep, "eager", monkeypatch, PACKS[:2]) <= 8


@pytest.mark.parametrize("bits, dtype", [(4, "float32"), (None, "bfloat16")])
def test_derived_gradients_of_nf4_and_of_sixteen_bits_are_the_same(
    tiny_llama, monkeypatch, bits, dtype
):
    how = {"bits": bits, "dtype": dtype, "gradient_checkpointing": True}
    tolerance = 1e-5 if bits else 1e-2
    assert agree(tiny_llama, "aot_eager", monkeypatch, PACKS[:3], tolerance=tolerance, **how) <= 8


def test_padded_rows_are_compiled_with_their_attention(tiny_llama, monkeypatch):
    how = {"attention": "sdpa", "collate": collate_padded}
    packs = [[70], [5, 70, 1, 33], [64] * 3, [128], [9, 200, 3], [50] * 5]
    # One row, several with a mask, several of one length; each twice: gradients begin behind the first layer.
    assert agree(tiny_llama, "eager", monkeypatch, packs, **how) <= 6
    assert not counters["graph_break"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_code_that_inductor_makes_has_the_same_gradients(tiny_internlm2, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing made before is used
    how = {"gradient_checkpointing": True}
    assert agree(tiny_internlm2, "inductor", monkeypatch, PACKS[:4], **how) <= 8


def test_what_runs_without_gradients_is_not_compiled(tiny_internlm2, monkeypatch):
    monkeypatch.setattr(layer_compile, "BACKEND", "eager")
    model = build(tiny_internlm2, True).eval()
    ids = torch.arange(20, 30)[None]
    with torch.no_grad():
        model(batch([30, 9]))
        model.llm.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=3)
    assert not counters["frames"]


def test_a_run_that_chats_and_is_resumed_ends_with_the_weights_of_a_plain_one(
    plain_settings, tmp_path, monkeypatch
):
    """With the compiler's own code the last digits may differ: see docs/methods.md."""
    monkeypatch.setattr(layer_compile, "BACKEND", "eager")
    runs = {}
    for name, compile in (("plain", False), ("made", True)):
        values = plain_settings | {
            "evaluation_inputs": ["你好"],
            "heldout": 3,
            "torch_compile": compile,
            # One before attention, one behind it: most of the time goes to reading each adapter's code.
            "lora_target_modules": ["wqkv", "w2"],
        }
        config = tmp_path / f"{name}.py"
        config.write_text("".join(f"{n} = {v!r}\n" for n, v in values.items()))
        runs[name] = config
        assert train(str(config), work_dir=str(tmp_path / name)) == 0
    assert counters["stats"]["unique_graphs"]
    last = checkpoint.last_checkpoint(tmp_path / "plain").name
    expected, actual = (
        torch.load(tmp_path / name / last, weights_only=False) for name in ("plain", "made")
    )
    same(expected["state_dict"], actual["state_dict"])
    (tmp_path / "made" / last).unlink()
    assert train(str(runs["made"]), work_dir=str(tmp_path / "made"), resume="auto") == 0
    again = torch.load(tmp_path / "made" / last, weights_only=False)
    same(again["state_dict"], actual["state_dict"])


def same(first, second):
    assert list(first) == list(second) and not any("_orig_mod" in name for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "other, words",
    [
        ({"liger_kernel": True}, "both set"),
        ({"use_dora": True}, "breaks the graph at every adapted weight"),
        ({"attention": "flash_attention_2"}, "has not been tested"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_does_not_go_together_is_refused_with_the_settings(plain_settings, other, words):
    with pytest.raises(ConfigError, match=f"torch_compile.*{words}"):
        build_settings(plain_settings | {"torch_compile": True} | other, "c")


def test_a_machine_that_cannot_compile_is_told_what_it_lacks(plain_settings, monkeypatch):
    settings = build_settings(plain_settings | {"torch_compile": True}, "c")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeviceError, match=re.escape("there is no C++ compiler (no-such-compiler)")):
        check_device(settings)
    monkeypatch.setattr(layer_compile, "find_spec", lambda name: None)
    assert "triton" in str(layer_compile.missing_requirement("cuda"))


def test_layers_of_another_kind_are_refused():
    with pytest.raises(ModelError, match="layers of Linear are not transformers' own"):
        layer_compile.compile_layers(torch.nn.Linear(2, 2))
