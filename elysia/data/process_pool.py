"""A pool of processes that apply one function to many items and return the results in order.

A thin layer over `concurrent.futures` with spawned processes, for work that is bound by the CPU:
tokenization and lint. A spawned process inherits nothing, so threads, locks and devices of this
process cannot disturb it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from elysia.core.errors import DeviceError

Item = TypeVar("Item")
Result = TypeVar("Result")

MIN_BYTES = 16_000_000  # size of the files from which on processes are worth their start
MAX_PROCESSES = 16  # more would only wait for the process that reads the files


def count_useful_processes(size: int, sharing: int = 1) -> int:
    """How many processes pay off for files of `size` bytes: the cores, divided by the number of
    processes that are `sharing` them, or 1 (no further process)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min((cores or 1) // sharing, MAX_PROCESSES)) if size >= MIN_BYTES else 1


class ProcessPool(Generic[Item, Result]):
    """`processes` processes, each with a copy of `function`, which must be picklable.

    With fewer than two, the function runs in this process. Leaving the context ends the processes,
    also in the middle of their work; they end as well when this process is killed.
    """

    def __init__(self, function: Callable[[Item], Result], processes: int) -> None:
        self.function = function
        self.processes = processes if processes > 1 else 0
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> ProcessPool[Item, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._executor:
            return
        # `shutdown` would wait for results that nobody reads any more. Executors offer no way to
        # kill their processes before Python 3.14.
        for process in list((self._executor._processes or {}).values()):
            process.kill()
        self._executor.shutdown(cancel_futures=True)
        self._executor = None

    def map(self, items: Iterable[Item]) -> Iterator[Result]:
        """The result of each item, in order.

        Each process has one item at a time, so memory does not grow with their number. An exception
        of the function, or of `items`, is raised where its result would stand. DeviceError where a
        process died.
        """
        if not self.processes:
            yield from map(self.function, items)
            return
        pending: deque[Future[Result]] = deque()
        failure: Exception | None = None
        iterator = iter(items)
        try:
            while True:
                try:
                    item = next(iterator)
                except StopIteration:
                    break
                except Exception as error:
                    failure = error  # an earlier item may fail as well, and comes first
                    break
                results = [pending.popleft().result()] if len(pending) == self.processes else []
                pending.append(self._submit(item))  # first, so that its process works meanwhile
                yield from results
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise DeviceError("data.process_died") from error
        if failure:
            raise failure

    def _submit(self, item: Item) -> Future[Result]:
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                self.processes,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_initialize,
                initargs=(self.function,),
            )
        with _isolated_start():  # the executor starts its processes one by one, as items come
            return self._executor.submit(_apply, item)


_function: Callable[[Any], Any]  # of this process, when it belongs to a pool


def _initialize(function: Callable[[Any], Any]) -> None:
    """Prepare a new process of a pool."""
    global _function
    _function = function
    # One process per core: the tokenizer's own threads would only compete with the other processes.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent was killed: it would wait for work forever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _apply(item: Any) -> Any:
    return _function(item)


@contextmanager
def _isolated_start() -> Iterator[None]:
    """Let processes that start meanwhile neither run the main script nor react to Ctrl-C.

    A spawned process imports its parent's main script: without a guard by `__name__`, a user's
    training script would run twice, and the functions of a pool never come from it. A signal that is
    blocked stays blocked in a new process; this one receives it afterwards.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    blocks = hasattr(signal, "pthread_sigmask")  # not on Windows
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if blocks else set()
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if blocks:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
