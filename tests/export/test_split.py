"""split: a file a tensor, the same model, from safetensors and from old pickles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from elysia.core.errors import ExportError
from elysia.export.shards import split_per_tensor
from elysia.models.loading import load_causal_lm


def test_every_tensor_gets_a_file_and_the_model_stays_the_same(
    tiny_internlm2: Path, tmp_path: Path
) -> None:
    out = split_per_tensor(tiny_internlm2, tmp_path / "split")
    weight_map = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    before = load_file(tiny_internlm2 / "model.safetensors")
    assert weight_map.keys() == before.keys()
    assert len(set(weight_map.values())) == len(before) == len(list(out.glob("*.safetensors")))
    assert all(torch.equal(load_file(out / f)[n], before[n]) for n, f in weight_map.items())
    load_causal_lm(out, dtype="float32", device="cpu")
    assert (out / "tokenizer.json").is_file()


def _pickled(model: Path, folder: Path) -> Path:
    """The same model as two .bin files with an index."""
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    halves = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
    for file, own in halves.items():
        torch.save({name: weights[name] for name in own}, folder / file)
    index = {"weight_map": {name: file for file, own in halves.items() for name in own}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


def test_old_pickles_become_safetensors(tiny_llama: Path, tmp_path: Path) -> None:
    out = split_per_tensor(_pickled(tiny_llama, tmp_path / "old"), tmp_path / "split")
    before = load_file(tiny_llama / "model.safetensors")
    tensors = {n: t for path in out.glob("*.safetensors") for n, t in load_file(path).items()}
    assert tensors.keys() == before.keys()
    assert all(torch.equal(tensors[name], before[name]) for name in before)
    assert not list(out.glob("*.bin*"))


class CodeInPickle:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("/tmp/never"),))  # type: ignore[return-value]


def test_a_pickle_that_holds_more_than_tensors_is_not_executed(
    tiny_llama: Path, tmp_path: Path
) -> None:
    old = _pickled(tiny_llama, tmp_path / "old")
    torch.save({"x": CodeInPickle()}, old / "pytorch_model-1.bin")
    with pytest.raises(ExportError, match="not executed"):
        split_per_tensor(old, tmp_path / "split")
    assert not (tmp_path / "split").exists()


def test_missing_and_damaged_files_are_named(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no model folder"):
        split_per_tensor(tmp_path / "nowhere", tmp_path / "split")
    old = _pickled(tiny_llama, tmp_path / "old")
    cut = old / "pytorch_model-2.bin"
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(ExportError, match=r"pytorch_model-2\.bin is damaged"):
        split_per_tensor(old, tmp_path / "split")
    cut.unlink()
    with pytest.raises(ExportError, match=r"names pytorch_model-2\.bin"):
        split_per_tensor(old, tmp_path / "split")
    assert not (tmp_path / "split").exists()
