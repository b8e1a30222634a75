"""merge: the same logits as base + adapter, whatever the architecture, choice of base and dtype."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from elysia.core.errors import ExportError
from elysia.core.run_card import RunCard
from elysia.export.merge import merge_adapter
from elysia.models import quantization
from elysia.models.loading import load_causal_lm

IDS = torch.tensor([[5, 300, 41, 7, 12, 260, 99]])


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=IDS).logits.float()
    return logits


def adapted(base: Path, adapter: Path, **options: Any) -> torch.Tensor:
    from peft import PeftModel

    model = load_causal_lm(base, device="cpu", **({"dtype": "float32"} | options))
    if options:
        model = model.dequantize().float()
    return logits(PeftModel.from_pretrained(model, str(adapter)).eval())


@pytest.mark.parametrize("base_name", ["tiny_internlm2", "tiny_llama"])
def test_merged_answers_as_base_and_adapter(
    base_name: str, adapter_of: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(base_name)
    adapter = adapter_of(base)
    report = merge_adapter(base, adapter, tmp_path / "merged", device="cpu", max_shard_size="120KB")
    merged = logits(load_causal_lm(tmp_path / "merged", dtype="float32", device="cpu"))
    plain = logits(load_causal_lm(base, dtype="float32", device="cpu"))
    assert (merged - adapted(base, adapter)).abs().max() < 1e-4
    assert (merged - plain).abs().max() > 0.1
    assert report.merged_modules == 14 and report.files > 1 and report.drift == {}


def test_the_files_keep_the_bases_own_keys_and_shapes(
    adapter_of: Any, tiny_internlm2: Path, tmp_path: Path
) -> None:
    merge_adapter(tiny_internlm2, adapter_of(tiny_internlm2), tmp_path / "merged", device="cpu")
    before = load_file(tiny_internlm2 / "model.safetensors")
    after = load_file(tmp_path / "merged" / "model.safetensors")
    assert {n: (t.shape, t.dtype) for n, t in before.items()} == {
        n: (t.shape, t.dtype) for n, t in after.items()
    }
    assert torch.equal(before["output.weight"], after["output.weight"])
    wqkv = "model.layers.1.attention.wqkv.weight"
    assert not torch.equal(before[wqkv], after[wqkv])


def test_only_the_targeted_rows_of_the_fused_tensor_change(
    adapter_of: Any, tiny_internlm2: Path, tmp_path: Path
) -> None:
    adapter = adapter_of(tiny_internlm2, lora_target_modules=["k_proj"])
    merge_adapter(tiny_internlm2, adapter, tmp_path / "merged", device="cpu")
    name = "model.layers.0.attention.wqkv.weight"
    before = load_file(tiny_internlm2 / "model.safetensors")[name].view(2, 4, 16, 64)
    after = load_file(tmp_path / "merged" / "model.safetensors")[name].view(2, 4, 16, 64)
    changed = (before != after).any(-1).any(-1)
    assert changed.tolist() == [[False, False, True, False]] * 2  # two queries, the key, the value


def test_as_trained_takes_the_weights_that_qlora_saw(
    adapter_of: Any, tiny_internlm2: Path, tmp_path: Path
) -> None:
    adapter = adapter_of(tiny_internlm2, method="qlora")
    out, plain = tmp_path / "trained", tmp_path / "plain"
    trained = merge_adapter(tiny_internlm2, adapter, out, device="cpu", base_weights="as-trained")
    original = merge_adapter(tiny_internlm2, adapter, plain, device="cpu")
    reference = adapted(tiny_internlm2, adapter, bits=4, dtype="float32", double_quant=True)
    close = (logits(load_causal_lm(out, dtype="float32", device="cpu")) - reference).abs().max()
    apart = (logits(load_causal_lm(plain, dtype="float32", device="cpu")) - reference).abs().max()
    assert close < 1e-4 < 0.01 < apart
    assert trained.drift == original.drift
    assert 0.05 < trained.drift["original"]["from_trained"]["relative"] < 0.2  # NF4's usual error
    assert trained.drift["as-trained"]["from_trained"]["relative"] == 0
    assert "as-trained" in str(trained)


def test_the_training_dtype_and_double_quantization_decide_what_was_seen(
    tiny_internlm2: Path,
) -> None:
    from bitsandbytes.nn.modules import Linear4bit

    weight = load_file(tiny_internlm2 / "model.safetensors")[
        "model.layers.0.feed_forward.w1.weight"
    ]
    for dtype in (torch.float32, torch.bfloat16):
        for double in (True, False):
            layer = Linear4bit(64, 128, bias=False, compress_statistics=double, quant_type="nf4")
            layer.load_state_dict({"weight": weight.to(dtype)}, strict=False, assign=True)
            model = load_causal_lm(
                tiny_internlm2, bits=4, dtype=dtype, double_quant=double, device="cpu"
            )
            trained_weights = model.dequantize().model.layers[0].mlp.gate_proj.weight
            own = quantization.round_trip_nf4(weight, dtype, double)
            assert torch.equal(trained_weights.detach().float(), own.float())


def test_the_head_and_embeddings_are_not_counted_as_quantized(tiny_internlm2: Path) -> None:
    from elysia.models.loading import load_config

    names = quantization.get_quantized_modules(load_config(tiny_internlm2))
    assert len(names) == 14 and not any("lm_head" in n or "embed" in n for n in names)


@pytest.mark.parametrize("rslora", [False, True])
def test_the_scaling_is_the_adapters_own(
    rslora: bool, adapter_of: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    adapter = adapter_of(tiny_llama)
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text()) | {"use_rslora": rslora, "alpha_pattern": {"q_proj": 3}}
    path.write_text(json.dumps(config))
    merge_adapter(tiny_llama, adapter, tmp_path / "merged", device="cpu")
    merged = logits(load_causal_lm(tmp_path / "merged", dtype="float32", device="cpu"))
    assert (merged - adapted(tiny_llama, adapter)).abs().max() < 1e-4


def test_xtuners_adapter_on_the_fused_tensor_is_merged_as_it_names_it(
    adapter_of: Any, tiny_internlm2: Path, tmp_path: Path
) -> None:
    adapter = adapter_of(tiny_internlm2)
    a, b = torch.randn(4, 64), torch.randn(128, 4)
    stem = "base_model.model.model.layers.0.attention.wqkv"
    pair = {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
    save_file(pair, adapter / "adapter_model.safetensors")
    merge_adapter(tiny_internlm2, adapter, tmp_path / "merged", device="cpu")
    name = "model.layers.0.attention.wqkv.weight"
    before = load_file(tiny_internlm2 / "model.safetensors")[name]
    after = load_file(tmp_path / "merged" / "model.safetensors")[name]
    assert torch.allclose(after - before, 2.0 * b @ a, atol=1e-4)


def test_a_dtype_that_is_asked_for_is_written_everywhere(
    adapter_of: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    merge_adapter(tiny_llama, adapter_of(tiny_llama), out, device="cpu", dtype="bfloat16")
    assert {t.dtype for t in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"


def test_everything_to_talk_to_it_lies_beside(
    adapter_of: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_llama, base)
    (base / "modeling_x.py").write_text("raise SystemExit")
    (base / "LICENSE").write_text("the base's")
    adapter = adapter_of(base)
    out = tmp_path / "merged"
    merge_adapter(base, adapter, out, device="cpu")
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "LICENSE"} <= names
    assert "modeling_x.py" not in names
    from elysia.models.loading import load_tokenizer

    prompt = load_tokenizer(out).apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt == "<s><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    card, made_from = RunCard.read(out), RunCard.read(adapter)
    assert card is not None and made_from is not None
    assert card.stage == "merged" and card.template == made_from.template
    assert card.extra["merge"]["base_weights"] == "original"


def _refused(*words: str, base: Path, adapter: Path, out: Path, **options: Any) -> None:
    with pytest.raises(ExportError) as caught:
        merge_adapter(base, adapter, out, device="cpu", **options)
    for word in words:
        assert word in str(caught.value)
    assert not out.exists() and not list(out.parent.glob(".*writing*"))


def test_an_adapter_of_another_base_is_refused_by_its_card(
    adapter_of: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    adapter = adapter_of(tiny_llama)
    other = tmp_path / "other"
    shutil.copytree(tiny_llama, other)
    weights = {n: t + 0.01 for n, t in load_file(other / "model.safetensors").items()}
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    words = [str(adapter), str(other), str(tiny_llama)]
    _refused(*words, base=other, adapter=adapter, out=tmp_path / "merged")


def test_without_a_card_shapes_and_names_tell_bases_apart(
    adapter_of: Any, tiny_llama: Path, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    from elysia.models import tiny

    adapter = adapter_of(tiny_llama)
    (adapter / "run_card.json").unlink()
    options = {"tokenizer": tiny_tokenizer, "architecture": "llama", "heads": 4, "kv_heads": 2}
    wider = tiny.init_model(
        tmp_path / "wider", hidden_size=96, layers=2, intermediate_size=128, **options
    )
    fewer = tiny.init_model(
        tmp_path / "fewer", hidden_size=64, layers=1, intermediate_size=128, **options
    )
    out = tmp_path / "merged"
    _refused("another base", "(64, 128)", "(96, 128)", base=wider, adapter=adapter, out=out)
    _refused("another base", "layers.1.", "does not have", base=fewer, adapter=adapter, out=out)
    merge_adapter(tiny_llama, adapter, out, device="cpu")


def test_as_trained_is_refused_for_an_adapter_that_saw_no_quantized_weights(
    adapter_of: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    _refused(
        "--base-weights original",
        base=tiny_llama, adapter=adapter_of(tiny_llama), out=tmp_path / "m", base_weights="as-trained",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [("use_qalora", True), ("modules_to_save", ["lm_head"]), ("bias", "all"), ("peft_type", "IA3")],
)
def test_adapters_that_are_more_than_lora_are_refused(
    key: str, value: Any, adapter_of: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    adapter = adapter_of(tiny_llama)
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    _refused(str(path), base=tiny_llama, adapter=adapter, out=tmp_path / "merged")


def test_damaged_folders_are_refused_with_the_file_at_fault(
    adapter_of: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    adapter = adapter_of(tiny_llama)
    out = tmp_path / "merged"
    base = tmp_path / "base"
    shutil.copytree(tiny_llama, base)
    cut = base / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-64])
    _refused("cut short", str(cut), base=base, adapter=adapter, out=out)
    cut.rename(base / "pytorch_model.bin")
    _refused(".bin", "convert split", base=base, adapter=adapter, out=out)
    _refused("no adapter_config.json", base=tiny_llama, adapter=tiny_llama, out=out)
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    _refused(str(weights), base=tiny_llama, adapter=adapter, out=out)


def test_a_tied_head_cannot_take_a_delta_of_its_own(
    adapter_of: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_llama, base)
    adapter = adapter_of(base, lora_target_modules=["lm_head"])
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    _refused("lm_head", "one tensor", base=base, adapter=adapter, out=tmp_path / "merged")


def test_merging_again_replaces_a_merge_and_nothing_else(
    adapter_of: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    adapter = adapter_of(tiny_llama)
    merge_adapter(tiny_llama, adapter, tmp_path / "merged", device="cpu")
    merge_adapter(tiny_llama, adapter, tmp_path / "merged", device="cpu")
    before = (tiny_llama / "model.safetensors").read_bytes()
    with pytest.raises(ExportError, match="not empty"):
        merge_adapter(tiny_llama, adapter, tiny_llama, device="cpu")
    with pytest.raises(ExportError, match="not empty"):
        merge_adapter(tiny_llama, adapter, adapter, device="cpu")
    assert (tiny_llama / "model.safetensors").read_bytes() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_merges_to_the_same_weights(
    adapter_of: Any, tiny_internlm2: Path, tmp_path: Path
) -> None:
    adapter = adapter_of(tiny_internlm2)
    for device in ("cpu", "cuda"):
        merge_adapter(tiny_internlm2, adapter, tmp_path / device, device=device)
    cpu, gpu = (load_file(tmp_path / d / "model.safetensors") for d in ("cpu", "cuda"))
    assert all(torch.allclose(cpu[name], gpu[name], atol=1e-5) for name in cpu)
