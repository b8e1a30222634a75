"""Work on parts in processes beside this one, results in the order of the parts.

Each process is a new Python (worker.py) that talks through two pipes: nothing is inherited, so
threads, locks and devices of this process cannot harm it, and it ends when its pipe does, however
this process ended. Each has one part at a time, so memory does not grow with their number. Knows
nothing of what the work is.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import elysia
from elysia.core.errors import DeviceError

Part = TypeVar("Part")
Result = TypeVar("Result")

MIN_BYTES = 16_000_000  # bytes of files from which on processes are worth their start
MAX_PROCESSES = 16  # more wait for the one that reads


def count_useful_processes(size: int, sharing: int = 1) -> int:
    """How many processes pay for so many bytes of files: the cores, divided by the processes that
    are `sharing` them, or 1, which means no other process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min((cores or 1) // sharing, MAX_PROCESSES)) if size >= MIN_BYTES else 1


class ProcessPool(Generic[Part, Result]):
    """So many processes that each know `work`; with 1, work is done here. Leaving the context ends
    them."""

    def __init__(self, work: Callable[[Part], Result], processes: int) -> None:
        self.work = work
        self.count = processes if processes > 1 else 0
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> ProcessPool[Part, Result]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what was not sent is of no use any more
                    pipe.close()  # type: ignore[union-attr]
        self.processes = []

    def map(self, parts: Iterable[Part]) -> Iterator[Result]:
        """The result of each part, in order; a fault of a part, or of `parts`, where its result would
        stand. DeviceError where a process ended early."""
        if not self.count:
            yield from map(self.work, parts)
            return
        try:
            self._start()
            yield from self._map(iter(parts))
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise DeviceError(
                "A process that prepares data ended early, perhaps for want of memory. Set "
                "map_num_proc to fewer processes (1: none beside this one) and run it again."
            ) from error

    def _map(self, parts: Iterator[Part]) -> Iterator[Result]:
        busy: deque[subprocess.Popen[bytes]] = deque()
        fault: Exception | None = None
        while True:
            try:
                part = next(parts)
            except StopIteration:
                break
            except Exception as error:
                fault = error  # parts before it may be at fault, too, and come first
                break
            results = []
            process = self.processes[len(busy) % self.count]
            if len(busy) == self.count:
                process = busy.popleft()
                results.append(_result(process))
            _send(process, part)  # before the result is looked at, so that it works meanwhile
            busy.append(process)
            yield from results
        for process in busy:
            yield _result(process)
        if fault:
            raise fault

    def _start(self) -> None:
        """Start the processes, and tell each the work."""
        home = str(Path(elysia.__file__).parents[1])
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONSAFEPATH": "1",  # the same code, wherever this is run
            # One process a core: the tokenizer's own threads would only be in each other's way.
            "TOKENIZERS_PARALLELISM": "false",
        }
        for _ in range(self.count):
            process = subprocess.Popen(
                [sys.executable, "-m", "elysia.data.pool_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | own,
                start_new_session=True,  # Ctrl-C is this process's to answer
            )
            self.processes.append(process)
        work = pickle.dumps(self.work, pickle.HIGHEST_PROTOCOL)
        for process in self.processes:
            process.stdin.write(work)  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]


def _send(process: subprocess.Popen[bytes], part: Any) -> None:
    pipe: Any = process.stdin
    pickle.dump(part, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _result(process: subprocess.Popen[bytes]) -> Any:
    pipe: Any = process.stdout
    found = pickle.load(pipe)
    if isinstance(found, Exception):
        raise found
    return found
