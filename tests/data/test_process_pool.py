"""Several processes make the same tokens as one, tell the same faults, and leave nothing behind."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from transformers import AutoTokenizer

from elysia.core.errors import DataError, DeviceError
from elysia.core.templates import get_template
from elysia.data.process_pool import ProcessPool, count_useful_processes
from elysia.data.tokenize.arrays import ARRAYS
from elysia.data.tokenize.tokenize_samples import TokenizeOptions
from elysia.data.tokenize.tokenize_source import tokenize_source


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer):
    return AutoTokenizer.from_pretrained(tiny_tokenizer)


@pytest.fixture
def made(tmp_path, tokenizer, monkeypatch):
    """The tokens of two files of rows, two rows a part, by so many processes."""
    monkeypatch.setattr("elysia.data.tokenize.tokenize_source.SAMPLES_PER_BATCH", 2)
    paths = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]

    def made(*lines, processes, **more):
        half = len(lines) // 2
        for path, some in zip(paths, (lines[:half], lines[half:]), strict=True):
            path.write_text("\n".join(some), encoding="utf-8")
        source = {"path": [str(path) for path in paths], "format": "default", **more}
        way = TokenizeOptions(get_template("internlm2_chat"), 64, overlong="error")
        return tokenize_source(source, way, tokenizer, processes=processes)

    return made


def row(number, **change):
    return json.dumps({"input": f"问 {number}", "output": f"答 <|im_end|> {number}"} | change)


def test_the_tokens_are_the_same_however_many_make_them(made):
    lines = [row(n) for n in range(17)]
    for more in ({}, {"limit": 7}):
        alone, together = made(*lines, processes=1, **more), made(*lines, processes=3, **more)
        assert len(alone) == (more.get("limit") or 17) and alone.names == together.names
        for name in ARRAYS:
            assert np.array_equal(getattr(alone, name), getattr(together, name)), name


FAULTS = {
    "key": json.dumps({"input": "a"}),
    "empty": row(0, output=" "),
    "long": row(0, output="a b " * 99),
    "json": '{"input": ',
}


@pytest.mark.parametrize(("first", "second"), [("long", "json"), ("empty", "long"), ("key", "key")])
def test_of_several_faults_the_first_is_told_whoever_finds_it(made, first, second):
    lines = [row(n) for n in range(16)]
    lines[9], lines[14] = FAULTS[first], FAULTS[second]
    said = []
    for processes in (1, 2):
        with pytest.raises(DataError, match=r"b\.jsonl, row 2: ") as error:
            made(*lines, processes=processes)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_a_process_that_dies_is_told_and_none_is_left():
    with ProcessPool(str, 2) as workers:
        results = workers.map(range(50))
        assert next(results) == "0"
        started = workers.processes
        started[1].kill()
        with pytest.raises(DeviceError, match=r"ended early.*map_num_proc"):
            list(results)
    assert all(process.returncode is not None for process in started)


def test_an_interrupt_ends_every_process():
    def parts():
        yield from range(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ProcessPool(str, 2) as workers:
        for _ in workers.map(parts()):
            started = workers.processes
    assert all(process.returncode is not None for process in started)


def test_a_process_ends_with_its_pipe_and_needs_neither_torch_nor_transformers():
    code = "import elysia.data.pool_child as w, elysia.data.tokenize.tokenize_source, sys; w.main(); " \
        "print(sorted({'torch', 'transformers'} & set(sys.modules)), file=sys.stderr)"  # fmt: skip
    sent = pickle.dumps(len) + pickle.dumps("abc")
    done = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, timeout=60)
    assert done.returncode == 0 and pickle.loads(done.stdout) == 3
    assert done.stderr.strip() == b"[]"


def test_small_files_are_not_worth_a_process(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert (
        count_useful_processes(1000),
        count_useful_processes(10**9),
        count_useful_processes(10**9, sharing=4),
    ) == (1, 8, 2)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    assert count_useful_processes(10**9) == 1
