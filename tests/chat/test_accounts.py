"""Users and their passwords."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from elysia.chat.accounts import AccountStore
from elysia.core.errors import UsageError
from elysia.store.database import open_database
from elysia.store.tables import users


@pytest.fixture
def accounts(tmp_path):
    database = open_database(str(tmp_path / "chat.db"))
    yield AccountStore(database)
    database.close()


def test_a_password_opens_only_its_own_door(accounts):
    user = accounts.add("mei", "correct horse")
    assert accounts.authenticate("mei", "correct horse") == user
    assert accounts.authenticate("mei", "correct horsf") is None
    assert accounts.authenticate("mei", "") is None
    assert accounts.authenticate("nobody", "correct horse") is None


def test_no_password_opens_a_user_without_one(accounts):
    accounts.get_or_create("openid-user")
    assert accounts.authenticate("openid-user", "") is None
    assert accounts.authenticate("local", "") is None
    assert not accounts.has_passwords()


def test_what_is_kept_is_no_password(accounts):
    accounts.add("a", "correct horse")
    accounts.add("b", "correct horse")
    with accounts._database.read() as connection:
        hashes = connection.execute(select(users.c.password)).scalars().all()
    assert all(stored.startswith("scrypt:") and "correct" not in stored for stored in hashes)
    assert hashes[0] != hashes[1]
    assert accounts.has_passwords()


def test_a_name_is_taken_once(accounts):
    accounts.add("mei", "correct horse")
    with pytest.raises(UsageError, match="a user mei already"):
        accounts.add("mei", "another one")
    assert accounts.authenticate("mei", "correct horse")


@pytest.mark.parametrize("name", ["", "  ", "local", "a\nb", "x" * 101, "open:id"])
def test_names_that_are_none_are_refused(accounts, name):
    with pytest.raises(UsageError):
        accounts.add(name, "correct horse")


def test_a_short_password_is_refused(accounts):
    with pytest.raises(UsageError, match="8 to 1000"):
        accounts.add("mei", "short")


def test_a_password_is_changed_and_a_user_removed(accounts):
    accounts.add("mei", "correct horse")
    accounts.set_password("mei", "battery staple")
    assert accounts.authenticate("mei", "correct horse") is None
    assert accounts.authenticate("mei", "battery staple")
    accounts.remove("mei")
    assert accounts.authenticate("mei", "battery staple") is None
    for call in (accounts.remove, lambda name: accounts.set_password(name, "battery staple")):
        with pytest.raises(UsageError, match="no user mei"):
            call("mei")


def test_a_name_that_others_vouch_for_is_one_user(accounts):
    first = accounts.get_or_create("openid:alice@example.org")
    assert accounts.get_or_create("openid:alice@example.org") == first
    assert [user.name for user in accounts.all()] == ["openid:alice@example.org"]


def test_a_user_is_found_by_id_and_the_stamp_changes_with_the_password(accounts):
    anna = accounts.add("anna", "a long password")
    assert accounts.get(anna.id) == anna and accounts.get("0" * 32) is None
    before = accounts.get_password_digest(anna.id)
    accounts.set_password("anna", "another password")
    assert before and accounts.get_password_digest(anna.id) not in (None, before)
    assert accounts.get_password_digest(accounts.local().id) is None
