"""What is measured of a device: once, kept, and without a trace in a training's randomness."""

import torch

from elysia.train.planner import hardware


def timed(work, *_):
    work()
    return 1e-3


def test_measuring_a_device_leaves_randomness_as_it_was(tmp_path, monkeypatch):
    """Or a machine's first run would draw other dropout than its second."""
    monkeypatch.setenv("ELYSIA_CACHE", str(tmp_path))
    monkeypatch.setattr(hardware, "_time_call", timed)
    hardware._cached_peak.cache_clear()
    before = torch.get_rng_state()
    peak = hardware.peak_flops(torch.device("cpu"), torch.float32)
    assert torch.equal(before, torch.get_rng_state())
    hardware._cached_peak.cache_clear()
    monkeypatch.setattr(hardware, "_time_call", None)  # the second time it is read
    assert hardware.peak_flops(torch.device("cpu"), torch.float32) == peak
    hardware._cached_peak.cache_clear()
