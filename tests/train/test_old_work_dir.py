"""A work dir that the version before wrote is resumed: its config, checkpoint keys and hash mean the same."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from elysia.train import checkpoint
from elysia.train.config.settings import Settings, load_settings
from elysia.train.launch import train

OLD = Path(__file__).parent / "old_work_dir"
# What the version before computed for the settings in run.py.txt, placeholders and all.
OLD_SHA256 = "d6e934f23f9c53471cc4456bc55dfd23f6d037521601bebe9c815b7255a298ce"


def build_value(node, tensors):
    """A checkpoint's value from its recorded tree."""
    if not isinstance(node, dict):
        return node
    [(kind, content)] = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: build_value(value, tensors) for key, value in content}
    values = [build_value(value, tensors) for value in content]
    return tuple(values) if kind == "tuple" else values


def load_payload(step, paths=None):
    text = (OLD / f"iter_{step}.json").read_text(encoding="utf-8")
    for name, path in (paths or {}).items():
        text = text.replace(name, path)
    return build_value(json.loads(text), load_file(OLD / f"iter_{step}.safetensors"))


def layout(value):
    """The keys and types of nested values."""
    if isinstance(value, dict):
        return {key: layout(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [layout(inner) for inner in value] if len(value) < 10 else type(value).__name__
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape
    return type(value).__name__


@pytest.fixture
def old_work_dir(tmp_path, tiny_internlm2, rows_file):
    """The old work dir as if its run had been killed after step 2."""
    work_dir = tmp_path / "w"
    work_dir.mkdir()
    paths = {"MODEL": str(tiny_internlm2), "ROWS": str(rows_file), "WORK_DIR": str(work_dir)}
    config = (OLD / "run.py.txt").read_text(encoding="utf-8")
    for name, path in paths.items():
        config = config.replace(name, path)
    (work_dir / "run.py").write_text(config, encoding="utf-8")
    torch.save(load_payload(2, paths), work_dir / "iter_2.pth")
    (work_dir / "last_checkpoint").write_text("/home/somebody/else/w/iter_2.pth")
    return work_dir


def test_it_goes_on_to_the_weights_that_the_old_version_reached(old_work_dir):
    assert train(str(old_work_dir / "run.py"), work_dir=str(old_work_dir), resume="auto") == 0
    resumed = checkpoint.load(old_work_dir / "iter_4.pth")
    assert resumed["progress"] == {"step": 4, "epoch": 0, "step_in_epoch": 4}
    expected = load_payload(4)["state_dict"]
    assert resumed["state_dict"].keys() == expected.keys()
    for name, weight in expected.items():
        # Another CPU may round a gradient near zero to the other side, which AdamW makes a step of.
        close = (resumed["state_dict"][name] - weight).abs() < 1e-4
        assert close.float().mean() > 0.95, name
    before = load_payload(2)
    for payload in (resumed, before):
        payload["run_card"].pop(
            "metrics"
        )  # a resumed run does not measure the untrained model again
    resumed["run_card"]["training"].pop("model_type")  # came later
    assert layout(resumed) == layout(before)


def test_its_dumped_config_has_the_settings_and_the_hash_of_then(old_work_dir):
    settings = runpy.run_path(str(OLD / "run.py.txt"))["settings"]
    assert Settings(**settings).sha256() == OLD_SHA256
    loaded = load_settings(old_work_dir / "run.py")
    assert (loaded.lora_r, loaded.heldout, loaded.betas) == (1, 2.0, (0.9, 0.999))
