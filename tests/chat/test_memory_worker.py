"""Memory behind the replies: what waits is bounded, nothing of it is lost, and the branch rules."""

from __future__ import annotations

import threading

import pytest

from elysia.chat.accounts import AccountStore
from tests.chat.conftest import whole
from tests.chat.echo import EchoEngine


class SlowMemory:
    """A memory that takes nothing in until its gate opens."""

    def __init__(self):
        self.gate, self.begun = threading.Event(), threading.Event()
        self.heard: dict[str, str] = {}
        self.calls = 0

    def remember(self, scope, heard):
        self.calls += 1
        self.begun.set()
        self.gate.wait(120)
        self.heard |= {message.message_id: message.text for message in heard}
        return []

    def recall(self, scope, question, *, k=8, without=()):
        return []

    def forget_messages(self, scope, ids):
        for id in ids:
            self.heard.pop(id, None)

    def close(self):
        self.gate.set()


@pytest.fixture
def memory():
    memory = SlowMemory()
    yield memory
    memory.gate.set()


@pytest.fixture
def service(make, memory):
    yield make(EchoEngine(), memory=memory)
    memory.gate.set()  # before the service is closed, which waits for what is noted


def talk(service, user):
    return service.create(user, ["elysia"], {"examples": False}).id


def test_what_waits_for_a_slow_memory_does_not_grow_with_the_rounds(service, memory):
    user = AccountStore(service.database).local().id
    first, second = talk(service, user), talk(service, user)
    for number in range(6):
        for id in (first, second):
            whole(service, user, id, service.send(user, id, f"turn {number}"))
            assert memory.begun.wait(60)
    assert service._memory_worker.pending <= 2  # one note a conversation, whatever was said
    memory.gate.set()
    service.wait_for_memory()
    for id in (first, second):
        texts = {line.id: line.text for line in service.get_messages(user, id)}
        assert texts.items() <= memory.heard.items()
    assert memory.calls < 12  # several rounds at once


def test_a_conversation_that_is_removed_while_memory_waits_is_not_remembered(service, memory):
    user = AccountStore(service.database).local().id
    first, second = talk(service, user), talk(service, user)
    whole(service, user, first, service.send(user, first, "hold the thread"))
    assert memory.begun.wait(60)
    whole(service, user, second, service.send(user, second, "a secret"))
    service.delete_conversation(user, second)
    memory.gate.set()
    service.wait_for_memory()
    assert "hold the thread" in memory.heard.values()
    assert "a secret" not in memory.heard.values()


def test_words_that_a_killed_process_did_not_bring_to_memory_come_with_the_next_round(make):
    before = make(EchoEngine())  # without a memory: as if it had been killed before it remembered
    user = AccountStore(before.database).local().id
    id = talk(before, user)
    for number in range(8):
        whole(before, user, id, before.send(user, id, f"long ago {number}"))
    memory = SlowMemory()
    memory.gate.set()
    after = make(EchoEngine(), memory=memory)
    whole(after, user, id, after.send(user, id, "now"))
    after.wait_for_memory()
    assert "long ago 0" in memory.heard.values()


def test_a_reply_that_was_left_for_another_branch_is_not_remembered(service, memory):
    memory.gate.set()
    user = AccountStore(service.database).local().id
    id = talk(service, user)
    old = service.send(user, id, "which?")
    whole(service, user, id, old)
    new = service.regenerate(user, id, old)
    whole(service, user, id, new)
    service.wait_for_memory()
    assert new in memory.heard and old not in memory.heard


def test_waiting_for_memory_ends_with_a_fault(service, memory):
    user = AccountStore(service.database).local().id
    id = talk(service, user)
    whole(service, user, id, service.send(user, id, "hi"))
    with pytest.raises(TimeoutError):
        service.wait_for_memory(0.05)
