import pytest
import torch

from elysia.core.errors import DeviceError, ModelError
from elysia.models import device


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, count: int, bf16: bool = True) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: count - 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)


def test_auto_is_the_current_cuda_device_or_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch, 0)
    assert device.pick_device() == torch.device("cpu")
    pretend_cuda(monkeypatch, 2)
    assert device.pick_device() == torch.device("cuda:1")
    assert device.pick_device("cuda:0") == torch.device("cuda:0")
    assert device.pick_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize(("count", "name"), [(0, "cuda"), (1, "cuda:1")])
def test_a_gpu_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, count: int, name: str
) -> None:
    pretend_cuda(monkeypatch, count)
    with pytest.raises(DeviceError, match=f"{name} is not there: CUDA sees {count}"):
        device.pick_device(name)


def test_unknown_and_absent_kinds_of_device_are_refused() -> None:
    with pytest.raises(DeviceError, match="Unknown device 'gpu'"):
        device.pick_device("gpu")
    with pytest.raises(DeviceError, match="xpu is not there"):
        device.pick_device("xpu")


def test_the_dtype_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch, 1, bf16=True)
    assert device.pick_dtype(torch.device("cuda:0")) == torch.bfloat16
    pretend_cuda(monkeypatch, 1, bf16=False)
    assert device.pick_dtype(torch.device("cuda:0")) == torch.float16
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: True)
    assert device.pick_dtype(torch.device("cpu")) == torch.bfloat16
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: False)
    assert device.pick_dtype(torch.device("cpu")) == torch.float32
    assert device.pick_dtype(torch.device("mps")) == torch.float32


@pytest.mark.parametrize("name", ["bfloat16", "bf16", "torch.bfloat16", torch.bfloat16])
def test_a_dtype_goes_by_several_names(name: str | torch.dtype) -> None:
    assert device.parse_dtype(name) == torch.bfloat16


def test_an_unknown_dtype_is_refused_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="Did you mean 'bfloat16'"):
        device.parse_dtype("bfloat61")


def test_this_cpus_bfloat16_is_a_plain_answer() -> None:
    assert device.cpu_has_bf16() in (True, False)
