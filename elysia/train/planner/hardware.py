"""What a device can do at best: products a second, bytes a second. Known GPUs by a table, anything
else by measuring for two seconds, once: the figures are kept in a file.

Knows nothing of the model that is trained.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from elysia.core.files import write_atomic
from elysia.data.tokenize.token_cache import get_cache_folder
from elysia.train.engine import rng

log = logging.getLogger(__name__)

# (part of the name CUDA gives, dense 16-bit TFLOP/s with float32 sums, float32 TFLOP/s, GB/s), the
# first that fits. From NVIDIA's data sheets (B200, H200, H100, H20, A100, L40S, L40, L4, A10, V100, T4)
# and its architecture white papers (Ada GA/AD102: GeForce); figures "with sparsity" halved.
GPUS: tuple[tuple[str, float, float, float], ...] = (
    ("B200", 2250, 80, 8000),
    ("H200", 989, 67, 4800),
    ("H100 NVL", 835, 60, 3900),
    ("H100 PCIe", 756, 51, 2000),
    ("H100", 989, 67, 3350),
    ("H800", 989, 67, 3350),
    ("H20", 148, 44, 4000),
    ("A100-PCIE-40GB", 312, 19.5, 1555),
    ("A100-SXM4-40GB", 312, 19.5, 1555),
    ("A100", 312, 19.5, 2039),
    ("A800", 312, 19.5, 2039),
    ("L40S", 362, 91.6, 864),
    ("L40", 181, 90.5, 864),
    ("L4", 121, 30.3, 300),
    ("A10G", 70, 35, 600),
    ("A10", 125, 31.2, 600),
    ("V100", 125, 15.7, 900),
    ("T4", 65, 8.1, 320),
    ("RTX 4090", 165, 82.6, 1008),
    ("RTX 3090", 71, 35.6, 936),
)
# What well-made kernels reach of those peaks; a table cannot say more. Not measured by this project.
ATTAINED = {"flops": 0.6, "attention": 0.35, "bytes": 0.8}
RATES = "all, 4"  # names what is kept; another number when what is measured changes
LARGE = 32 * 2**20  # above it the C library asks the system for every block of memory anew


@dataclass(frozen=True)
class DeviceRates:
    """Rates that a device reaches: FLOPs a second of large products, of attention by one kernel and of
    small products, many at once; bytes a second of passes over tensors and into blocks fresh from the
    system, elements a second of exponentials and of random numbers, 4-bit weights a second made whole,
    and seconds that any operation takes.
    `peak` is what MFU divides by; `measured` says whether that is a measurement.
    """

    device: str
    peak: float
    flops: float
    attention: float
    batched: float
    bytes: float
    fresh: float
    exponentials: float
    random: float
    nf4: float
    overhead: float
    measured: bool


def lookup_gpu(name: str, dtype: torch.dtype) -> DeviceRates | None:
    """The roofline of the GPU that CUDA calls `name`, None when the table lacks it."""
    row = next((row for row in GPUS if row[0].lower() in name.lower()), None)
    if row is None:
        return None
    peak = (row[2] if dtype == torch.float32 else row[1]) * 1e12
    rate = row[3] * 1e9 * ATTAINED["bytes"]
    attention = peak * ATTAINED["attention"]
    return DeviceRates(
        device=name, peak=peak, flops=peak * ATTAINED["flops"], attention=attention, batched=attention,
        bytes=rate, fresh=rate, exponentials=rate / 4, random=rate / 4, nf4=rate / 2.5, overhead=8e-6,
        measured=False,
    )  # fmt: skip


def get_device_rates(device: torch.device, dtype: torch.dtype) -> DeviceRates:
    """The roofline of a device that is here; measured ones are kept from run to run."""
    if device.type == "cuda":
        known = lookup_gpu(torch.cuda.get_device_name(device), dtype)
        if known is not None:
            return known
    return DeviceRates(
        **_cached_measurement(device.type, str(dtype), torch.get_num_threads(), RATES)
    )


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """The highest rate of matrix products, FLOPs a second: what MFU divides by."""
    if device.type == "cuda":
        known = lookup_gpu(torch.cuda.get_device_name(device), dtype)
        if known is not None:
            return known.peak
    return float(
        _cached_measurement(device.type, str(dtype), torch.get_num_threads(), "peak")["peak"]
    )


@functools.cache
def _cached_measurement(device: str, dtype: str, threads: int, what: str) -> dict[str, Any]:
    """A measurement from the file of earlier ones, else made and put there."""
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    key = f"{name}, {threads} threads, torch {torch.__version__}, {dtype}, {what}"
    path = get_cache_folder() / "roofline.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {**found[key], "device": name, "measured": True}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    place, kind = torch.device(device), getattr(torch, dtype.removeprefix("torch."))
    log.info("Measuring what %s can do (once, about two seconds).", name)
    with (
        rng.preserve_rng_state()
    ):  # or a machine's first run would draw other numbers than its second
        values = (
            _measure(place, kind) if what == RATES else {"peak": _products(place, kind, least=True)}
        )
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        earlier = {}
    try:
        write_atomic(path, json.dumps({**earlier, key: values}, indent=1) + "\n")
    except Exception as error:  # a home that cannot be written costs two seconds a run, no more
        log.info("%s was not kept: %s", path, error)
    return {**values, "device": name, "measured": True}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine() or "CPU"


def _measure(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    # Beyond the caches next to a core, as most passes are; 16 bits are slower by the byte.
    small, other = (torch.rand(2**22, device=device, dtype=dtype) for _ in range(2))
    bits = torch.rand(2**19, device=device)
    big = LARGE // 2  # numbers of 4 bytes: twice what is asked for anew
    cpu = device.type == "cpu"
    passes = 3 * small.nbytes / _seconds(lambda: small.add_(other), device)
    fresh = passes
    if cpu:
        fresh = 4 * big / _seconds(lambda: torch.empty(big).fill_(0.0), device)
    return {
        "peak": _products(device, dtype, least=True),
        "flops": _products(device, dtype),
        "attention": _attention(device, dtype),
        "batched": _batched(device, dtype),
        "bytes": passes,
        "fresh": fresh,
        "exponentials": other.numel() / _seconds(lambda: F.silu(other), device),
        "random": bits.numel() / _seconds(lambda: torch.empty_like(bits).bernoulli_(0.9), device),
        "nf4": _nf4(device),
        "overhead": _overhead(device),
    }


def _products(device: torch.device, dtype: torch.dtype, least: bool = False) -> float:
    """Of products whose operands are in no near cache, as in a step; or, `least`, the best there are."""
    made = [
        [torch.rand(rows, 512, device=device, dtype=dtype) for rows in (1024, 512)]
        for _ in range(1 if least else 16)
    ]
    turns = itertools.cycle(made)
    with torch.no_grad():
        return 2 * 1024 * 512 * 512 / _seconds(lambda: F.linear(*next(turns)), device, least)


def _attention(device: torch.device, dtype: torch.dtype) -> float:
    """Of a causal kernel, forward and backward together, at 256 tokens."""
    q = torch.rand(1, 8, 256, 32, device=device, dtype=dtype, requires_grad=True)

    def both() -> None:
        F.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()

    return 3.5 * 4 * 8 * 32 * 256 * 257 / 2 / _seconds(both, device)


def _batched(device: torch.device, dtype: torch.dtype) -> float:
    """Of the small products, many at once, that `blockwise.py` makes attention of."""
    rows, keys = (torch.rand(4, 256, 32, device=device, dtype=dtype) for _ in range(2))
    with torch.no_grad():
        seconds = _seconds(lambda: rows @ keys.transpose(1, 2) @ keys, device)
    return 2 * 2 * 4 * 256 * 256 * 32 / seconds


def _overhead(device: torch.device) -> float:
    """Of an operation in a training step, with all that modules, views and autograd take around it: of
    layers so narrow that they take nothing else."""
    from transformers import LlamaConfig, LlamaModel

    from elysia.train.planner.op_tracer import OpTracer

    sizes: Any = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "vocab_size": 16,
    }
    model: Any = LlamaModel(LlamaConfig(num_hidden_layers=4, **sizes))
    model.to(device)
    ids = torch.zeros(1, 16, dtype=torch.long, device=device)

    def step() -> None:
        model(input_ids=ids, use_cache=False).last_hidden_state.sum().backward()

    nothing = DeviceRates(
        device="", peak=1, flops=1, attention=1, batched=1, bytes=1, fresh=1, exponentials=1, random=1,
        nf4=1, overhead=0, measured=False,
    )  # fmt: skip
    counter = OpTracer(nothing, 0)
    with counter:
        step()
    return _seconds(step, device) / counter.operations


def _nf4(device: torch.device) -> float:
    try:
        import bitsandbytes.functional as bnb
    except ImportError:
        return 1e9  # nothing will be trained in 4 bits here
    weight = torch.rand(512, 512, device=device)
    packed, state = bnb.quantize_4bit(
        weight, blocksize=64, quant_type="nf4", compress_statistics=True
    )
    return weight.numel() / _seconds(lambda: bnb.dequantize_4bit(packed, state), device)


def _seconds(work: Callable[[], Any], device: torch.device, least: bool = False) -> float:
    """Seconds that `work` takes: the median of many runs, or the least.

    On a busy machine the clock also counts other programs; the processor time of this one,
    shared among its threads, does not: the smaller of both is taken.
    """
    work()
    threads = torch.get_num_threads()
    found: list[float] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < 0.25 or len(found) < 5:
        wall, own = time.perf_counter(), time.process_time()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        wall, own = time.perf_counter() - wall, time.process_time() - own
        found.append(wall if device.type == "cuda" else min(wall, own / threads))
    return max(min(found) if least else statistics.median(found), 1e-9)
