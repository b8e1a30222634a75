"""The process group: how processes find each other (torchrun, SLURM, or one process that needs a group of its
own), and the few collectives that are used beside gradients. gloo on a CPU, NCCL on CUDA.
"""

from __future__ import annotations

import os
import re
import socket
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from elysia.core.errors import DeviceError


def init_process_group(launcher: str) -> None:
    """Enter the process group that `launcher` ("none", "pytorch" or "slurm") describes.

    "none" makes a group of one: DeepSpeed needs a group whatever its size. Raises DeviceError for an
    environment that is incomplete, a GPU that is not there, or peers that do not answer.
    """
    if dist.is_initialized():
        return
    if launcher == "none":
        own = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(own, MASTER_PORT=str(find_free_port()))
    elif launcher == "slurm":
        _read_slurm_environment()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise DeviceError("train.launcher_environment", launcher=launcher, missing=missing)
    _set_cuda_device(int(os.environ["LOCAL_RANK"]))
    minutes = int(os.environ.get("XTUNER_DATASET_TIMEOUT", "60"))  # XTuner's name and unit
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(minutes=minutes))
    except (RuntimeError, ValueError) as error:  # DistNetworkError is a RuntimeError
        raise DeviceError(
            "train.processes_did_not_meet",
            address=f"{os.environ['MASTER_ADDR']}:{os.environ.get('MASTER_PORT')}",
            reason=str(error).splitlines()[0][:160],
        ) from error


def destroy_process_group() -> None:
    """Leave the group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def all_gather_object(value: Any) -> list[Any]:
    """`value` of every process, in order of rank, on every process."""
    if not _has_peers():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def all_reduce_sum(value: float, device: torch.device | str = "cpu") -> float:
    """Sum of `value` over all processes, in float64."""
    if not _has_peers():
        return value
    device = "cuda" if dist.get_backend() == "nccl" else device
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return float(tensor.item())


def barrier() -> None:
    """Wait for the other processes, if any."""
    if _has_peers():
        dist.barrier()


def _has_peers() -> bool:
    return dist.is_initialized() and dist.get_world_size() > 1


def find_free_port() -> int:
    """A TCP port on loopback that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _set_cuda_device(local_rank: int) -> None:
    if not torch.cuda.is_available():
        return
    gpus = torch.cuda.device_count()
    if local_rank >= gpus:
        raise DeviceError("train.rank_without_gpu", rank=local_rank, gpus=gpus)
    torch.cuda.set_device(local_rank)


def _read_slurm_environment() -> None:
    """Translate SLURM's variables into torch's."""
    try:
        rank, world = os.environ["SLURM_PROCID"], os.environ["SLURM_NTASKS"]
        nodes = os.environ["SLURM_NODELIST"]
    except KeyError as error:
        raise DeviceError("train.slurm_environment", name=error) from None
    os.environ["RANK"], os.environ["WORLD_SIZE"] = rank, world
    os.environ["LOCAL_RANK"] = os.environ.get("SLURM_LOCALID", "0")
    os.environ.setdefault("MASTER_ADDR", parse_first_host(nodes))
    os.environ.setdefault("MASTER_PORT", os.environ.get("PORT", "29500"))


def parse_first_host(nodes: str) -> str:
    """The first host of a SLURM node list.

    >>> parse_first_host("gpu[03-05,9],cpu1"), parse_first_host("node7,node8"), parse_first_host("a-[12]")
    ('gpu03', 'node7', 'a-12')
    """
    ranged = re.match(r"([^,\[]*)\[(\w+)", nodes)
    return ranged[1] + ranged[2] if ranged else nodes.split(",")[0]
