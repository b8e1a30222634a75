"""What a text counts is asked of the engine once."""

from __future__ import annotations

from elysia.chat.accounts import AccountStore
from elysia.chat.chat_model import MAX_CACHED_LENGTH, ChatModel
from elysia.core import templates
from elysia.core.messages import Message
from elysia.models.chat_format import ChatFormat
from tests.chat.conftest import whole
from tests.chat.echo import EchoEngine


class CountingEngine(EchoEngine):
    """Notes what it was asked to count."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def count_tokens(self, messages, template):
        self.asked.append(messages)
        return super().count_tokens(messages, template)


def test_a_text_is_counted_once_and_other_prompts_always():
    model = ChatModel(
        engine := CountingEngine(), ChatFormat(templates.get_template("internlm2_chat"))
    )
    greeting = [Message("user", "你好")]
    assert [model.count(greeting), model.count(greeting)] == [6, 6]
    assert len(engine.asked) == 1
    assert model.count([Message("assistant", "你好"), *greeting]) == 12
    assert model.count([Message("assistant", "你好")]) == 6
    long = [Message("user", "x" * (MAX_CACHED_LENGTH + 1))]
    assert model.count(long) == model.count(long) == MAX_CACHED_LENGTH + 5
    assert len(engine.asked) == 5


def test_the_talk_is_not_counted_anew_at_every_turn(make):
    service = make(engine := CountingEngine())
    user = AccountStore(service.database).local().id
    id = service.create(user, ["elysia"], {"examples": False}).id
    for number in range(4):
        whole(service, user, id, service.send(user, id, f"turn {number}"))
    alone = [
        tuple(messages)
        for messages in engine.asked
        if len(messages) == 1 and len(messages[0].text) <= MAX_CACHED_LENGTH
    ]
    assert len(alone) == len(set(alone))
