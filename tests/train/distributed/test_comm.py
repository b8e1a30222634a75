import pytest
import torch

from elysia.core.errors import DeviceError
from elysia.train.distributed import comm


def test_a_launcher_without_its_environment_says_what_is_missing(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DeviceError, match=r"RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR.*torchrun"):
        comm.init_process_group("pytorch")


def test_slurm_without_srun_is_a_sentence(monkeypatch):
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    with pytest.raises(DeviceError, match="srun"):
        comm.init_process_group("slurm")


def test_slurms_variables_become_torchs(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    for name, value in {"PROCID": "5", "NTASKS": "8", "LOCALID": "1", "NODELIST": "n[3-4]"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    comm._read_slurm_environment()
    import os

    assert [os.environ[n] for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")] == [
        "5",
        "8",
        "1",
        "n3",
    ]


def test_a_gpu_that_is_not_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match=r"there are 2.*NPROC_PER_NODE"):
        comm._set_cuda_device(2)
