"""A whole config in XTuner's form, written for these tests, and ways to vary it."""

from pathlib import Path

import pytest

CONFIG = (Path(__file__).parent / "whole_config.txt").read_text()


@pytest.fixture
def config(tmp_path):
    """Writes the config with texts replaced, old by new, and text appended; returns the file."""

    def write(*replacements, more="", name="theirs.py"):
        text = CONFIG
        for old, new in replacements:
            assert old in text, old
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text + more)
        return path

    return write
