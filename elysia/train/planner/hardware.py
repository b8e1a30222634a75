"""What a device can do: known GPUs by a table, a CPU's products measured once and cached.

`peak_flops` is what MFU divides by; `get_device_rates` is what `elysia plan` estimates time with where
it cannot measure a micro-batch.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F

from elysia.core.errors import ConfigError, nearest
from elysia.core.files import write_atomic
from elysia.data.tokenize.token_cache import get_cache_folder
from elysia.models.device import pick_device, pick_dtype
from elysia.train.config.settings import Settings
from elysia.train.engine import rng

log = logging.getLogger(__name__)

# (part of the name CUDA gives, dense 16-bit TFLOP/s with float32 sums, float32 TFLOP/s, GB/s); the
# first that fits is taken. From NVIDIA's data sheets (B200, H200, H100, H20, A100, L40S, L40, L4, A10,
# V100, T4) and its architecture white papers (Ada GA/AD102: GeForce); figures "with sparsity" halved.
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
# What well-made kernels reach of a GPU's peaks; a table cannot say more. Assumed, not measured here.
GPU_SHARES = {"flops": 0.6, "attention": 0.35, "bytes": 0.8}
# What training steps of small models reached of a CPU's fastest product (docs/plan.md), and the bytes
# a second of one core's passes over memory.
CPU_SHARES = {"flops": 0.15, "attention": 0.05}
CPU_BYTES = 8e9


@dataclass(frozen=True)
class DeviceRates:
    """Rates of a device: `peak` FLOPs a second, and what training reaches: FLOPs a second of matrix
    products and of attention, bytes a second of passes over memory."""

    device: str
    peak: float
    flops: float
    attention: float
    bytes: float


@dataclass(frozen=True)
class TargetDevice:
    """The device that is planned for: its rates, its memory in bytes, the processes that share a run.
    `is_local`: whether it is this machine's, so that a micro-batch can be measured."""

    kind: str
    rates: DeviceRates
    memory: int
    dtype: str
    world: int = 1
    deepspeed: str = ""
    is_local: bool = False


def lookup_gpu(name: str, dtype: torch.dtype) -> DeviceRates | None:
    """The rates of the GPU that CUDA calls `name`, None when the table lacks it."""
    row = next((row for row in GPUS if row[0].lower() in name.lower()), None)
    if row is None:
        return None
    peak = (row[2] if dtype == torch.float32 else row[1]) * 1e12
    return DeviceRates(
        device=name,
        peak=peak,
        flops=peak * GPU_SHARES["flops"],
        attention=peak * GPU_SHARES["attention"],
        bytes=row[3] * 1e9 * GPU_SHARES["bytes"],
    )


def get_device_rates(device: torch.device, dtype: torch.dtype) -> DeviceRates:
    """The rates of a device of this machine. A GPU that the table lacks is taken by its measured peak."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = lookup_gpu(name, dtype)
        if known is not None:
            return known
    else:
        name = get_cpu_name()
    peak = peak_flops(device, dtype)
    shares = GPU_SHARES if device.type == "cuda" else CPU_SHARES
    return DeviceRates(
        device=name,
        peak=peak,
        flops=peak * shares["flops"],
        attention=peak * shares["attention"],
        bytes=3e11 if device.type == "cuda" else CPU_BYTES,
    )


def resolve_target(
    settings: Settings, gpu: str = "", memory: int = 0, deepspeed: str = ""
) -> TargetDevice:
    """The device of this machine, or the GPU of that name; `memory` in bytes overrides its own."""
    processes = [os.environ.get(name, "1") for name in ("NPROC_PER_NODE", "NNODES")]
    world = int(np.prod([int(text) if text.isdigit() else 1 for text in processes]))
    dtype: str = settings.dtype
    if gpu:
        dtype = "bfloat16" if dtype == "auto" else dtype
        rates = lookup_gpu(gpu, getattr(torch, dtype))
        if rates is None:
            names = [row[0] for row in GPUS]
            raise ConfigError(
                "train.plan_gpu_unknown", gpu=gpu, nearest=nearest(gpu, names), names=names
            )
        if not memory:
            raise ConfigError("train.plan_gpu_without_memory", gpu=gpu)
        return TargetDevice("cuda", rates, memory, dtype, world, deepspeed)
    device = pick_device()
    dtype = str(pick_dtype(device)).removeprefix("torch.") if dtype == "auto" else dtype
    own = psutil.virtual_memory().total
    if device.type == "cuda":
        own = torch.cuda.get_device_properties(device).total_memory
    rates = get_device_rates(device, getattr(torch, dtype))
    is_local = int(os.environ.get("NNODES", "1") or 1) == 1
    return TargetDevice(device.type, rates, memory or own, dtype, world, deepspeed, is_local)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """The highest rate of matrix products, FLOPs a second: from the table of GPUs, else measured."""
    if device.type == "cuda":
        known = lookup_gpu(torch.cuda.get_device_name(device), dtype)
        if known is not None:
            return known.peak
    return _cached_peak(device.type, str(dtype), torch.get_num_threads())


@functools.cache
def _cached_peak(device: str, dtype: str, threads: int) -> float:
    """The measured peak, kept in a file of the cache folder from run to run."""
    name = torch.cuda.get_device_name() if device == "cuda" else get_cpu_name()
    key = f"{name}, {threads} threads, torch {torch.__version__}, {dtype}, peak"
    path = get_cache_folder() / "roofline.json"
    entries = _read_json(path)
    try:
        return float(entries[key]["peak"])
    except (KeyError, TypeError, ValueError):
        pass
    log.info("Measuring what %s can do (once, under a second).", name)
    # Without this a machine's first run would draw other random numbers than its second.
    with rng.preserve_rng_state():
        peak = _measure_peak(torch.device(device), getattr(torch, dtype.removeprefix("torch.")))
    entries = _read_json(path)  # read again: another run may have written meanwhile
    try:
        write_atomic(path, json.dumps({**entries, key: {"peak": peak}}, indent=1) + "\n")
    except Exception as error:  # an unwritable home only costs the measurement again
        log.info("%s was not written: %s", path, error)
    return peak


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def get_cpu_name() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine() or "CPU"


def _measure_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of one matrix product whose operands stay in the caches."""
    rows, weight = (torch.rand(n, 512, device=device, dtype=dtype) for n in (1024, 512))
    with torch.no_grad():
        return 2 * 1024 * 512 * 512 / _time_call(lambda: F.linear(rows, weight), device)


def _time_call(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the fastest of many calls.

    On a busy machine the clock also counts other programs; the processor time of this one, shared
    among its threads, does not: the smaller of both is taken.
    """
    call()
    threads = torch.get_num_threads()
    seconds: list[float] = []
    start = time.perf_counter()
    while time.perf_counter() - start < 0.25 or len(seconds) < 5:
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        seconds.append(wall if device.type == "cuda" else min(wall, cpu / threads))
    return max(min(seconds), 1e-9)
