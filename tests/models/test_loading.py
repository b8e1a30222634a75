import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers.utils import logging as transformers_logging

from elysia.core.errors import DeviceError, ModelError
from elysia.models import loading

IDS = torch.arange(20, 36)[None]


@pytest.fixture
def copy(tiny_internlm2: Path, tmp_path: Path) -> Path:
    """A model folder to damage."""
    return Path(shutil.copytree(tiny_internlm2, tmp_path / "model"))


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | changes), encoding="utf-8")


@pytest.mark.parametrize("kind", ["internlm2", "llama"])
@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_loads_in_any_bits_and_dtype(
    request: pytest.FixtureRequest, kind: str, bits: int | None, dtype: str
) -> None:
    folder = request.getfixturevalue(f"tiny_{kind}")
    exact = loading.load_causal_lm(folder, dtype="float32", device="cpu")
    model = loading.load_causal_lm(folder, dtype=dtype, device="cpu", bits=bits)
    assert not model.training
    assert model.get_input_embeddings().weight.dtype == loading.parse_dtype(dtype)
    with torch.no_grad():
        difference = (model(IDS).logits.float() - exact(IDS).logits).abs().mean()
    size = exact(IDS).logits.abs().mean()
    assert difference < (0.35 if bits == 4 else 0.05) * size
    assert (difference > 0) == (bits is not None or dtype != "float32")


def test_nf4_with_double_quantization_takes_less_room(tiny_llama: Path) -> None:
    single = loading.load_causal_lm(
        tiny_llama, dtype="float32", device="cpu", bits=4, double_quant=False
    )
    double = loading.load_causal_lm(tiny_llama, dtype="float32", device="cpu", bits=4)
    layers = [m.model.layers[0].mlp.up_proj.weight for m in (single, double)]
    assert [layer.quant_state.nested for layer in layers] == [False, True]
    assert all(layer.quant_state.quant_type == "nf4" for layer in layers)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_layers_of_odd_sizes_run(tiny_tokenizer: Path, tmp_path: Path, bits: int) -> None:
    from elysia.models import tiny

    folder = tiny.init_model(
        tmp_path / "odd",
        tokenizer=tiny_tokenizer,
        hidden_size=80,
        layers=1,
        heads=5,
        kv_heads=1,
        intermediate_size=112,
    )
    model = loading.load_causal_lm(folder, dtype="float32", device="cpu", bits=bits)
    with torch.no_grad():
        assert torch.isfinite(model(IDS).logits).all()


def test_the_attention_implementation_can_be_chosen(tiny_llama: Path) -> None:
    eager = loading.load_causal_lm(tiny_llama, dtype="float32", device="cpu", attention="eager")
    usual = loading.load_causal_lm(tiny_llama, dtype="float32", device="cpu")
    assert eager.config._attn_implementation == "eager"
    assert usual.config._attn_implementation == "sdpa"
    with torch.no_grad():
        assert (eager(IDS).logits - usual(IDS).logits).abs().max() < 1e-5


def test_a_model_loads_from_shards(tiny_llama: Path, tmp_path: Path) -> None:
    model = loading.load_causal_lm(tiny_llama, dtype="float32", device="cpu")
    loading.save_model(model, loading.load_tokenizer(tiny_llama), tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    again = loading.load_causal_lm(tmp_path, dtype="float32", device="cpu")
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
    assert len(loading.load_tokenizer(tmp_path)) == 1000


def test_loading_leaves_transformers_own_talk_as_it_was(tiny_llama: Path) -> None:
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    loading.load_causal_lm(tiny_llama, dtype="float32", device="cpu")
    assert before == (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    for attempt in (loading.load_config, loading.load_tokenizer, loading.load_causal_lm):
        with pytest.raises(ModelError, match="nowhere"):
            attempt(tmp_path / "nowhere")


def test_a_folder_without_config_is_refused(copy: Path) -> None:
    (copy / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        loading.load_causal_lm(copy)


def test_an_adapter_is_not_taken_for_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="is an adapter, not a model"):
        loading.load_causal_lm(tmp_path)


def test_a_folder_without_weights_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        loading.load_causal_lm(copy)


def test_a_folder_without_a_tokenizer_is_refused(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="holds no tokenizer"):
        loading.load_tokenizer(copy)


def test_a_damaged_tokenizer_is_refused(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer in .* cannot be read"):
        loading.load_tokenizer(copy)


@pytest.mark.parametrize(
    ("content", "words"), [("{", "is damaged"), ("{}", "no model_type"), ("[]", "no model_type")]
)
def test_a_damaged_config_is_refused(copy: Path, content: str, words: str) -> None:
    (copy / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=words):
        loading.load_config(copy)


def test_weights_cut_short_are_refused(copy: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        loading.load_causal_lm(copy, device="cpu")


def test_weights_that_lack_a_layer_are_refused(copy: Path) -> None:
    change_config(copy, num_hidden_layers=3)
    with pytest.raises(
        ModelError, match=r"lacks \d+ of the model's weights, the first being model\.layers\.2"
    ):
        loading.load_causal_lm(copy, device="cpu")


def test_weights_of_another_shape_are_refused_by_name(copy: Path) -> None:
    change_config(copy, vocab_size=1001)
    with pytest.raises(
        ModelError, match=r"shape \[1000, 64\] and config\.json asks for \[1001, 64\]"
    ):
        loading.load_causal_lm(copy, device="cpu")


def test_heads_that_do_not_fit_the_fused_weights_are_refused(copy: Path) -> None:
    change_config(copy, num_key_value_heads=3)
    with pytest.raises(ModelError, match=r"sizes that config\.json gives"):
        loading.load_causal_lm(copy, device="cpu")


def test_a_model_of_another_kind_is_refused(copy: Path) -> None:
    change_config(copy, model_type="clip")
    with pytest.raises(ModelError, match="no causal language model"):
        loading.load_causal_lm(copy, device="cpu")


@pytest.mark.parametrize("change", [{"hidden_size": "x"}, {"num_attention_heads": 7}])
def test_a_config_with_impossible_values_is_refused_in_one_line(
    copy: Path, change: dict[str, object]
) -> None:
    change_config(copy, **change)
    with pytest.raises(ModelError, match=r"config\.json cannot be used: .*hidden.size") as error:
        loading.load_config(copy)
    assert "\n" not in str(error.value)


def test_weights_that_nothing_uses_are_reported(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change_config(copy, num_hidden_layers=1)
    loading.load_causal_lm(copy, device="cpu")
    assert "weights that are not used here, such as model.layers.1" in caplog.text


def test_an_unknown_architecture_is_refused(copy: Path) -> None:
    change_config(copy, model_type="nosuchmodel")
    with pytest.raises(ModelError, match="nosuchmodel"):
        loading.load_config(copy)


def test_another_models_remote_code_is_refused_and_not_run(copy: Path) -> None:
    change_config(copy, model_type="nosuchmodel", auto_map={"AutoConfig": "evil.Config"})
    (copy / "evil.py").write_text("raise RuntimeError('remote code was run')\n", encoding="utf-8")
    with pytest.raises(ModelError, match="would run code of its own"):
        loading.load_config(copy)


@pytest.mark.parametrize("bits", [2, 16])
def test_other_bits_are_refused(tiny_llama: Path, bits: int) -> None:
    with pytest.raises(ModelError, match="choose 4, 8"):
        loading.load_causal_lm(tiny_llama, device="cpu", bits=bits)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")
def test_a_device_that_is_not_there_is_refused(tiny_llama: Path) -> None:
    with pytest.raises(DeviceError, match="cuda is not there"):
        loading.load_causal_lm(tiny_llama, device="cuda")


def test_a_full_device_is_a_sentence(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(DeviceError, match="does not fit"):
        loading.load_causal_lm(tiny_llama, device="cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("bits", [None, 4, 8])
def test_a_model_runs_on_cuda(tiny_internlm2: Path, bits: int | None) -> None:
    model = loading.load_causal_lm(tiny_internlm2, bits=bits)
    assert model.device.type == "cuda"
    exact = loading.load_causal_lm(tiny_internlm2, dtype="float32", device="cpu")
    with torch.no_grad():
        logits, exact_logits = model(IDS.cuda()).logits.float().cpu(), exact(IDS).logits
    assert (logits - exact_logits).abs().mean() < 0.35 * exact_logits.abs().mean()
