from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from elysia.core.errors import ModelError
from elysia.models import loading, saving

SmallDisk = Callable[[int], AbstractContextManager[None]]


def test_older_readers_find_the_names_they_know() -> None:
    new = {
        "dtype": "bfloat16",
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e6, "factor": 2.0},
        "auto_map": {"AutoConfig": "x.Y"},
    }
    config = saving.add_legacy_fields(new)
    assert config["torch_dtype"] == "bfloat16"
    assert config["rope_theta"] == 1e6
    assert config["rope_scaling"] == {"type": "dynamic", "rope_type": "dynamic", "factor": 2.0}
    assert config["rope_parameters"] == new["rope_parameters"]
    assert "auto_map" not in config


def test_a_config_without_these_names_stays_as_it_is() -> None:
    assert saving.add_legacy_fields({"model_type": "gpt2"}) == {"model_type": "gpt2"}


def test_quantized_weights_are_not_saved_as_a_model(tiny_internlm2: Path, tmp_path: Path) -> None:
    model = loading.load_causal_lm(tiny_internlm2, dtype="float32", device="cpu", bits=4)
    with pytest.raises(ModelError, match="Quantized weights"):
        loading.save_model(model, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_a_sentence(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    model = loading.load_causal_lm(tiny_llama, dtype="float32", device="cpu")
    with pytest.raises(ModelError, match="cannot be written"):
        loading.save_model(model, None, tmp_path / "file" / "out")
    with pytest.raises(ModelError, match="cannot be written"):
        loading.save_tokenizer(loading.load_tokenizer(tiny_llama), tmp_path / "file" / "out")


def test_a_full_disk_is_a_sentence(tiny_llama: Path, tmp_path: Path, small_disk: SmallDisk) -> None:
    model = loading.load_causal_lm(tiny_llama, dtype="float32", device="cpu")
    with small_disk(100_000), pytest.raises(ModelError, match=r"cannot be written.*disk full"):
        loading.save_model(model, None, tmp_path / "out")


def test_generation_stops_at_both_ends_after_a_round_trip(
    tiny_internlm2: Path, tmp_path: Path
) -> None:
    model = loading.load_causal_lm(tiny_internlm2, dtype="float32", device="cpu")
    loading.save_model(model, loading.load_tokenizer(tiny_internlm2), tmp_path)
    again = loading.load_causal_lm(tmp_path, dtype="float32", device="cpu")
    assert again.generation_config.eos_token_id == model.generation_config.eos_token_id == [2, 4]
