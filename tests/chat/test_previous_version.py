"""Conversations, accounts and cards in a database of the version before; see tests/store."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import select

from elysia.chat.accounts import AccountStore
from elysia.store.tables import conversations
from tests.chat.echo import EchoEngine

DUMP = Path(__file__).parents[1] / "store" / "previous_version.sql"


@pytest.fixture
def url(tmp_path):
    """That database, as a file."""
    file = sqlite3.connect(tmp_path / "chat.db")
    file.executescript(DUMP.read_text(encoding="utf-8"))
    file.close()
    return str(tmp_path / "chat.db")


def conversation_ids(service, user):
    """Title to id."""
    query = select(conversations.c.title, conversations.c.id).where(conversations.c.user_id == user)
    with service.database.read() as connection:
        return {row.title: row.id for row in connection.execute(query)}


def test_its_user_logs_in_and_finds_her_conversations_with_their_branches(service):
    accounts = AccountStore(service.database)
    ann = accounts.authenticate("Ann", "correct horse battery")
    assert ann is not None and accounts.authenticate("Ann", "wrong") is None
    ids = conversation_ids(service, ann.id)
    assert set(ids) == {"爱莉希雅: 你好，我叫林晓，我住在北京。", "小棠、Raven: 小棠，Raven，早。"}
    [alone] = [id for title, id in ids.items() if title.startswith("爱莉希雅")]
    messages = service.get_messages(ann.id, alone)
    assert [(item.role, item.text) for item in messages[-2:]] == [
        ("user", "My secret is xylophone."),
        ("assistant", "heard: My secret is xylophone."),
    ]
    assert len(messages[0].siblings) == 3  # the card's greetings
    regenerated = messages[-3]
    assert regenerated.text == "heard: When is the tea?" and len(regenerated.siblings) == 2
    breakdown = service.get_prompt_breakdown(ann.id, alone, regenerated.id)
    assert breakdown["documents"][0]["why"] and breakdown["memories"][0]["why"]


def test_its_conversations_go_on_in_a_group_with_an_uploaded_card(make):
    service = make(EchoEngine(reply=lambda request: "还在。"))
    ann = AccountStore(service.database).authenticate("Ann", "correct horse battery").id
    [raven] = [item for item in service.characters.all(ann) if item.owner == ann]
    assert raven.name == "Raven"
    [group] = [
        id for title, id in conversation_ids(service, ann).items() if title.startswith("小棠")
    ]
    reply = service.send(ann, group, "Raven，你还在吗？")
    assert "".join(service.follow(ann, group, reply)) == "还在。"
    messages = service.get_messages(ann, group)
    assert messages[1].text == "小棠，Raven，早。" and raven.key in {m.speaker for m in messages}


def test_a_reply_whose_process_died_is_kept_as_far_as_it_came(service):
    user = AccountStore(service.database).local().id
    [id] = conversation_ids(service, user).values()
    last = service.get_messages(user, id)[-1]
    assert (last.text, str(last.state)) == ("heard: I live", "cut") and last.fault
