"""A table of several: each answers as herself, hears others by name, and only what she was there for."""

from __future__ import annotations

from elysia.chat.accounts import AccountStore
from elysia.chat.generation.speaker_selection import SelectionReason
from elysia.chat.message_tree import MessageState
from elysia.memory.base import MemoryScope
from tests.chat.conftest import whole
from tests.chat.echo import EchoEngine


def settle(service, user, id):
    """Follow every reply of the round."""
    import time

    deadline = time.monotonic() + 60
    while service.is_busy(user, id):
        assert time.monotonic() < deadline
        time.sleep(0.01)


class NoteMemory:
    """A memory that keeps what it is told, by scope."""

    def __init__(self):
        self.heard: dict[MemoryScope, dict[str, str]] = {}
        self.asked: list[MemoryScope] = []

    def remember(self, scope, heard):
        for message in heard:
            self.heard.setdefault(scope, {})[message.message_id] = (
                f"{message.speaker}: {message.text}"
            )
        return []

    def recall(self, scope, question, *, k=8, without=()):
        self.asked.append(scope)
        return []

    def close(self):
        pass

    def forget_messages(self, scope, message_ids):
        for id in message_ids:
            self.heard.get(scope, {}).pop(id, None)


def table(make, reply=None, **settings):
    notes = NoteMemory()
    engine = EchoEngine(reply=reply or (lambda request: "嗯。"))
    service = make(engine, memory=notes)
    user = AccountStore(service.database).local().id
    id = service.create(user, ["elysia", "xiaotang", "ayan"], {"examples": False, **settings}).id
    return service, user, id, engine, notes


def test_the_named_answer_in_order_with_their_reasons(make):
    service, user, id, engine, _ = table(make, round=3)
    service.send(user, id, "小棠，阿砚，你们早。")
    settle(service, user, id)
    lines = service.get_messages(user, id)
    assert [line.speaker for line in lines] == ["elysia", None, "xiaotang", "ayan"]
    assert [line.state for line in lines] == [MessageState.COMPLETE] * 4
    assert lines[2].details["reason"] == "named by the user: 小棠"
    assert lines[2].details["selection"] == {
        "code": SelectionReason.NAMED_BY_USER, "params": {"name": "小棠"},
    }  # fmt: skip
    second = engine.requests[1].messages
    assert second[-1].text == "小棠：嗯。"
    assert second[-1].role == "user"
    assert any(message.text == "你：小棠，阿砚，你们早。" for message in second)
    assert "在座的还有：你、爱莉希雅、小棠。只说阿砚自己的话。" in second[0].text


def test_nobody_speaks_for_another(make):
    service, user, id, engine, _ = table(
        make, reply=lambda request: "小棠：我在。\n阿砚：我也在。", round=1
    )
    reply = service.send(user, id, "小棠在吗")
    settle(service, user, id)
    assert whole(service, user, id, reply) == "我在。"
    assert "\n阿砚：" in engine.requests[0].stop and "\n你：" in engine.requests[0].stop


def test_stop_ends_the_round_and_not_one_reply_alone(make):
    notes = NoteMemory()
    service = make(
        engine := EchoEngine(pause=0.02, reply=lambda request: "长" * 3000), memory=notes
    )
    user = AccountStore(service.database).local().id
    id = service.create(user, ["elysia", "xiaotang"], {"round": 2}).id
    reply = service.send(user, id, "大家好")
    next(service.follow(user, id, reply))
    service.stop(user, id)
    settle(service, user, id)
    assert len(engine.requests) == 1


def test_a_reply_made_anew_in_a_group_is_hers_alone(make):
    service, user, id, engine, _ = table(make, round=2)
    service.send(user, id, "小棠，阿砚，早。")
    settle(service, user, id)
    first = service.get_messages(user, id)[2]
    service.regenerate(user, id, first.id)
    settle(service, user, id)
    lines = service.get_messages(user, id)
    assert [line.speaker for line in lines] == ["elysia", None, "xiaotang"]
    assert lines[-1].siblings == (first.id, lines[-1].id)
    assert len(engine.requests) == 3


def test_each_remembers_what_she_heard_and_nothing_else(make):
    service, user, id, engine, notes = table(make, round=1)
    service.send(user, id, "爱莉，我藏了一块蛋糕。")
    settle(service, user, id)
    service.set_guests(user, id, ["elysia", "dudu"])
    service.send(user, id, "dudu，嘟嘟，你来啦。")
    settle(service, user, id)
    service.wait_for_memory()
    heard = {scope.character: " ".join(texts.values()) for scope, texts in notes.heard.items()}
    assert "蛋糕" in heard["elysia"] and "你来啦" in heard["elysia"]
    assert "蛋糕" in heard["ayan"] and "你来啦。" not in heard["ayan"].replace("你来啦！", "")
    assert "蛋糕" not in heard["dudu"]
    assert not any("蛋糕" in message.text for message in engine.requests[-1].messages)
    assert notes.asked[-1] == MemoryScope(user, "dudu")


def test_a_branch_that_was_left_is_forgotten_and_comes_back(make):
    service, user, id, _, notes = table(make, round=1)
    service.send(user, id, "爱莉，我住在北京。")
    settle(service, user, id)
    service.wait_for_memory()
    message = service.get_messages(user, id)[1]
    service.edit(user, id, message.id, "爱莉，我住在上海。")
    settle(service, user, id)
    service.wait_for_memory()
    scope = MemoryScope(user, "elysia")
    remembered = " ".join(notes.heard[scope].values())
    assert "上海" in remembered and "北京" not in remembered
    service.swipe(user, id, service.get_messages(user, id)[1].id, -1)
    service.wait_for_memory()
    remembered = " ".join(notes.heard[scope].values())
    assert "北京" in remembered and "上海" not in remembered
    service.undo(user, id)
    service.wait_for_memory()
    assert "北京" not in " ".join(notes.heard[scope].values())
    service.delete_conversation(user, id)
    service.wait_for_memory()
    assert not notes.heard[scope]
