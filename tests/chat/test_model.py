"""What a text counts is asked of the engine once."""

from __future__ import annotations

from elysia.chat.accounts import Accounts
from elysia.chat.model import SHORT, Model
from elysia.core import templates
from elysia.core.messages import Message
from tests.chat.conftest import whole
from tests.chat.echo import EchoEngine


class Counting(EchoEngine):
    """Notes what it was asked to count."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def count_tokens(self, messages, template):
        self.asked.append(messages)
        return super().count_tokens(messages, template)


def test_a_text_is_counted_once_and_other_prompts_always():
    model = Model(engine := Counting(), templates.get_template("internlm2_chat"))
    said = [Message("user", "你好")]
    assert [model.count(said), model.count(said)] == [6, 6]
    assert len(engine.asked) == 1
    assert model.count([Message("assistant", "你好"), *said]) == 12
    assert model.count([Message("assistant", "你好")]) == 6
    long = [Message("user", "x" * (SHORT + 1))]
    assert model.count(long) == model.count(long) == SHORT + 5
    assert len(engine.asked) == 5


def test_the_talk_is_not_counted_anew_at_every_turn(make):
    service = make(engine := Counting())
    user = Accounts(service.database).local().id
    id = service.new(user, ["elysia"], {"examples": False}).id
    for number in range(4):
        whole(service, user, id, service.send(user, id, f"turn {number}"))
    alone = [tuple(one) for one in engine.asked if len(one) == 1 and len(one[0].text) <= SHORT]
    assert len(alone) == len(set(alone))
