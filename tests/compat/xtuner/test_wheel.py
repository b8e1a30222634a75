"""Over the configs of XTuner's own wheel, where ELYSIA_XTUNER_CONFIGS names their folder.

scripts/xtuner_configs.py --check compares every config with the table; here it is a sample.
"""

import importlib.util
import os
from collections import Counter
from pathlib import Path

import pytest

from elysia.compat.xtuner.convert import convert_config

FOLDER = os.environ.get("ELYSIA_XTUNER_CONFIGS", "")


needs_wheel = pytest.mark.skipif(
    not FOLDER, reason="ELYSIA_XTUNER_CONFIGS does not name XTuner's configs"
)


@needs_wheel
def test_every_config_of_xtuner_is_judged():
    files = [path for path in Path(FOLDER).rglob("*.py") if path.name != "__init__.py"]
    reports = [convert_config(path) for path in files]
    counts = Counter(report.status for report in reports)
    assert counts["runs"] + counts["runs with changes"] == 531 and counts["not supported"] == 62


@needs_wheel
def test_configs_of_the_table_mean_what_the_wheels_do():
    path = Path(__file__).parents[3] / "scripts/xtuner_configs.py"
    spec = importlib.util.spec_from_file_location("xtuner_configs", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    files = sorted(p for p in Path(FOLDER).rglob("*.py") if p.name != "__init__.py")
    for file in files[::40]:
        assert script.compare_config(file.stem, convert_config(file, device="cuda")) == []
