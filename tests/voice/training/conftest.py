"""Clips of a few sentences, and a VITS small enough to learn them on a CPU."""

import numpy as np
import pytest

for package in ("torch", "soundfile", "pyloudnorm", "monotonic_alignment_search"):
    pytest.importorskip(package, reason="requirements/voice.lock is not installed")

from elysia.voice.dataset.prepare import ClipRequirements, prepare_dataset  # noqa: E402
from elysia.voice.dataset.spectrogram import SpectrogramConfig  # noqa: E402
from elysia.voice.frontend.cleaners import BOPOMOFO  # noqa: E402
from elysia.voice.vits.config import VoiceConfig  # noqa: E402
from tests.voice.dataset.sounds import speechlike  # noqa: E402

TEXTS = ("你好，世界。", "今天天气不错。", "我们一起去公园。", "很高兴认识你。")
CONSENT = 'speaker = "A program"\nallows = "Train a voice for this test."\n'
SMALL = {
    "hidden_size": 32, "flow_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "upsample_rates": [5, 5, 4], "upsample_kernel_sizes": [11, 11, 8], "upsample_initial_channel": 64,
    "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3, 5]],
    "posterior_encoder_num_wavenet_layers": 4, "prior_encoder_num_flows": 2, "depth_separable_num_layers": 2,
}  # fmt: skip


def prepared(folder, sounds, shape, card):
    """A folder as `voice prepare` writes it, of (text, samples, rate)."""
    import soundfile

    recordings = folder / "recordings"
    recordings.mkdir()
    (recordings / "consent.toml").write_text(CONSENT)
    for number, (text, samples, rate) in enumerate(sounds):
        soundfile.write(recordings / f"{number}.wav", samples, rate)
        (recordings / f"{number}.txt").write_text(text, encoding="utf-8")
    prepare_dataset(recordings, folder / "data", ClipRequirements(card, shape))
    return folder / "data"


@pytest.fixture(scope="session")
def spoken(tmp_path_factory):
    """Four sentences of eSpeak's at 8000 Hz, prepared."""
    pytest.importorskip("espeakng_loader", reason="requirements/voice.lock is not installed")
    from elysia.voice.engines.espeak import EspeakEngine

    voice, sounds = EspeakEngine(), []
    for text in TEXTS:
        pieces = list(voice.synthesize(text))
        samples = np.frombuffer(b"".join(piece.data for piece in pieces), "<i2") / 32768
        sounds.append((text, samples, pieces[0].rate))
    voice.close()
    card = VoiceConfig(BOPOMOFO, "chinese_cleaners")
    return prepared(
        tmp_path_factory.mktemp("spoken"), sounds, SpectrogramConfig(8000, 100, 400), card
    )


@pytest.fixture(scope="session")
def noises(tmp_path_factory):
    """Three sentences of noise at 16000 Hz in the shape of `make_checkpoint`'s models."""
    sounds = [(text, speechlike(1.5, 16_000, seed=n), 16_000) for n, text in enumerate(TEXTS[:3])]
    card = VoiceConfig(BOPOMOFO, "chinese_cleaners")
    return prepared(
        tmp_path_factory.mktemp("noises"), sounds, SpectrogramConfig(16_000, 16, 128), card
    )


@pytest.fixture
def settings(spoken):
    """Of a run of seconds."""
    return {
        "data_path": str(spoken), "cleaner": "chinese_cleaners", "architecture": SMALL,
        "discriminator_scale": 0.03125, "batch_size": 4, "segment_frames": 16, "max_steps": 4, "lr": 2e-3,
        "mel_bands": 40, "save_steps": 2, "save_total_limit": 0, "logging_interval": 1,
        "listen_steps": 0, "listen_texts": ["你好"],
    }  # fmt: skip


@pytest.fixture
def config(tmp_path):
    """settings -> the path of a config file with them."""

    def write(settings, name="run"):
        path = tmp_path / f"{name}.py"
        path.write_text("".join(f"{key} = {value!r}\n" for key, value in settings.items()))
        return str(path)

    return write
