"""A whole config in XTuner's form, written for these tests, and ways to vary it."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
CONFIG = (HERE / "whole_config.txt").read_text()
PAIRS = (HERE / "pairs_config.txt").read_text()


@pytest.fixture
def config(tmp_path):
    """Writes the config with texts replaced, old by new, and text appended; returns the file."""
    return _writer(CONFIG, tmp_path)


@pytest.fixture
def pairs_config(tmp_path):
    """`config` for DPO on preference pairs."""
    return _writer(PAIRS, tmp_path)


def _writer(config, tmp_path):
    def write(*replacements, more="", name="theirs.py"):
        text = config
        for old, new in replacements:
            assert old in text, old
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text + more)
        return path

    return write
