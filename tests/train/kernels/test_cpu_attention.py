import pytest
import torch
import torch.nn.functional as F

from elysia.train.kernels import cpu_attention


def inputs(length, dtype=torch.float32, heads=(4, 2), n=2):
    torch.manual_seed(length)
    shapes = [(n, heads[0], length, 16), *[(n, heads[1], length, 16)] * 2]
    # As a network gives them: positions before heads.
    tensors = [torch.randn(shape, dtype=dtype).transpose(1, 2).contiguous() for shape in shapes]
    return [x.transpose(1, 2).requires_grad_() for x in tensors]


def both_ways(attend, tensors):
    """Values and gradients under a fixed slope."""
    tensors = [x.detach().requires_grad_() for x in tensors]
    out = attend(*tensors)
    torch.manual_seed(1)
    out.backward(torch.randn(out.shape).to(out.dtype))
    return [out.detach(), *(x.grad for x in tensors)]


def plain(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def ours(q, k, v):
    return cpu_attention.attend(q, k, v, None)


def error(actual, exact):
    return max(
        float((a.double() - b).norm() / b.norm().clamp_min(1))
        for a, b in zip(actual, exact, strict=True)
    )


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("length", [1, 7, 64, 200])
def test_values_and_gradients_are_those_of_plain_attention(length, heads):
    tensors = inputs(length, heads=heads)
    exact = both_ways(plain, [x.double() for x in tensors])
    assert error(both_ways(ours, tensors), exact) < 1e-6
    doubled = both_ways(ours, [x.double() for x in tensors])
    assert error(doubled, exact) < 1e-13


def test_16_bits_are_as_exact_as_torchs_own_kernel():
    tensors = inputs(300, torch.bfloat16)
    exact = both_ways(plain, [x.double() for x in tensors])
    assert error(both_ways(ours, tensors), exact) < 1.5 * error(both_ways(plain, tensors), exact)


def test_weights_that_are_made_again_give_the_same_bits(monkeypatch):
    tensors = inputs(200, torch.bfloat16)
    saved = both_ways(ours, tensors)
    monkeypatch.setattr(cpu_attention, "MAX_SAVED_BYTES", 0)
    for a, b in zip(saved, both_ways(ours, tensors), strict=True):
        assert torch.equal(a, b)


def test_what_is_kept_is_bounded():
    def held(length):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: sizes.append(x.nbytes), lambda x: x
        ):
            ours(*inputs(length))
        return sum(sizes)

    few, many = held(64), held(2048)
    assert few > 3 * sum(x.nbytes for x in inputs(64)) / 2  # the weights, too
    assert many <= sum(x.nbytes for x in inputs(2048))


def test_a_row_looks_at_nothing_after_it():
    q, k, v = inputs(150)
    before = ours(q, k, v)
    with torch.no_grad():
        k[:, :, 100:], v[:, :, 100:] = 99.0, -99.0
    after = ours(q, k, v)
    assert torch.equal(before[:, :, :100], after[:, :, :100])
    assert not torch.equal(before[:, :, 100:], after[:, :, 100:])


def test_under_autocast_all_of_it_is_in_16_bits():
    q, k, v = inputs(70)
    with torch.autocast("cpu", torch.bfloat16):
        actual = both_ways(ours, [q, k, v.detach().bfloat16()])
    exact = both_ways(plain, [x.detach().bfloat16().double() for x in (q, k, v)])
    assert actual[0].dtype == torch.bfloat16 and actual[1].dtype == torch.float32
    assert error(actual, exact) < 0.02
