"""Choosing the device and the dtype that a model runs on."""

from __future__ import annotations

import torch

from elysia.core.errors import DeviceError, ModelError, nearest

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device called `name`; "auto" is the current CUDA device if there is one, else the CPU.

    Raises DeviceError when the device does not exist on this machine.
    """
    text = str(name)
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise DeviceError("models.unknown_device", name=text) from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError("models.cuda_device_missing", name=text, count=count)
        if device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
    elif device.type not in ("cpu", "meta"):
        module = getattr(torch, device.type, None)
        if module is None or not getattr(module, "is_available", lambda: False)():
            raise DeviceError("models.device_missing", name=text)
    return device


def pick_dtype(device: torch.device) -> torch.dtype:
    """The dtype that `device` computes fastest in without losing range.

    CUDA: bfloat16 where the GPU has it in hardware, else float16. CPU: bfloat16 with avx512_bf16 or
    AMX, else float32. Never float16 on a CPU, where it was measured to take seventy times as long.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    if device.type == "cpu":
        return torch.bfloat16 if cpu_has_bf16() else torch.float32
    return torch.float32


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A torch dtype from its name (float32, fp32, torch.float32 …); ModelError for an unknown one."""
    if isinstance(dtype, torch.dtype):
        return dtype
    parsed = DTYPES.get(dtype.removeprefix("torch."))
    if parsed is None:
        raise ModelError("models.unknown_dtype", name=dtype, hint=nearest(dtype, DTYPES))
    return parsed
