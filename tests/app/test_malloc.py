"""Many threads share few arenas of the C library's heap."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

THREADS = """
import ctypes, os, threading
from elysia.app.malloc import limit_malloc_arenas
if {ask}:
    assert limit_malloc_arenas() is {taken}
all_there = threading.Barrier(12)
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def work():
    all_there.wait(60)
    for _ in range(200):
        libc.malloc(100_000)
    all_there.wait(60)
threads = [threading.Thread(target=work) for _ in range(12)]
for one in threads: one.start()
for one in threads: one.join()
libc.fopen.restype = ctypes.c_void_p
file = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, ctypes.c_void_p(file))
libc.fclose(ctypes.c_void_p(file))
"""


def arenas(ask: bool, taken: bool = True, **environ: str) -> int:
    clean = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    done = subprocess.run(
        [sys.executable, "-c", THREADS.format(ask=ask, taken=taken)],
        env={**clean, "PYTHONPATH": str(Path(__file__).parents[2]), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.count("<heap nr=")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_twelve_threads_have_two_arenas_and_had_more():
    assert arenas(ask=False) > 2
    assert arenas(ask=True) <= 2


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_what_the_environment_says_is_left_as_it_is():
    assert arenas(ask=True, taken=False, MALLOC_ARENA_MAX="4") > 2
