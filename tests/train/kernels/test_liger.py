"""Liger's kernels in a model of ours.

The kernels themselves are run by Triton's interpreter, where Triton and Liger are installed; on a GPU they
never were. Where they are not, stand-ins of their signatures show what is patched.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm

from elysia.core.errors import ModelError
from elysia.models import adapters, loading, tiny
from elysia.train.config.settings import build_settings
from elysia.train.config.validation import check_liger_model
from elysia.train.kernels import fused_lora, liger

IDS = torch.arange(20, 84).view(2, 32)
ABSENT = [name for name in ("triton", "liger_kernel") if not find_spec(name)]


@pytest.fixture(scope="module")
def tiny_qwen2(tiny_tokenizer, tmp_path_factory):
    return tiny.init_model(
        tmp_path_factory.mktemp("qwen2") / "m", tokenizer=tiny_tokenizer, architecture="qwen2",
        hidden_size=64, layers=2, heads=4, kv_heads=2, intermediate_size=128,
    )  # fmt: skip


@pytest.mark.skipif(
    bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)} (see the extra `liger`)"
)
def test_interpreted_kernels_give_the_losses_and_gradients_of_the_plain_path(
    tiny_internlm2, tiny_llama, tiny_qwen2
):
    script = Path(__file__).with_name("interpreted.py")
    ways = {"lora": tiny_internlm2, "full": tiny_llama}, {"lora": tiny_qwen2}
    words = [str(word) for way in ways for pair in way.items() for word in pair]
    env = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, env=env, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    models = json.loads(done.stdout.splitlines()[-1])
    for model, way in zip(models, words[::2], strict=True):
        assert model["patched"] == {"norms": 5, "attentions": 2, "gates": 2}
        again = (
            2 if way == "lora" else 1
        )  # a checkpointed layer is run twice, the last norm is in none
        assert model["calls"] == {"norm": 4 * again + 1, "rope": 2 * again, "gate": 2 * again}
        assert model["alive"] and model["off"] < 2e-5


class Kernel:
    """A function of torch in the place of a kernel; counts its calls."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def apply(self, *args):
        self.calls += 1
        return self.function(*args)


def norm(x, weight, eps, offset, casting):
    assert (offset, casting) == (0.0, "llama")
    scaled = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + eps)
    return weight * scaled.to(x.dtype)


def rope(query, key, cos, sin):
    return apply_rotary_pos_emb(query, key, cos, sin)


apply_rotary_pos_emb = modeling_llama.apply_rotary_pos_emb


@pytest.fixture
def kernels(monkeypatch):
    """Stand-ins where liger.py imports the kernels from."""
    kernels_by_name = {
        "rms_norm": ("LigerRMSNormFunction", Kernel(norm)),
        "rope": ("LigerRopeFunction", Kernel(rope)),
        "swiglu": ("LigerSiLUMulFunction", Kernel(lambda gate, up: F.silu(gate) * up)),
    }
    for name in ("liger_kernel", "liger_kernel.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for name, (function, kernel) in kernels_by_name.items():
        module = ModuleType(name)
        setattr(module, function, kernel)
        monkeypatch.setitem(sys.modules, f"liger_kernel.ops.{name}", module)
    return {name: kernel for name, (_, kernel) in kernels_by_name.items()}


def step(model):
    model.zero_grad()
    logits = model(input_ids=IDS, use_cache=False).logits
    logits.square().mean().backward()
    return {"logits": logits.detach()} | {
        n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad
    }


@pytest.mark.parametrize("fixture", ["tiny_internlm2", "tiny_llama", "tiny_qwen2"])
def test_one_model_gets_the_kernels_and_the_classes_stay(request, kernels, fixture):
    def build():
        torch.manual_seed(0)
        base = loading.load_causal_lm(
            request.getfixturevalue(fixture), dtype="float32", device="cpu"
        )
        model = adapters.add_lora(base, r=4, alpha=6)
        fused_lora.patch_lora_and_mlp(model)
        return model.train()

    plain, model = build(), build()
    classes = [kind.forward for kind in (LlamaAttention, LlamaMLP, LlamaRMSNorm)]
    assert liger.patch_model(model) == {"norms": 5, "attentions": 2, "gates": 2}
    expected = step(plain)
    assert not any(kernel.calls for kernel in kernels.values())  # another model has none
    actual = step(model)
    assert {name: kernel.calls for name, kernel in kernels.items()} == {
        "rms_norm": 5, "rope": 2, "swiglu": 2
    }  # fmt: skip
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-5, atol=1e-6)
    assert [kind.forward for kind in (LlamaAttention, LlamaMLP, LlamaRMSNorm)] == classes
    assert modeling_llama.apply_rotary_pos_emb is apply_rotary_pos_emb
    assert list(model.state_dict()) == list(plain.state_dict())


def test_what_the_kernels_need_is_told(monkeypatch):
    assert "need a GPU" in str(liger.missing_requirement("cpu"))
    monkeypatch.setattr(liger, "find_spec", lambda name: None)
    assert "triton is not installed" in str(liger.missing_requirement("cuda"))
    monkeypatch.setattr(liger, "find_spec", lambda name: name == "triton" or None)
    assert f"pip install --no-deps {liger.PACKAGE}" in str(liger.missing_requirement("cuda"))
    monkeypatch.setattr(liger, "find_spec", lambda name: name)
    assert liger.missing_requirement("cuda") is None


def test_a_model_of_another_family_is_refused_by_its_config(plain_settings, tmp_path):
    settings = build_settings(plain_settings | {"liger_kernel": True}, "c")
    (tmp_path / "config.json").write_text('{"model_type": "mistral"}')
    with pytest.raises(ModelError, match=r"internlm2, llama, qwen2, and .* is a mistral model"):
        check_liger_model(settings, str(tmp_path))
    check_liger_model(settings, plain_settings["pretrained_model_name_or_path"])


def test_an_attention_that_does_not_rotate_by_that_name_is_refused(monkeypatch):
    monkeypatch.setattr(liger, "ROTATE", "something_else")
    with pytest.raises(ModelError, match="does not call something_else"):
        liger.patch_model(torch.nn.Linear(2, 2))
