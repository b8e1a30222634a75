import json
import shutil
from pathlib import Path

import pytest
import torch

from elysia.core.errors import ModelError
from elysia.models import loading
from elysia.models.fingerprint import compute_fingerprint


@pytest.fixture
def copy(tiny_internlm2: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_internlm2, tmp_path / "model"))


def test_a_copy_has_the_same_fingerprint(tiny_internlm2: Path, copy: Path) -> None:
    fingerprint_of_copy = compute_fingerprint(copy)
    assert fingerprint_of_copy == compute_fingerprint(tiny_internlm2)
    assert fingerprint_of_copy["files"] == 1
    assert fingerprint_of_copy["bytes"] == (copy / "model.safetensors").stat().st_size
    assert len(fingerprint_of_copy["sha256"]) == 64


def test_sharding_anew_does_not_change_the_hash(tiny_internlm2: Path, tmp_path: Path) -> None:
    model = loading.load_causal_lm(tiny_internlm2, dtype="float32", device="cpu")
    loading.save_model(model, None, tmp_path, max_shard_size="100KB")
    assert compute_fingerprint(tmp_path)["files"] > 1
    assert compute_fingerprint(tmp_path)["sha256"] == compute_fingerprint(tiny_internlm2)["sha256"]


def test_other_weights_have_another_fingerprint(tiny_internlm2: Path, tmp_path: Path) -> None:
    model = loading.load_causal_lm(tiny_internlm2, dtype="float32", device="cpu")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(1.001)
    loading.save_model(model, None, tmp_path)
    assert compute_fingerprint(tmp_path)["sha256"] != compute_fingerprint(tiny_internlm2)["sha256"]


def test_another_dtype_has_another_fingerprint(tiny_internlm2: Path, tmp_path: Path) -> None:
    loading.save_model(
        loading.load_causal_lm(tiny_internlm2, dtype="bfloat16", device="cpu"), None, tmp_path
    )
    assert compute_fingerprint(tmp_path)["sha256"] != compute_fingerprint(tiny_internlm2)["sha256"]


def test_another_architecture_has_another_fingerprint_and_a_note_has_not(copy: Path) -> None:
    before = compute_fingerprint(copy)["sha256"]
    path = copy / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"transformers_version": "9"}), encoding="utf-8")
    assert compute_fingerprint(copy)["sha256"] == before
    path.write_text(json.dumps(config | {"num_attention_heads": 2}), encoding="utf-8")
    assert compute_fingerprint(copy)["sha256"] != before


@pytest.mark.parametrize("length", [0, 5, 40, -100])
def test_a_file_cut_short_is_refused(copy: Path, length: int) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelError, match="damaged or cut short"):
        compute_fingerprint(copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ModelError):
        compute_fingerprint(copy)
