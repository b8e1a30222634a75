"""Over the configs of XTuner's own wheel, where ELYSIA_XTUNER_CONFIGS names their folder."""

import os
from collections import Counter
from pathlib import Path

import pytest

from elysia.compat.xtuner.convert import convert_config

FOLDER = os.environ.get("ELYSIA_XTUNER_CONFIGS", "")


@pytest.mark.skipif(not FOLDER, reason="ELYSIA_XTUNER_CONFIGS does not name XTuner's configs")
def test_every_config_of_xtuner_is_judged():
    files = [path for path in Path(FOLDER).rglob("*.py") if path.name != "__init__.py"]
    reports = [convert_config(path) for path in files]
    counts = Counter(report.status for report in reports)
    assert counts["runs"] + counts["runs with changes"] == 531 and counts["not supported"] == 62
