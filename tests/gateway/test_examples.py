"""The examples of docs/serving.md, as they stand there."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.gateway.parrot import MANNER, ParrotEngine, running

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
EXAMPLES = {
    block.splitlines()[0].lstrip("# ").split(",")[0]: block
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.S)
}
ADDRESS = "http://127.0.0.1:23333"


@pytest.fixture(scope="module")
def url():
    with running([("merged.q4_k_m", ParrotEngine(), MANNER)]) as client:
        yield str(client.base_url).rstrip("/")


@pytest.mark.parametrize("name", ["openai", "requests", "langchain-openai"])
def test_an_example_in_python(url, name, capsys):
    pytest.importorskip(name.replace("-", "_"))
    code = EXAMPLES[name].replace(ADDRESS, url)
    exec(compile(code, name, "exec"), {})
    assert "你是谁？" in capsys.readouterr().out


def test_the_example_with_curl(url):
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    line = next(line for line in PAGE.splitlines() if line.startswith("curl "))
    words = shlex.split(line.replace(ADDRESS, url))
    run = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert '"content":"你是谁？"' in run.stdout, run.stderr
