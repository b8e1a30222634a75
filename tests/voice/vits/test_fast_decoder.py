"""The decoder for export: windows cut early and summed fast equal the plain decoder's whole."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import VitsConfig  # noqa: E402
from transformers.models.vits.modeling_vits import VitsHifiGan  # noqa: E402

from elysia.voice.vits.config import receptive_fields  # noqa: E402
from elysia.voice.vits.fast_decoder import FastDecoder, FastResidualBlock  # noqa: E402

SHAPES = {
    "usual": ([8, 8, 2, 2], [16, 16, 4, 4], [3, 7, 11]),
    "without a power of two": ([5, 4, 3], [11, 8, 5], [3, 5]),
}


@pytest.fixture(params=SHAPES)
def decoder(request):
    rates, kernels, taps = SHAPES[request.param]
    torch.manual_seed(1)
    config = VitsConfig(
        flow_size=6, upsample_initial_channel=64, upsample_rates=rates, speaker_embedding_size=4,
        upsample_kernel_sizes=kernels, resblock_kernel_sizes=taps,
        resblock_dilation_sizes=[[1, 3, 5]] * len(taps),
    )  # fmt: skip
    return VitsHifiGan(config).eval().requires_grad_(False)


def test_a_window_says_what_the_whole_says(decoder, monkeypatch):
    monkeypatch.setattr(
        "elysia.voice.vits.fast_decoder.MIN_WINOGRAD_SIZE", 0
    )  # small channels are fast here, too
    fast = FastDecoder(decoder)
    some = [block.phases for stage in fast.stages for block in stage]
    assert max(some) == (16 if len(some) == 12 else 0)
    latents, speaker = torch.randn(1, 6, 70), torch.randn(1, 4, 1)
    whole = decoder(latents, speaker)[0, 0]
    hop, reach = len(whole) // 70, receptive_fields(decoder.config.to_dict())[0]
    for start, end in ((0, 70), (0, 9), (30, 41), (60, 70)):
        first, last = max(0, start - reach), min(70, end + reach)
        ends = torch.tensor([start - first, last - end])
        output = fast(latents[:, :, first:last], ends, speaker)
        assert (output - whole[start * hop : end * hop]).abs().max() < 1e-5


def test_the_reach_is_no_shorter_and_not_much_longer_than_what_is_heard(decoder):
    decoder = decoder.double()
    latents, speaker = torch.randn(1, 6, 61).double(), torch.randn(1, 4, 1).double()
    changed = latents.clone()
    changed[:, :, 30] += 100
    apart = (decoder(latents, speaker) - decoder(changed, speaker))[0, 0].abs() > 0
    hop, reach = len(apart) // 61, receptive_fields(decoder.config.to_dict())[0]
    heard = torch.nonzero(apart)
    start, right = 30 - int(heard.min()) / hop, int(heard.max()) / hop - 31
    assert reach - 2 < max(start, right) <= reach


def test_small_blocks_stay_plain(decoder):
    blocks = [block for stage in FastDecoder(decoder).stages for block in stage]
    assert all(isinstance(block, FastResidualBlock) for block in blocks)
    fast = [block.phases > 0 for block in blocks]
    assert fast == ([False, False, True] + [False] * 9 if len(fast) == 12 else [False] * 6)
