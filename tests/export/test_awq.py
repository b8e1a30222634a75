"""AWQ folders: named as the architecture names them, proved, and made by LMDeploy where it is."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from elysia.cli import main
from elysia.core.errors import ExportError, ModelError
from elysia.core.run_card import RunCard
from elysia.core.templates import get_template
from elysia.export import awq
from elysia.export.shards import ShardReader
from elysia.models import loading, tiny
from elysia.models.quantization import pack_awq

LMDEPLOY = Path(os.environ.get("ELYSIA_LMDEPLOY", ".venv-lmdeploy/bin/python"))
ROWS = Path(__file__).resolve().parents[2] / "data" / "chat.json"
PERSONA = "你是爱莉希雅。"


def make_model(tokenizer, folder, architecture, **sizes):
    """A model of sizes that split into groups, whose words are far from equally likely."""
    model = tiny.init_model(
        folder / architecture, tokenizer=tokenizer, architecture=architecture, layers=2, heads=4,
        kv_heads=2, **{"hidden_size": 128, "intermediate_size": 256, **sizes},
    )  # fmt: skip
    network = loading.load_causal_lm(model, dtype="float32", device="cpu")
    for name, weight in network.named_parameters():
        if weight.dim() == 2:
            weight.data *= 6 if "lm_head" in name else 2
    loading.save_model(network, loading.load_tokenizer(model), model)
    RunCard(
        "merged", "random", template=get_template("internlm2_chat").to_dict(), system=PERSONA,
        stop_words=["<|im_end|>"], datasets=[{"path": str(ROWS), "format": "xtuner"}],
    ).write(model)  # fmt: skip
    return model


@pytest.fixture(scope="module")
def models(tiny_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("awq")
    return {
        name: make_model(tiny_tokenizer, folder, name) for name in ("internlm2", "llama", "qwen2")
    }


def rounded(python, work, model, rows, device):
    """In LMDeploy's place: every layer rounded to 4 bits in groups of 128, unsmoothed."""
    network = loading.load_causal_lm(model, dtype="float32", device="cpu")
    tensors = {}
    for name, weight in network.state_dict().items():
        if "proj.weight" not in name:
            tensors[name] = weight.contiguous()
            continue
        groups = weight.reshape(weight.shape[0], -1, 128)
        low, high = groups.amin(-1), groups.amax(-1)
        scales = ((high - low) / 15).half()  # (outputs, groups)
        zeros = (-low / scales).round().clamp(0, 15)
        numbers = ((groups / scales[..., None]).round() + zeros[..., None]).clamp(0, 15)
        layer = name.removesuffix(".weight")
        tensors[f"{layer}.qweight"] = pack_awq(numbers.flatten(1).t())
        tensors[f"{layer}.qzeros"] = pack_awq(zeros.t())
        tensors[f"{layer}.scales"] = scales.t().contiguous()
    (work / "raw").mkdir()
    save_file(tensors, str(work / "raw" / "model.safetensors"))
    return "cpu"


@pytest.mark.parametrize("kind", ["internlm2", "llama", "qwen2"])
def test_a_folder_of_packed_weights_loads_again_and_is_near_the_model(
    models, kind, tmp_path, monkeypatch
):
    monkeypatch.setattr(awq, "run_lmdeploy", rounded)
    written = awq.quantize_awq(models[kind], tmp_path / "out", python=Path("x"), samples=2)
    assert 0 < written.verification.kl < awq.MAX_MEAN_KL and written.verification.positions > 50
    model = loading.load_causal_lm(tmp_path / "out", dtype="float32", device="cpu")
    reference = loading.load_causal_lm(models[kind], dtype="float32", device="cpu")
    for name, weight in reference.state_dict().items():
        apart = (model.state_dict()[name] - weight).norm() / weight.norm().clamp(min=1e-6)
        assert apart < (0.15 if "proj.weight" in name else 1e-3), name
    card = RunCard.read(tmp_path / "out")
    assert card.stage == "quantized" and card.system == PERSONA
    assert card.extra["quantization"]["calibration"] == {"rows": 2, "length": 512, "device": "cpu"}
    # The same command again takes the place of its own folder.
    awq.quantize_awq(models[kind], tmp_path / "out", python=Path("x"), samples=2)


def test_internlm2_keeps_its_own_names_and_one_fused_layer(models, tmp_path, monkeypatch):
    monkeypatch.setattr(awq, "run_lmdeploy", rounded)
    awq.quantize_awq(models["internlm2"], tmp_path / "out", python=Path("x"), samples=1)
    shards = ShardReader(tmp_path / "out")
    layer = "model.layers.0.attention.wqkv"
    assert shards.spec(f"{layer}.qweight").shape == (128, 256 // 8)
    assert shards.spec(f"{layer}.scales").shape == shards.spec(f"{layer}.scales").shape == (1, 256)
    assert shards.spec(f"{layer}.scales").dtype == torch.float16
    assert "model.tok_embeddings.weight" in shards and "output.weight" in shards
    assert not any("self_attn" in name or "lm_head" in name for name in shards)


def test_heads_fused_in_another_order_do_not_pass_the_proof(models, tmp_path, monkeypatch):
    monkeypatch.setattr(awq, "run_lmdeploy", rounded)
    monkeypatch.setattr(awq, "fuse_packed_wqkv", lambda name, parts, config: torch.cat(parts, -1))
    with pytest.raises(ExportError, match="too far from the model"):
        awq.quantize_awq(models["internlm2"], tmp_path / "out", python=Path("x"), samples=1)
    assert list(tmp_path.iterdir()) == []


def test_the_rows_are_the_trainings_conversations(models):
    tokenizer = loading.load_tokenizer(models["llama"])
    rows = awq.build_calibration_rows(models["llama"], tokenizer, 3, 64)
    assert [len(row) for row in rows] == [64, 64, 64]
    text = tokenizer.decode(rows[0])
    assert text.startswith("<s><|im_start|>system\n" + PERSONA) and "<|im_start|>user" in text
    assert rows == awq.build_calibration_rows(models["llama"], tokenizer, 3, 64)
    assert awq.load_training_samples(None) == []


def test_what_cannot_be_quantized_is_a_sentence(models, tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(awq, "run_lmdeploy", rounded)
    odd = make_model(tiny_tokenizer, tmp_path, "llama", intermediate_size=192)
    with pytest.raises(ExportError, match="intermediate_size is 192, no multiple of 128"):
        awq.quantize_awq(odd, python=Path("x"))
    bare = shutil.copytree(models["llama"], tmp_path / "bare")
    (bare / "run_card.json").unlink()
    with pytest.raises(ExportError, match="--samples 0"):
        awq.quantize_awq(bare, python=Path("x"))
    written = awq.quantize_awq(bare, python=Path("x"), samples=0)
    assert written.path == tmp_path / "bare-awq" and written.rows == 0
    with pytest.raises(ExportError, match="is stored quantized"):
        awq.quantize_awq(written.path, python=Path("x"))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="is an adapter"):
        awq.quantize_awq(tmp_path, python=Path("x"))
    with pytest.raises(ExportError, match="is accepted"):
        awq.quantize_awq(bare, tmp_path / "o", python=Path("x"), samples=0, max_kl=1e-9)


def test_without_its_environment_lmdeploy_is_a_sentence(models, tmp_path, capsys):
    model = str(models["llama"])
    assert main(["quantize", "awq", model, "--python", str(tmp_path / "python")]) == 1
    assert "make lmdeploy" in capsys.readouterr().err


def test_a_child_that_fails_is_a_sentence_and_leaves_nothing(models, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho Traceback >&2\necho 'RuntimeError: no room' >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(ExportError, match=r"could not quantize .* RuntimeError: no room"):
        awq.quantize_awq(models["llama"], tmp_path / "out", python=python, samples=1)
    assert list(tmp_path.iterdir()) == [python]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["internlm2", "llama"])
def test_lmdeploy_quantizes_on_the_persona_s_rows(models, kind, tmp_path):
    if not LMDEPLOY.is_file():
        pytest.skip(f"no LMDeploy at {LMDEPLOY}: make lmdeploy, or set ELYSIA_LMDEPLOY")
    written = awq.quantize_awq(
        models[kind], tmp_path / "out", python=LMDEPLOY, samples=4, length=64, device="cpu"
    )
    assert (
        written.rows == 4 and written.device == "cpu" and written.verification.kl < awq.MAX_MEAN_KL
    )
    model = loading.load_causal_lm(tmp_path / "out", dtype="float32", device="cpu").model.layers[0]
    reference = loading.load_causal_lm(models[kind], dtype="float32", device="cpu").model.layers[0]
    # Smoothing moves factors from a layer's inputs into the norm before it; their product stays.
    assert (model.input_layernorm.weight - 1).abs().max() > 0.01
    for name in ("q_proj", "k_proj", "v_proj"):
        fused, other = (
            getattr(part.self_attn, name).weight * part.input_layernorm.weight
            for part in (model, reference)
        )
        assert (fused - other).norm() / other.norm() < 0.2, name
