"""Liger's kernels on a CPU, by Triton's interpreter: is a patched model the same as a plain one?

    TRITON_INTERPRET=1 python interpreted.py [lora|full MODEL_FOLDER]…

Prints, as JSON, what was patched in each model, how often each kernel was called, and how far losses and
gradients are off. Slow (a row of a kernel is a call), and float32 alone: the interpreter calculates in numpy.
"""

import json
import sys

import numpy as np
import torch
import triton.language as tl
from liger_kernel.ops import rms_norm
from liger_kernel.ops.rms_norm import LigerRMSNormFunction
from liger_kernel.ops.rope import LigerRopeFunction
from liger_kernel.ops.swiglu import LigerSiLUMulFunction
from triton.runtime import interpreter

from elysia.train.data.dataset import collate_padded
from elysia.train.kernels import liger
from elysia.train.methods.sft import SupervisedFinetune

KERNELS = {"norm": LigerRMSNormFunction, "rope": LigerRopeFunction, "gate": LigerSiLUMulFunction}


def mend_the_interpreter():
    """Two things that a compiled kernel has and the interpreter lacks: a float argument is a float32 of
    Triton's, and CUDA's own rsqrt."""
    known = interpreter._implicit_cvt

    def converted(argument):
        if type(argument) is not float:
            return known(argument)
        handle = interpreter.TensorHandle(np.array([argument], dtype=np.float32), tl.float32)
        return tl.tensor(handle, tl.float32)

    interpreter._implicit_cvt = converted
    semantic = interpreter.interpreter_semantic
    rms_norm.rsqrt = lambda x: tl.math.rsqrt(x, _semantic=semantic)


def counted():
    """How often each kernel is called, from here on."""
    calls = dict.fromkeys(KERNELS, 0)
    for name, function in KERNELS.items():

        def forward(*args, _own=function.forward, _name=name, **kwargs):
            calls[_name] += 1
            return _own(*args, **kwargs)

        function.forward = staticmethod(forward)
    return calls


def build(folder, how):
    torch.manual_seed(0)
    adapter = {"r": 4, "alpha": 6, "dropout": 0.0, "targets": "all-linear"}
    model = SupervisedFinetune(
        {"path": folder}, None if how == "full" else adapter, device="cpu", attention="sdpa",
        gradient_checkpointing=how == "lora",
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.02)
    return model.train()


def gradients(model):
    ids = np.random.default_rng(0).integers(20, 500, 17)
    labels = np.where(np.isin(np.arange(17), [0, 9]), -100, ids)
    # Padded: flat rows are filled up to 64 positions on a CPU.
    loss = model(collate_padded([{"ids": ids, "labels": labels, "lengths": [9, 8]}]))
    loss.backward()
    return {"loss": loss.detach()} | {
        name: p.grad for name, p in model.named_parameters() if p.requires_grad
    }


def main(how, folder, calls):
    expected, patched = gradients(build(folder, how)), build(folder, how)
    assert not any(calls.values())
    counts = liger.patch_model(patched.causal)
    got = gradients(patched)
    off = {n: float((got[n] - v).abs().max() / v.abs().max()) for n, v in expected.items()}
    alive = all(bool(v.abs().max() > 0) for v in got.values())
    report = {"patched": counts, "calls": dict(calls), "off": max(off.values()), "alive": alive}
    calls.update(dict.fromkeys(calls, 0))
    return report


if __name__ == "__main__":
    mend_the_interpreter()
    each = counted()
    print(
        json.dumps([main(*pair, each) for pair in zip(sys.argv[1::2], sys.argv[2::2], strict=True)])
    )
