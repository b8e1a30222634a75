"""A chat service over a SQLite file, the bundled cast and a stand-in engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from elysia.chat.accounts import AccountStore
from elysia.chat.characters import CharacterRegistry
from elysia.chat.chat_model import ChatModel
from elysia.chat.prompt.context import ContextProviders
from elysia.chat.service import ChatService
from elysia.core import templates
from elysia.models.chat_format import ChatFormat
from elysia.store.database import open_database
from tests.chat.echo import EchoEngine

PERSONAS = Path(__file__).parents[2] / "configs" / "personas"


@pytest.fixture
def url(tmp_path):
    """An empty database."""
    return str(tmp_path / "chat.db")


@pytest.fixture
def make(url):
    """Open a service; the same database again when called twice."""
    opened = []

    def make(engine=None, **surroundings):
        database = open_database(url)
        model = ChatModel(
            engine or EchoEngine(), ChatFormat(templates.get_template("internlm2_chat"))
        )
        service = ChatService(
            database, CharacterRegistry(database, PERSONAS), model, ContextProviders(**surroundings)
        )
        opened.append((service, database))
        return service

    yield make
    for service, database in opened:
        service.close()
        database.close()


@pytest.fixture
def service(make):
    return make()


@pytest.fixture
def user(service):
    return AccountStore(service.database).local().id


def whole(service, user, id, reply):
    """Wait for a reply, and give its text."""
    return "".join(service.follow(user, id, reply))
