"""Users: a password is theirs alone, and a stamp changes with it."""

from __future__ import annotations

import pytest

from elysia.chat.accounts import Accounts
from elysia.core.errors import UsageError
from elysia.store.database import open_database


@pytest.fixture
def accounts(tmp_path):
    database = open_database(str(tmp_path / "chat.db"))
    yield Accounts(database)
    database.close()


def test_a_user_is_found_by_id_and_the_stamp_changes_with_the_password(accounts):
    anna = accounts.add("anna", "a long password")
    assert accounts.get(anna.id) == anna and accounts.get("0" * 32) is None
    before = accounts.stamp(anna.id)
    accounts.set_password("anna", "another password")
    assert before and accounts.stamp(anna.id) not in (None, before)
    assert accounts.stamp(accounts.local().id) is None


def test_only_the_right_password_is_verified(accounts):
    anna = accounts.add("anna", "a long password")
    assert accounts.verified("anna", "a long password") == anna
    assert accounts.verified("anna", "a longer password") is None
    assert accounts.verified("nobody", "a long password") is None
    assert accounts.local() and accounts.verified("local", "") is None


@pytest.mark.parametrize("name", ["", " ", "a:b", "local", "x" * 101, "a\nb"])
def test_a_name_that_could_be_taken_for_another_is_refused(accounts, name):
    with pytest.raises(UsageError, match="printable"):
        accounts.add(name, "a long password")
