"""Work on pieces in processes beside this one, results in the order of the pieces.

Each process has one piece at a time, so memory does not grow with their number. Where the platform
cannot fork, the work is done here. Knows nothing of what the work is.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, TypeVar

from elysia.core.errors import DeviceError

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def count_fork_processes() -> int:
    """How many processes pay: one fewer than the cores and at least two; 0 where none do.

    A process of several threads is not forked: what another thread holds would stay held.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if sys.platform != "linux" or (cores or 1) < 2 or threading.active_count() > 1:
        return 0
    return max(2, (cores or 1) - 1)


class ForkPool(Generic[Piece, Result]):
    """Processes that each know `work` as it is now. Leaving the context ends them."""

    def __init__(self, work: Callable[[Piece], Result], processes: int) -> None:
        self.work, self.count = work, processes
        self.ends: list[Connection[Any, Any]] = []
        self.processes: list[Any] = []

    def __enter__(self) -> ForkPool[Piece, Result]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for end in self.ends:
            end.close()
        for process in self.processes:
            process.terminate()
            process.join()

    def map(self, pieces: Iterable[Piece]) -> Iterator[Result]:
        """The result of each piece, in order. DeviceError where a process ended early."""
        if not self.count:
            yield from map(self.work, pieces)
            return
        self._start()
        busy: deque[Connection[Any, Any]] = deque()
        try:
            for piece in pieces:
                if len(busy) < len(self.ends):
                    end, results = self.ends[len(busy)], []
                else:
                    end = busy.popleft()
                    results = [_result(end)]
                end.send(piece)  # first, so that it works while the result is looked at
                busy.append(end)
                yield from results
            while busy:
                yield _result(busy.popleft())
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise DeviceError(
                "A process that read the rows ended early, perhaps for want of memory. Nothing was "
                "reported; run it again, with fewer programs beside it."
            ) from error

    def _start(self) -> None:
        """Start the processes, once; this is a copy of the program as it stands (fork)."""
        if self.processes:
            return
        context = get_context("fork")
        for _ in range(self.count):
            here, there = context.Pipe()
            self.ends.append(here)
            # A process that kept another's end open would not see this one die.
            work = (self.work, there, list(self.ends))
            process = context.Process(target=_serve, args=work, daemon=True)
            process.start()
            there.close()
            self.processes.append(process)


def _serve(work: Callable[[Any], Any], pipe: Connection[Any, Any], others: list[Any]) -> None:
    """Do what comes through the pipe until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:
        other.close()
    try:
        while True:
            piece = pipe.recv()
            try:
                result = work(piece)
            except Exception as error:
                result = error
            pipe.send(result)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _result(end: Connection[Any, Any]) -> Any:
    result = end.recv()
    if isinstance(result, Exception):
        raise result
    return result
