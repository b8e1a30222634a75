"""A folder of recordings whose sound and texts a test decides."""

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="requirements/voice.lock is not installed")
pytest.importorskip("pyloudnorm", reason="requirements/voice.lock is not installed")
pytest.importorskip("torch")

from tests.voice.dataset.sounds import speechlike

CONSENT = 'speaker = "李华"\nallows = "Train a voice for this test."\n'


@pytest.fixture
def recordings(tmp_path):
    """(name, text, samples=, rate=) -> writes one; the folder has a consent."""
    import soundfile

    folder = tmp_path / "recordings"
    folder.mkdir()
    (folder / "consent.toml").write_text(CONSENT, encoding="utf-8")

    def record(name, text="今天天气不错。", samples=None, rate=16_000):
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        samples = (
            speechlike(2.0, rate, seed=len(list(folder.iterdir()))) if samples is None else samples
        )
        soundfile.write(path, np.asarray(samples), rate)
        if text is not None:
            path.with_suffix(".txt").write_text(text, encoding="utf-8")
        return path

    record.folder = folder
    return record
