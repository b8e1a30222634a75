"""Work that can wait lets the hurried go first, and does not wait for ever."""

from __future__ import annotations

import threading

from elysia.chat.generation.priority import PriorityGate


def test_who_can_wait_goes_when_the_last_of_the_hurried_is_through():
    gate, order = PriorityGate(), []
    assert gate.wait_idle(0)
    with gate.foreground():
        waiting = threading.Thread(target=lambda: order.append(gate.wait_idle(60)))
        with gate.foreground():
            waiting.start()
        order.append("hurried")
    waiting.join(60)
    assert order == ["hurried", True]


def test_patience_ends():
    gate = PriorityGate()
    with gate.foreground():
        assert not gate.wait_idle(0.01)
