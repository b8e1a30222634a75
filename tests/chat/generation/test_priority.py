"""Work that can wait lets the hurried go first, and does not wait for ever."""

from __future__ import annotations

import threading

from elysia.chat.generation.priority import PriorityGate


def test_who_can_wait_goes_when_the_last_of_the_hurried_is_through():
    calm, order = PriorityGate(), []
    assert calm.wait(0)
    with calm.broken():
        waiting = threading.Thread(target=lambda: order.append(calm.wait(60)))
        with calm.broken():
            waiting.start()
        order.append("hurried")
    waiting.join(60)
    assert order == ["hurried", True]


def test_patience_ends():
    calm = PriorityGate()
    with calm.broken():
        assert not calm.wait(0.01)
