import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from elysia.models import loading
from elysia.models.architectures import internlm2

SIZES = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "rms_norm_eps": 1e-5,
}


def upstream_config(**changes: object) -> dict[str, object]:
    """A config.json as InternLM2 repositories publish it."""
    return {
        "architectures": ["InternLM2ForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_internlm2.InternLM2Config",
            "AutoModel": "modeling_internlm2.InternLM2ForCausalLM",
            "AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM",
        },
        "bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "model_type": "internlm2",
        "pad_token_id": 2,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.37.1",
        "use_cache": True,
        **SIZES,
        **changes,
    }


def random_weights(config: dict[str, object], seed: int = 0) -> dict[str, Tensor]:
    """Weights under InternLM2's keys, big enough that every part shows in the logits."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.2

    hidden, wide, words = (
        int(str(config[k])) for k in ("hidden_size", "intermediate_size", "vocab_size")
    )
    heads, kv = int(str(config["num_attention_heads"])), int(str(config["num_key_value_heads"]))
    width = hidden // heads
    tensors = {
        "model.tok_embeddings.weight": random(words, hidden),
        "model.norm.weight": 1 + random(hidden),
    }
    if not config["tie_word_embeddings"]:
        tensors["output.weight"] = random(words, hidden)
    for n in range(int(str(config["num_hidden_layers"]))):
        layer = f"model.layers.{n}."
        tensors[layer + "attention.wqkv.weight"] = random((heads + 2 * kv) * width, hidden)
        tensors[layer + "attention.wo.weight"] = random(hidden, heads * width)
        if config["bias"]:
            tensors[layer + "attention.wqkv.bias"] = random((heads + 2 * kv) * width)
            tensors[layer + "attention.wo.bias"] = random(hidden)
        tensors[layer + "feed_forward.w1.weight"] = random(wide, hidden)
        tensors[layer + "feed_forward.w3.weight"] = random(wide, hidden)
        tensors[layer + "feed_forward.w2.weight"] = random(hidden, wide)
        tensors[layer + "attention_norm.weight"] = 1 + random(hidden)
        tensors[layer + "ffn_norm.weight"] = 1 + random(hidden)
    return tensors


def write(folder: Path, config: dict[str, object], weights: dict[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def attend(fused: Tensor, heads: int, kv: int, width: int, rotate: Any) -> Tensor:
    """Attention (length, heads, width) over `wqkv`'s output, one head and position at a time."""
    length, group = len(fused), heads // kv
    mixed = torch.zeros(length, heads, width)
    for g in range(kv):
        rows = fused[:, g * (group + 2) * width : (g + 1) * (group + 2) * width]
        parts = rows.reshape(length, group + 2, width)
        keys = torch.stack([rotate(parts[t, group], t) for t in range(length)])
        for q in range(group):
            queries = torch.stack([rotate(parts[t, q], t) for t in range(length)])
            scores = queries @ keys.T / math.sqrt(width)
            for t in range(length):
                weights = scores[t, : t + 1].softmax(-1)
                mixed[t, g * group + q] = weights @ parts[: t + 1, group + 1]
    return mixed


def reference(config: dict[str, object], weights: dict[str, Tensor], ids: list[int]) -> Tensor:
    """Logits (length, vocabulary) from the paper's description, head by head, position by position."""
    heads, kv = int(str(config["num_attention_heads"])), int(str(config["num_key_value_heads"]))
    hidden = int(str(config["hidden_size"]))
    width = hidden // heads
    length = len(ids)

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + SIZES["rms_norm_eps"]).sqrt() * weight

    base = float(str(config["rope_theta"]))
    scaling = config["rope_scaling"]
    trained = int(str(config["max_position_embeddings"]))
    if isinstance(scaling, dict) and length > trained:
        factor = scaling["factor"]
        base *= ((factor * length / trained) - (factor - 1)) ** (width / (width - 2))

    def rotate(x: Tensor, position: int) -> Tensor:
        turned, half = x.clone(), width // 2
        for i in range(half):
            angle = position / base ** (2 * i / width)
            turned[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
            turned[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
        return turned

    x = weights["model.tok_embeddings.weight"][ids]
    for n in range(int(str(config["num_hidden_layers"]))):
        w = {
            k.removeprefix(f"model.layers.{n}."): v
            for k, v in weights.items()
            if f".layers.{n}." in k
        }
        fused = functional.linear(
            norm(x, w["attention_norm.weight"]),
            w["attention.wqkv.weight"],
            w.get("attention.wqkv.bias"),
        )
        mixed = attend(fused, heads, kv, width, rotate)
        x = x + functional.linear(
            mixed.reshape(length, hidden), w["attention.wo.weight"], w.get("attention.wo.bias")
        )
        y = norm(x, w["ffn_norm.weight"])
        gate = functional.silu(y @ w["feed_forward.w1.weight"].T)
        x = x + (gate * (y @ w["feed_forward.w3.weight"].T)) @ w["feed_forward.w2.weight"].T
    head = weights.get("output.weight", weights["model.tok_embeddings.weight"])
    return norm(x, weights["model.norm.weight"]) @ head.T


CASES = {
    "published": {},
    "bias": {"bias": True},
    "tied": {"tie_word_embeddings": True},
    "dynamic": {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "all heads": {"num_key_value_heads": 6},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("length", [12, 16, 40])
def test_logits_equal_an_independent_reference(tmp_path: Path, case: str, length: int) -> None:
    config = upstream_config(**CASES[case])
    weights = random_weights(config)
    model = loading.load_causal_lm(write(tmp_path, config, weights), dtype="float32", device="cpu")
    ids = [(7 * i + 3) % 96 for i in range(length)]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    expected = reference(config, weights, ids)
    assert expected.abs().max() > 1
    assert (logits - expected).abs().max() <= 2e-5


def test_dynamic_rope_does_not_remember_longer_texts(tmp_path: Path) -> None:
    config = upstream_config(rope_scaling={"type": "dynamic", "factor": 2.0})
    model = loading.load_causal_lm(
        write(tmp_path, config, random_weights(config)), dtype="float32", device="cpu"
    )
    text = torch.arange(24)[None]
    with torch.no_grad():
        before = model(text).logits
        model(torch.arange(60)[None])
        assert torch.equal(model(text).logits, before)


def test_other_rope_scalings_are_left_to_transformers(tmp_path: Path) -> None:
    config = upstream_config(rope_scaling={"type": "linear", "factor": 2.0})
    model = loading.load_causal_lm(
        write(tmp_path, config, random_weights(config)), dtype="float32", device="cpu"
    )
    positions = torch.arange(8)[None]
    cos, _ = model.model.rotary_emb(torch.zeros(1), positions)
    assert torch.allclose(cos[0, :, 0], torch.cos(positions[0] / 2), atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_weights_come_back_exactly_under_internlm2s_own_keys(tmp_path: Path, case: str) -> None:
    config = upstream_config(**CASES[case])
    weights = random_weights(config)
    model = loading.load_causal_lm(
        write(tmp_path / "in", config, weights), dtype="float32", device="cpu"
    )
    loading.save_model(model, None, tmp_path / "out")
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_a_model_made_from_nothing_saves_internlm2s_keys(tiny_internlm2: Path) -> None:
    names = load_file(tiny_internlm2 / "model.safetensors").keys()
    layer = (
        "attention.wqkv",
        "attention.wo",
        "feed_forward.w1",
        "feed_forward.w2",
        "feed_forward.w3",
    )
    assert names == {
        "model.tok_embeddings.weight",
        "model.norm.weight",
        "output.weight",
        *(
            f"model.layers.{n}.{p}.weight"
            for n in (0, 1)
            for p in (*layer, "attention_norm", "ffn_norm")
        ),
    }


def test_shards_load_to_the_same_weights(tmp_path: Path) -> None:
    config = upstream_config()
    weights = random_weights(config)
    model = loading.load_causal_lm(
        write(tmp_path / "in", config, weights), dtype="float32", device="cpu"
    )
    loading.save_model(model, None, tmp_path / "out", max_shard_size="30KB")
    files = sorted((tmp_path / "out").glob("model-*.safetensors"))
    assert len(files) > 2
    back = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert back.keys() == weights.keys()
    again = loading.load_causal_lm(tmp_path / "out", dtype="float32", device="cpu")
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_the_saved_config_speaks_to_old_and_new_readers(tmp_path: Path) -> None:
    config = upstream_config(rope_scaling={"type": "dynamic", "factor": 3.0})
    folder = write(tmp_path / "in", config, random_weights(config))
    loading.save_model(
        loading.load_causal_lm(folder, dtype="float32", device="cpu"), None, tmp_path / "out"
    )
    saved = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert saved["architectures"] == ["InternLM2ForCausalLM"]
    assert saved["model_type"] == "internlm2"
    assert saved["rope_theta"] == 1000000
    assert saved["rope_scaling"]["type"] == "dynamic"
    assert saved["rope_scaling"]["factor"] == 3.0
    assert saved["torch_dtype"] == saved["dtype"] == "float32"
    assert saved["bias"] is False
    assert "auto_map" not in saved
    assert "attention_bias" not in saved
    same = loading.load_config(tmp_path / "out")
    assert same.rope_parameters == loading.load_config(folder).rope_parameters


def test_a_reader_that_knows_no_internlm2_finds_what_it_needs(tmp_path: Path) -> None:
    config = upstream_config(rope_scaling={"type": "dynamic", "factor": 3.0})
    folder = write(tmp_path / "in", config, random_weights(config))
    loading.save_model(
        loading.load_causal_lm(folder, dtype="float32", device="cpu"), None, tmp_path / "out"
    )
    # The generic config is what a server falls back to without a class of its own.
    generic = PreTrainedConfig.from_pretrained(tmp_path / "out")
    for name in ("hidden_size", "num_key_value_heads", "bias", "max_position_embeddings"):
        assert getattr(generic, name) == config[name], name
    rope = generic.rope_parameters
    assert (rope["rope_type"], rope["factor"], rope["rope_theta"]) == ("dynamic", 3.0, 1000000)


def test_remote_code_is_never_run_and_a_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = upstream_config()
    folder = write(tmp_path, config, random_weights(config))
    for name in ("configuration_internlm2.py", "modeling_internlm2.py"):
        (folder / name).write_text("raise RuntimeError('remote code was run')\n", encoding="utf-8")
    with caplog.at_level(logging.INFO, logger="elysia"):
        model = loading.load_causal_lm(folder, dtype="float32", device="cpu")
    assert type(model) is internlm2.InternLM2ForCausalLM
    assert [r.message for r in caplog.records if "remote code" in r.message]
    # A library that asks transformers itself, and trusts, gets ours as well.
    assert (
        type(AutoConfig.from_pretrained(folder, trust_remote_code=True))
        is internlm2.InternLM2Config
    )
    trusting = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    assert type(trusting) is internlm2.InternLM2ForCausalLM


def test_a_sparse_config_gets_internlm2s_defaults() -> None:
    config = internlm2.InternLM2Config()
    assert (config.vocab_size, config.bias, config.attention_bias, config.pad_token_id) == (
        103168,
        True,
        True,
        0,
    )


@pytest.mark.parametrize(("heads", "kv"), [(4, 4), (6, 2), (8, 1)])
def test_splitting_then_fusing_gives_the_same_tensor(heads: int, kv: int) -> None:
    fused = torch.arange((heads + 2 * kv) * 4 * 3.0).reshape(-1, 3)
    query, key, value = internlm2.split_wqkv(fused, heads, kv, 4)
    assert (query.shape, key.shape, value.shape) == ((heads * 4, 3), (kv * 4, 3), (kv * 4, 3))
    assert torch.equal(internlm2.fuse_wqkv(query, key, value, kv, 4), fused)


def test_a_cached_reply_equals_the_uncached(tiny_internlm2: Path) -> None:
    model = loading.load_causal_lm(tiny_internlm2, dtype="float32", device="cpu")
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        whole = model(ids).logits
        first = model(ids[:, :12], use_cache=True)
        rest = model(ids[:, 12:], past_key_values=first.past_key_values).logits
    assert (whole[:, 12:] - rest).abs().max() < 1e-5
