"""Turns of a conversation: one at a time, and nothing is kept of those that are over."""

from __future__ import annotations

import threading

from elysia.chat.generation.scheduler import TurnScheduler
from tests.chat.conftest import whole


def test_a_conversation_bears_one_turn_at_a_time_and_another_does_not_wait():
    scheduler = TurnScheduler(1, 1, lambda user, id: None)
    inside, most, lock = [], [], threading.Lock()

    def work():
        for _ in range(50):
            with scheduler.lock("a"):
                inside.append(1)
                with lock:
                    most.append(len(inside))
                inside.pop()

    with scheduler.lock("b"):
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert most == [1] * 300
    assert scheduler._locks == {}
    scheduler.close()


def test_a_service_keeps_nothing_of_turns_that_are_over(service, user):
    for _ in range(3):
        id = service.create(user, ["elysia"], {"examples": False}).id
        whole(service, user, id, service.send(user, id, "hi"))
    service.wait_for_memory()
    assert service._scheduler._locks == {} and service._scheduler.streams == {}
