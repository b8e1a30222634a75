"""torch's varlen kernel: how it is called, and that it is only used where it gives the right numbers.

The kernel itself runs on GPUs alone; elsewhere a stand-in with its signature takes its place.
"""

import pytest
import torch
import torch.nn.functional as F

from elysia.train.kernels import packed_attention
from elysia.train.kernels.packed_attention import _attend_by_sample

BF16, HEADS = torch.bfloat16, (4, 2)


def kernel(q, k, v, bounds, bounds_k, longest, longest_k, *, scale, window_size, enable_gqa):
    """What the kernel's documentation says, sample by sample."""
    assert bounds.dtype == torch.int32 and int(bounds.diff().max()) == longest == longest_k
    parts = []
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        rows = torch.arange(end - start)
        back = rows[:, None] - rows[None, :]
        left, right = window_size
        seen = (back >= -right) & ((back <= left) if left >= 0 else True)
        q_, k_, v_ = (x[start:end].transpose(0, 1)[None] for x in (q, k, v))
        out = F.scaled_dot_product_attention(q_, k_, v_, seen, scale=scale, enable_gqa=enable_gqa)
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)


@pytest.fixture
def as_kernel(monkeypatch):
    packed_attention.is_varlen_supported.cache_clear()
    yield lambda function: monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", function)
    packed_attention.is_varlen_supported.cache_clear()


def usable(window=None, dtype=BF16):
    return packed_attention.is_varlen_supported(
        torch.device("cpu"), dtype, HEADS, 16, window, _attend_by_sample
    )


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_it_is_asked_for_what_attention_by_sample_gives(as_kernel, window, scale):
    as_kernel(kernel)
    q, k, v = (torch.randn(20, heads, 16) for heads in (4, 2, 2))
    actual = packed_attention.attend_varlen(q, k, v, [7, 1, 12], scale, window)
    assert torch.allclose(actual, _attend_by_sample(q, k, v, [7, 1, 12], scale, window), atol=1e-5)


@pytest.mark.parametrize("window", [None, 8])
def test_a_kernel_that_gives_the_same_numbers_is_used(as_kernel, window):
    as_kernel(kernel)
    before = torch.get_rng_state()
    assert usable(window)
    assert torch.equal(before, torch.get_rng_state())
    assert not usable(dtype=torch.float32)  # it has none for it


def test_one_that_is_wrong_in_values_or_in_gradients_is_not(as_kernel, caplog):
    as_kernel(lambda *args, **kwargs: kernel(*args, **(kwargs | {"window_size": (-1, 9)})))
    assert not usable()
    assert "off by" in caplog.text
    packed_attention.is_varlen_supported.cache_clear()
    as_kernel(
        lambda q, k, v, *args, **kwargs: kernel(q, k, v.detach(), *args, **kwargs) + 0 * v.sum()
    )
    assert not usable()


def test_one_that_does_not_run_is_not(as_kernel, caplog):
    def broken(*args, **kwargs):
        raise RuntimeError("no kernel for this GPU\nmore")

    caplog.set_level("INFO")
    as_kernel(broken)
    assert not usable()
    assert "does not run (no kernel for this GPU)" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_real_kernel_is_usable():
    assert packed_attention.is_varlen_supported(
        torch.device("cuda"), BF16, HEADS, 64, None, _attend_by_sample
    )
