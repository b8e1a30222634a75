import pytest
import torch
import torch.nn.functional as F

from elysia.train.kernels import packed_attention
from elysia.train.kernels.packed_attention import segment_attention


def whole(q, k, v, window=None):
    """Plain causal attention of one sample."""
    t = q.shape[2]
    rows = torch.arange(t)
    distance = rows[:, None] - rows[None, :]
    mask = (distance >= 0) & (distance < (window or t))
    return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True).transpose(1, 2)


def parts(lengths, dtype=torch.float32):
    torch.manual_seed(0)
    t = sum(lengths)
    return [torch.randn(1, heads, t, 16, dtype=dtype) for heads in (4, 2, 2)]


@pytest.mark.parametrize("lengths", [[5], [3, 64, 1, 70], [128]])
def test_each_sample_is_attended_as_if_it_were_alone(lengths):
    q, k, v = parts(lengths)
    together, _ = segment_attention(torch.nn.Module(), q, k, v, None, segments=lengths)
    start = 0
    for n in lengths:
        piece = [x[:, :, start : start + n] for x in (q, k, v)]
        torch.testing.assert_close(
            together[:, start : start + n], whole(*piece), rtol=1e-5, atol=1e-5
        )
        start += n


def test_in_16_bits_and_with_wide_heads_a_cpu_attends_in_blocks_and_to_the_same(monkeypatch):
    blocks = []
    own = packed_attention.cpu_attention.attend
    monkeypatch.setattr(
        packed_attention.cpu_attention,
        "attend",
        lambda q, *rest: blocks.append(q.dtype) or own(q, *rest),
    )
    q, k, v = parts([70, 200], torch.bfloat16)
    wide = [torch.randn(1, 2, 270, 64) for _ in range(3)]
    for tensors, tolerance in (((q, k, v), 0.02), (wide, 1e-5), (parts([70, 200]), 1e-5)):
        out, _ = segment_attention(torch.nn.Module(), *tensors, None, segments=[70, 200])
        exact = [x.double() for x in tensors]
        alone = [whole(*(x[:, :, a:b] for x in exact)) for a, b in ((0, 70), (70, 270))]
        torch.testing.assert_close(out.double(), torch.cat(alone, 1), rtol=0, atol=tolerance)
    assert blocks == [torch.bfloat16] * 2 + [torch.float32] * 2  # none for narrow heads in float32


def test_nothing_of_one_sample_reaches_another():
    q, k, v = parts([10, 20])
    before, _ = segment_attention(torch.nn.Module(), q, k, v, None, segments=[10, 20])
    k[:, :, :10], v[:, :, :10] = 99.0, -99.0
    after, _ = segment_attention(torch.nn.Module(), q, k, v, None, segments=[10, 20])
    assert torch.equal(before[:, 10:], after[:, 10:])
    assert not torch.equal(before[:, :10], after[:, :10])


def test_a_sliding_window_is_kept():
    q, k, v = parts([40])
    out, _ = segment_attention(torch.nn.Module(), q, k, v, None, segments=[40], sliding_window=8)
    torch.testing.assert_close(out, whole(q, k, v, window=8), rtol=1e-5, atol=1e-5)
