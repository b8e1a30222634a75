"""Alignment, losses and the training's forward pass, each against a way of its own."""

import itertools

import numpy as np
import pytest
import torch

from elysia.core.errors import VoiceError
from elysia.voice.dataset.spectrogram import SpectrogramConfig, log_mel
from elysia.voice.training import discriminators, durations, generator
from elysia.voice.training.discriminators import PERIODS, VitsDiscriminators, load_original
from elysia.voice.training.durations import rational_quadratic_spline
from elysia.voice.training.generator import ClipBatch
from elysia.voice.training.initialize import build_fresh
from elysia.voice.training.model import prepare_for_training
from elysia.voice.training.settings import VoiceSettings
from elysia.voice.vits.modules import FlowModule, inverse_spline, sample_durations
from tests.voice.training.conftest import SMALL

SHAPE = SpectrogramConfig(8000, 100, 400)


def every_path(symbols, frames):
    """All ways of giving each of `symbols` at least one of `frames`, in order."""
    for cuts in itertools.combinations(range(1, frames), symbols - 1):
        edges = (0, *cuts, frames)
        path = np.zeros((symbols, frames))
        for symbol in range(symbols):
            path[symbol, edges[symbol] : edges[symbol + 1]] = 1
        yield path


@pytest.mark.parametrize(("symbols", "frames"), [(1, 1), (1, 5), (4, 4), (3, 7), (5, 9), (6, 8)])
def test_the_path_is_the_best_of_all_paths(symbols, frames):
    random = np.random.default_rng(symbols * 10 + frames)
    for _ in range(8):
        scores = random.standard_normal((symbols, frames)).astype(np.float32) * 10 - 30
        best = max(every_path(symbols, frames), key=lambda path: float((path * scores).sum()))
        # In a batch with a larger one, as it comes.
        padded = torch.full((2, symbols + 2, frames + 3), 7.0)
        padded[0, :symbols, :frames] = torch.from_numpy(scores)
        result = durations.monotonic_path(
            padded, torch.tensor([symbols, symbols + 2]), torch.tensor([frames, frames + 3])
        )
        assert np.array_equal(result[0, :symbols, :frames].numpy(), best)
        assert result[0].sum() == frames and result[1].sum() == frames + 3


def test_a_clip_with_fewer_frames_than_symbols_is_refused():
    with pytest.raises(VoiceError, match="fewer frames than symbols"):
        durations.monotonic_path(torch.zeros(1, 5, 4), torch.tensor([5]), torch.tensor([4]))


def test_scores_are_the_gaussians_log_likelihoods():
    torch.manual_seed(0)
    latents, means, deviations = torch.randn(2, 3, 6), torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    result = durations.log_likelihoods(latents, means, deviations)
    normal = torch.distributions.Normal(means[:, :, :, None], deviations.exp()[:, :, :, None])
    right = normal.log_prob(latents[:, :, None, :]).sum(dim=1)
    assert torch.allclose(result, right, atol=1e-3)


def test_the_divergence_is_that_of_two_gaussians_on_average():
    torch.manual_seed(0)
    size = (1, 2, 60_000)
    spread, means, deviations = (torch.full(size, value) for value in (-0.5, 0.3, 0.2))
    drawn = 0.7 + spread.exp() * torch.randn(size)
    result = generator.kl_divergence(drawn, spread, means, deviations, torch.ones(1, 1, size[2]))
    posterior = torch.distributions.Normal(torch.tensor(0.7), torch.tensor(-0.5).exp())
    prior = torch.distributions.Normal(torch.tensor(0.3), torch.tensor(0.2).exp())
    right = 2 * torch.distributions.kl_divergence(posterior, prior)
    assert result == pytest.approx(float(right), abs=0.02)


def small(**changes):
    changes = {"architecture": SMALL, **changes}
    settings = VoiceSettings(data_path="x", cleaner="pinyin", **changes)
    torch.manual_seed(0)
    return prepare_for_training(build_fresh(settings, SHAPE)[1])


def batch(lengths, speaker=0):
    """Random clips of (symbols, frames), filled up to the longest."""
    random = torch.Generator().manual_seed(1)
    symbols, frames = (torch.tensor(part) for part in zip(*lengths, strict=True))
    ids = torch.zeros(len(lengths), int(symbols.max()), dtype=torch.long)
    spectrogram = torch.zeros(len(lengths), SHAPE.bins, int(frames.max()))
    for row, (count, long) in enumerate(lengths):
        ids[row, :count] = torch.randint(1, 30, (count,), generator=random)
        spectrogram[row, :, :long] = torch.rand(SHAPE.bins, long, generator=random)
    samples = torch.zeros(len(lengths), int(frames.max()) * SHAPE.hop)
    return ClipBatch(
        ids, symbols, spectrogram, frames, samples, torch.full((len(lengths),), speaker)
    )


@pytest.mark.parametrize("stochastic", [True, False])
def test_a_clip_is_aligned_alike_alone_and_beside_a_longer_one(stochastic, monkeypatch):
    model = small(stochastic_durations=stochastic).eval()
    torch.nn.init.normal_(model.flow.flows[0].conv_post.weight, std=0.1)  # flows that do something
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # the posterior's mean
    both = batch([(5, 40), (9, 70)])
    alone = ClipBatch(both.ids[:1, :5], both.symbols[:1], both.spectrogram[:1, :, :40], both.frames[:1],
                  both.samples[:1, : 40 * SHAPE.hop], both.speakers[:1])  # fmt: skip
    with torch.no_grad():
        together, single = (generator.training_forward(model, item, 16) for item in (both, alone))
    assert torch.equal(together.durations[0, :5], single.durations[0])
    assert torch.equal(together.durations.sum(dim=1), torch.tensor([40.0, 70.0]))
    if not stochastic:  # a mean over symbols, of which the first clip has 5 and the second 9
        second = ClipBatch(both.ids[1:], both.symbols[1:], both.spectrogram[1:], both.frames[1:],
                       both.samples[1:], both.speakers[1:])  # fmt: skip
        with torch.no_grad():
            other = generator.training_forward(model, second, 16)
        mean = (5 * single.duration_loss + 9 * other.duration_loss) / 14
        assert torch.allclose(together.duration_loss, mean, rtol=1e-4)
        mean = (40 * single.kl + 70 * other.kl) / 110
        assert torch.allclose(together.kl, mean, rtol=1e-4)


@pytest.mark.parametrize("stochastic", [True, False])
def test_every_weight_of_the_generator_learns(stochastic):
    model = small(stochastic_durations=stochastic)
    for module in model.modules():  # what begins at zero passes nothing on
        if isinstance(module, torch.nn.Conv1d) and not module.weight.any():
            torch.nn.init.normal_(module.weight, std=0.1)
    output = generator.training_forward(model, batch([(5, 40), (9, 70)]), 16)
    (output.sound.square().mean() + output.kl + output.duration_loss).backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # VITS, too, leaves the last half of the last duration flow without a use.
    assert not [name for name in still if not name.startswith("duration_predictor")], still
    assert len(still) <= 4, still


def test_the_prior_that_is_learned_is_the_one_that_is_said():
    model = small().eval()
    for layer in model.flow.flows:
        torch.nn.init.normal_(layer.conv_post.weight, std=0.2)
    latents, mask = torch.randn(1, 32, 20), torch.ones(1, 1, 20)
    with torch.no_grad():
        priors = model.flow(latents, mask)
        back = FlowModule(model)(priors)
    assert not torch.allclose(priors, latents, atol=0.1)
    assert torch.allclose(back, latents, atol=1e-4)


def test_the_text_encoder_learns_nothing_from_durations():
    model = small()
    generator.training_forward(model, batch([(5, 40)]), 16).duration_loss.backward()
    assert all(p.grad is None for p in model.text_encoder.parameters())
    assert model.duration_predictor.conv_pre.weight.grad is not None


def test_a_spline_is_undone_by_the_one_that_speaks_and_knows_its_slope():
    torch.manual_seed(0)
    inputs = (8 * torch.randn(2, 1, 50, dtype=torch.float64)).requires_grad_()
    shapes = [torch.randn(2, 1, 50, count, dtype=torch.float64) for count in (10, 10, 9)]
    output, steepness = rational_quadratic_spline(inputs, *shapes, 5.0)
    (slope,) = torch.autograd.grad(output.sum(), inputs)
    assert torch.allclose(slope.log(), steepness, atol=1e-6)
    assert torch.allclose(inverse_spline(output, *shapes, 5.0), inputs, atol=1e-6)
    assert (inputs.abs() > 5).any() and torch.equal(
        output[inputs.abs() > 5], inputs[inputs.abs() > 5]
    )


@pytest.mark.parametrize("stochastic", [True, False])
def test_what_is_learned_of_durations_is_what_is_said(stochastic):
    """Symbols that always last alike, learned without dropout: what is drawn then lasts as long."""
    fewer = SMALL | {"duration_predictor_num_flows": 2, "hidden_size": 16}
    model = small(stochastic_durations=stochastic, architecture=fewer)
    predictor = model.duration_predictor.eval()
    torch.manual_seed(0)
    ids = torch.arange(24) % 4
    hidden = torch.randn(4, 16)[ids].T[None]
    mask, lasting = torch.ones(1, 1, 24), torch.tensor([2.0, 4.0, 9.0, 20.0])[ids][None]
    optimizer = torch.optim.Adam(predictor.parameters(), 1e-2)
    for _ in range(100):
        loss = generator.duration_loss(model, hidden, mask, lasting, None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        if stochastic:
            noise = 0.3 * torch.randn(1, 2, 24)
            guessed = sample_durations(predictor, hidden, mask, None, noise).exp().ceil()
        else:
            guessed = predictor(hidden, mask)[:, 0].exp()
    apart = (guessed - lasting).abs() / lasting
    assert apart.mean() < 0.15, guessed


def test_pieces_are_cut_where_they_were_made():
    whole = torch.arange(40.0).view(2, 1, 20)
    result = generator.slice_segments(whole, torch.tensor([3, 12]), 4)
    assert result[:, 0].tolist() == [[3, 4, 5, 6], [32, 33, 34, 35]]
    torch.manual_seed(0)
    starts = torch.stack([generator.draw_starts(torch.tensor([16, 20]), 16) for _ in range(200)])
    assert starts[:, 0].unique().tolist() == [0] and starts[:, 1].unique().tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_mel_bands_are_slaneys():
    spectrogram = torch.zeros(1, SHAPE.bins, 1)
    spectrogram[0, 50] = 1.0  # 1000 Hz
    result = log_mel(spectrogram, SHAPE, 20, 0.0, 0.0)[0, :, 0].exp()
    # Slaney's mels are linear up to 1000 Hz, 66.7 Hz each.
    edges = np.linspace(0, 15 + 27 * np.log(4) / np.log(6.4), 22)
    hertz = np.where(edges < 15, edges * 200 / 3, 1000 * np.exp((edges - 15) * np.log(6.4) / 27))
    for band in range(20):
        low, middle, high = hertz[band : band + 3]
        height = max(0, min((1000 - low) / (middle - low), (high - 1000) / (high - middle)))
        assert float(result[band]) == pytest.approx(max(1e-5, height * 2 / (high - low)), rel=1e-3)


def test_the_least_squares_losses_by_hand():
    real = [(torch.tensor([[0.8, 1.0]]), [torch.tensor([1.0, 2.0])])]
    output = [(torch.tensor([[0.5, 0.1]]), [torch.tensor([1.5, 1.0])])]
    assert float(discriminators.discriminator_loss(real, output)) == pytest.approx(0.02 + 0.13)
    assert float(discriminators.generator_loss(output)) == pytest.approx((0.25 + 0.81) / 2)
    assert float(discriminators.feature_matching_loss(real, output)) == pytest.approx(2 * 0.75)


def original_shapes():
    """Name to shape of every tensor of a D_*.pth, from the paper's tables."""
    shapes = {}

    def normed(name, out, *rest):
        shapes.update({f"{name}.bias": (out,), f"{name}.weight_v": (out, *rest)})
        shapes[f"{name}.weight_g"] = (out, *[1 for _ in rest])

    plain = [(16, 1, 15), (64, 4, 41), (256, 4, 41), (1024, 4, 41), (1024, 4, 41), (1024, 1024, 5)]
    for number, (out, into, kernel) in enumerate(plain):
        normed(f"discriminators.0.convs.{number}", out, into, kernel)
    normed("discriminators.0.conv_post", 1, 1024, 3)
    for which in range(1, 6):
        sizes = (1, 32, 128, 512, 1024, 1024)
        for number, (into, out) in enumerate(itertools.pairwise(sizes)):
            normed(f"discriminators.{which}.convs.{number}", out, into, 5, 1)
        normed(f"discriminators.{which}.conv_post", 1, 1024, 3, 1)
    return shapes


@pytest.fixture
def d_file(tmp_path):
    """A D_*.pth of random numbers: few are drawn, for a file is 187 MB otherwise."""

    def write(**changes):
        shapes = original_shapes() | changes
        tensors = {n: torch.randn(1).expand(s) for n, s in shapes.items() if s}
        path = tmp_path / "D_latest.pth"
        torch.save({"model": tensors, "iteration": 7, "optimizer": None}, path)
        return path, tensors

    return write


def test_vitss_own_discriminators_are_taken_tensor_for_tensor(d_file):
    path, tensors = d_file()
    result = load_original(path)
    assert len(result) == len(tensors)
    for name, tensor in tensors.items():
        name_here = name.replace("weight_g", "parametrizations.weight.original0")
        assert torch.equal(
            result[name_here.replace("weight_v", "parametrizations.weight.original1")], tensor
        )
    with torch.device("meta"):
        expected = VitsDiscriminators().state_dict()
    assert {n: tuple(t.shape) for n, t in expected.items()} == {
        n: tuple(t.shape) for n, t in result.items()
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"discriminators.2.conv_post.bias": None}, "lacks discriminators.2.conv_post.bias"),
        ({"discriminators.6.conv_post.bias": (1,)}, "which VITS has not"),
        ({"discriminators.1.convs.0.bias": (31,)}, "not \\(32,\\) as in VITS"),
    ],
)
def test_what_is_no_discriminator_of_vits_is_refused(d_file, changes, words):
    path, _ = d_file(**changes)
    with pytest.raises(VoiceError, match=words):
        load_original(path)


def test_a_period_sees_every_nth_sample_and_no_other():
    torch.manual_seed(0)
    discriminator = VitsDiscriminators(0.03125).discriminators[1 + PERIODS.index(5)]
    sound = torch.randn(1, 1, 503)
    other = sound.clone()
    other[0, 0, 2::5] += 1.0  # of the five columns, the third
    before, after = discriminator(sound)[1][0], discriminator(other)[1][0]
    changed = (before != after).any(dim=1).any(dim=1)[0]
    assert changed.tolist() == [False, False, True, False, False]
