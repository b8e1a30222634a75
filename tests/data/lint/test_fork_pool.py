"""Work in processes comes back in order, in bounds, and with a sentence where a process dies."""

import multiprocessing
import os
import signal
import sys
import time

import pytest

from elysia.core.errors import DeviceError
from elysia.data.lint.fork_pool import ForkPool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="rows are judged in forks on Linux")


def test_results_come_in_the_order_of_the_pieces_and_no_more_are_taken_than_are_worked_on():
    taken = []

    def pieces():
        for number in range(20):
            taken.append(number)
            yield number

    def work(number):
        time.sleep(0.02 if number % 2 else 0)
        return number, os.getpid()

    with ForkPool(work, 2) as workers:
        for place, (number, process) in enumerate(workers.map(pieces())):
            assert number == place and process != os.getpid()
            assert len(taken) <= place + 3
        assert [number for number, _ in workers.map([7, 8])] == [7, 8]
    assert not multiprocessing.active_children()


def test_a_process_that_dies_is_a_sentence_and_the_others_end():
    def work(number):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(DeviceError, match="ended early"), ForkPool(work, 2) as workers:
        list(workers.map(range(9)))
    assert not multiprocessing.active_children()


def test_what_work_raises_is_raised_here():
    with pytest.raises(ZeroDivisionError), ForkPool(lambda number: 1 // number, 2) as workers:
        list(workers.map([1, 0, 1]))


def test_an_interrupt_ends_the_processes():
    with pytest.raises(KeyboardInterrupt), ForkPool(lambda number: number, 2) as workers:
        for number in workers.map(range(9)):
            assert len(multiprocessing.active_children()) == 2
            if number == 2:
                raise KeyboardInterrupt
    assert not multiprocessing.active_children()


def test_without_processes_work_is_done_here():
    with ForkPool(lambda _: os.getpid(), 0) as workers:
        assert list(workers.map([1, 2])) == [os.getpid()] * 2
