"""A service that is killed at any moment loses no message that a user saw as sent."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from elysia.chat.accounts import AccountStore
from elysia.chat.message_tree import MessageState
from tests.chat.conftest import whole

SENDER = Path(__file__).parent / "sender.py"


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_no_message_that_was_sent_is_lost_by_a_kill(make, url, kills):
    service = make()
    user = AccountStore(service.database).local().id
    id = service.create(user, ["elysia"], {"examples": False, "max_new_tokens": 64}).id
    chance, sent = random.Random(kills), []
    for number in range(kills):
        child = subprocess.Popen(
            [sys.executable, str(SENDER), url, id, str(number)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(chance.randint(1, 12)):
            line = child.stdout.readline()
            assert line.startswith("sent "), "the sender ended by itself"
            sent.append(line.removeprefix("sent ").strip())
        child.kill()
        sent += [line[5:].strip() for line in child.stdout if line.startswith("sent ")]
        child.wait()
    again = make()
    lines = again.get_messages(user, id)
    texts = [line.text for line in lines if line.role == "user"]
    assert [text for text in texts if text in set(sent)] == sent
    assert len(texts) - len(sent) <= kills  # one a life may have been kept and not been told yet
    states = {line.state for line in lines}
    assert (
        states <= {MessageState.COMPLETE, MessageState.STOPPED, MessageState.CUT}
        and MessageState.WRITING not in states
    )
    for line in lines:
        if line.role == "assistant" and line.state == MessageState.COMPLETE and line.parent:
            asked = next(message.text for message in lines if message.id == line.parent)
            assert line.text == f"heard: {asked}"
    assert whole(again, user, id, again.send(user, id, "still there?")) == "heard: still there?"
