"""Fast convolutions say what plain ones do, whatever the taps, the dilation and the phases."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from elysia.voice.vits.winograd_conv import (  # noqa: E402
    WinogradConv1d,
    from_phases,
    is_supported,
    to_phases,
    winograd_matrices,
)


@pytest.mark.parametrize("phases", [8, 16])
@pytest.mark.parametrize(("taps", "step"), [(3, 1), (3, 5), (7, 3), (11, 1), (11, 5), (1, 1)])
def test_the_sum_is_the_plain_ones_within_rounding(taps, step, phases):
    torch.manual_seed(taps * step)
    conv = nn.Conv1d(6, 6, taps, dilation=step, padding=step * (taps // 2))
    x = torch.randn(1, 6, 10 * phases)
    assert is_supported(conv, phases)
    fast = from_phases(WinogradConv1d(conv, phases)(to_phases(x, phases)))
    with torch.no_grad():
        right = conv.double()(x.double())
        assert (fast - right).abs().max() < 5e-6 * right.abs().max()


@pytest.mark.parametrize(("taps", "products"), [(3, 11), (7, 17), (11, 23)])
def test_a_third_of_the_products_is_made(taps, products):
    out, weigh, into = winograd_matrices(8, taps)
    assert out.shape == (8, products) and weigh.shape == (products, taps)
    assert into.shape == (products, 7 + taps)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv1d(4, 4, 4, padding=2), nn.Conv1d(4, 8, 3, padding=1), nn.Conv1d(4, 4, 3),
        nn.Conv1d(4, 4, 3, padding=2, dilation=2), nn.Conv1d(4, 4, 3, padding=1, groups=2),
        nn.Conv1d(4, 4, 3, padding=1, stride=2),
    ],
)  # fmt: skip
def test_others_are_left_plain(conv):
    assert not is_supported(conv, 8)
