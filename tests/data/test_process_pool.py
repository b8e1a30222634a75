"""Work in processes comes back in order, in bounds, with a sentence where a process dies; several
processes make the same tokens as one and report the same errors."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from elysia.core.errors import DataError, DeviceError
from elysia.core.templates import get_template
from elysia.data.process_pool import ProcessPool, count_useful_processes
from elysia.data.tokenize.arrays import ARRAYS
from elysia.data.tokenize.sample_tokenizer import TokenizeOptions
from elysia.data.tokenize.source_tokenizer import tokenize_source


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer):
    from transformers import AutoTokenizer  # late: the processes of a pool import this file, too

    return AutoTokenizer.from_pretrained(tiny_tokenizer)


@pytest.fixture
def tokenize_lines(tmp_path, tokenizer, monkeypatch):
    """The tokens of two files of rows, two rows per part, made by so many processes."""
    monkeypatch.setattr("elysia.data.tokenize.source_tokenizer.SAMPLES_PER_BATCH", 2)
    paths = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]

    def tokenize_lines(*lines, processes, **more):
        half = len(lines) // 2
        for path, part in zip(paths, (lines[:half], lines[half:]), strict=True):
            path.write_text("\n".join(part), encoding="utf-8")
        source = {"path": [str(path) for path in paths], "format": "default", **more}
        options = TokenizeOptions(get_template("internlm2_chat"), 64, overlong="error")
        return tokenize_source(source, options, tokenizer, processes=processes)

    return tokenize_lines


def row(number, **change):
    return json.dumps({"input": f"问 {number}", "output": f"答 <|im_end|> {number}"} | change)


def test_the_tokens_are_the_same_however_many_processes_make_them(tokenize_lines):
    lines = [row(n) for n in range(17)]
    for more in ({}, {"limit": 7}):
        alone = tokenize_lines(*lines, processes=1, **more)
        together = tokenize_lines(*lines, processes=3, **more)
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
def test_of_several_faults_the_first_is_reported_whoever_meets_it(tokenize_lines, first, second):
    lines = [row(n) for n in range(16)]
    lines[9], lines[14] = FAULTS[first], FAULTS[second]
    messages = []
    for processes in (1, 2):
        with pytest.raises(DataError, match=r"b\.jsonl, row 2: ") as error:
            tokenize_lines(*lines, processes=processes)
        messages += [(str(error.value), error.value.render("zh"))]
    assert messages[0] == messages[1]


def slow_if_odd(number):
    time.sleep(0.02 if number % 2 else 0)
    return number, os.getpid()


def die_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def invert(number):
    return 1 // number


LOADED = (
    "[__import__('elysia.data.lint.lint_run'), __import__('elysia.data.tokenize.source_tokenizer'),"
    " sorted({'torch', 'transformers'} & set(__import__('sys').modules))][-1]"
)


def test_results_come_in_order_and_no_more_items_are_taken_than_are_worked_on():
    taken_items = []

    def items():
        for number in range(20):
            taken_items.append(number)
            yield number

    with ProcessPool(slow_if_odd, 2) as pool:
        for place, (number, process) in enumerate(pool.map(items())):
            assert number == place and process != os.getpid()
            assert len(taken_items) <= place + 3
        assert [number for number, _ in pool.map([7, 8])] == [7, 8]
    assert not multiprocessing.active_children()


def test_a_process_that_dies_is_a_sentence_and_none_is_left():
    with (
        pytest.raises(DeviceError, match=r"ended early.*map_num_proc"),
        ProcessPool(die_at_three, 2) as pool,
    ):
        list(pool.map(range(9)))
    assert not multiprocessing.active_children()


def test_what_the_function_raises_is_raised_here():
    with pytest.raises(ZeroDivisionError), ProcessPool(invert, 2) as pool:
        list(pool.map([1, 0, 1]))


def test_an_interrupt_ends_every_process():
    def items():
        yield from range(3)
        assert len(multiprocessing.active_children()) == 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ProcessPool(str, 2) as pool:
        list(pool.map(items()))
    assert not multiprocessing.active_children()


def test_a_process_needs_neither_torch_nor_transformers():
    with ProcessPool(eval, 2) as pool:
        assert list(pool.map([LOADED, LOADED])) == [[], []]


PARENT = """
import sys, time
from elysia.data.process_pool import ProcessPool
from multiprocessing import active_children
print("main script", flush=True)
with ProcessPool(str, 2) as pool:
    for _ in pool.map(range(3)):
        pass
    print(*(child.pid for child in active_children()), flush=True)
    time.sleep(60)
"""


def test_processes_end_with_a_killed_parent_and_do_not_run_its_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "main script\n"
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, children))


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_without_processes_the_work_is_done_here():
    with ProcessPool(slow_if_odd, 0) as pool:
        assert list(pool.map([2, 4])) == [(2, os.getpid()), (4, os.getpid())]


def test_small_files_are_not_worth_a_process(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    counts = [count_useful_processes(*args) for args in ((1000,), (10**9,), (10**9, 4))]
    assert counts == [1, 8, 2]
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    assert count_useful_processes(10**9) == 1
