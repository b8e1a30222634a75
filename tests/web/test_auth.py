"""Who comes in: cookies that cannot be forged, passwords that cannot be guessed, no open door by accident."""

from __future__ import annotations

import stat

import pytest

from elysia.chat.accounts import AccountStore
from elysia.core.errors import UsageError
from elysia.store.database import open_database
from elysia.web.auth import (
    SESSION_SECONDS,
    AccessMode,
    SessionAuth,
    build_openid_name,
    get_access_mode,
    is_admitted,
    load_signing_key,
    parse_allow_list,
    refuse_open_access,
)


class FakeClock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def accounts(tmp_path):
    database = open_database(str(tmp_path / "chat.db"))
    yield AccountStore(database)
    database.close()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def auth(accounts, clock):
    return SessionAuth(accounts, b"k" * 32, clock)


def test_a_login_lasts_until_its_end_or_a_new_password(accounts, auth, clock):
    anna = accounts.add("anna", "a long password")
    cookie = auth.log_in(" anna ", "a long password")
    assert auth.get_user(cookie) == anna
    clock.now += SESSION_SECONDS + 1
    assert auth.get_user(cookie) is None
    clock.now -= SESSION_SECONDS + 1
    accounts.set_password("anna", "another password")
    assert auth.get_user(cookie) is None
    accounts.remove("anna")
    assert auth.get_user(cookie) is None


def test_a_forged_or_foreign_cookie_is_nobodys(accounts, auth, clock):
    anna, bela = (accounts.add(name, "a long password") for name in ("anna", "bela"))
    cookie = auth.log_in("anna", "a long password")
    user, end, signature = cookie.split(".")
    later = str(int(end) + 1)
    for forged in (
        None, "", ".", "..", cookie[:-1], cookie + "0", f"{bela.id}.{end}.{signature}",
        f"{user}.{later}.{signature}", f"{user}.²{end}.{signature}", f"{user}.{end}.é", "é.1.2",
        f"{accounts.local().id}.{end}.{signature}",
    ):  # fmt: skip
        assert auth.get_user(forged) is None, forged
    assert SessionAuth(accounts, b"x" * 32, clock).get_user(cookie) is None  # another key
    assert auth.get_user(cookie) == anna


def test_guessing_is_slowed_for_a_name_and_for_all(accounts, auth, clock, monkeypatch):
    accounts.add("anna", "a long password")
    monkeypatch.setattr(
        accounts, "authenticate", lambda name, password: None
    )  # scrypt takes its time
    for _ in range(5):
        assert auth.log_in("anna", "guess") is None
    with pytest.raises(UsageError, match="wait a minute"):
        auth.log_in("anna", "a long password")
    for number in range(55):
        assert auth.log_in(f"n{number}", "guess") is None
    with pytest.raises(UsageError, match="wait a minute"):
        auth.log_in("somebody", "guess")
    clock.now += 61
    assert auth.log_in("somebody", "guess") is None


def test_access_is_as_set_else_as_the_users_are(accounts):
    assert get_access_mode({}, accounts) == "local"
    accounts.add("anna", "a long password")
    assert get_access_mode({}, accounts) == "password"
    assert get_access_mode({"ELYSIA_ACCESS": "Open"}, accounts) == "open"
    with pytest.raises(UsageError, match="Did you mean 'password'"):
        get_access_mode({"ELYSIA_ACCESS": "pasword"}, accounts)


def test_a_ticket_opens_one_reply_to_one_user_for_a_while(accounts, auth, clock):
    anna, bela = accounts.get_or_create("openid:x:a"), accounts.get_or_create("openid:x:b")
    ticket = auth.issue_ticket(anna.id, "/voice/t/m")
    assert auth.check_ticket(ticket, "/voice/t/m") == anna
    assert auth.get_user(ticket) is None  # it is no login
    assert auth.check_ticket(ticket, "/voice/t/n") is None
    user, end, mark = ticket.split(".")
    for forged in (
        None, "", "..", ticket + "0", f"{bela.id}.{end}.{mark}", f"{user}.{int(end) + 1}.{mark}",
        f"{user}.{end}", f"{user}.x.{mark}", "é.1.é", f"{user}.{'9' * 20}.{mark}",
    ):  # fmt: skip
        assert auth.check_ticket(forged, "/voice/t/m") is None, forged
    clock.now += 3599
    assert auth.check_ticket(ticket, "/voice/t/m") == anna
    clock.now += 3602
    assert auth.check_ticket(ticket, "/voice/t/m") is None
    fresh = auth.issue_ticket(anna.id, "/voice/t/m")
    accounts.remove("openid:x:a")
    assert auth.check_ticket(fresh, "/voice/t/m") is None


def test_the_list_of_the_invited_is_read_and_only_where_it_counts():
    listed = {"ELYSIA_OPENID_ALLOWED": " anna@example.org, @lab.example ,,"}
    assert parse_allow_list(listed, "openid") == ("anna@example.org", "@lab.example")
    assert parse_allow_list({}, "password") == ()
    with pytest.raises(UsageError, match="Set ELYSIA_ACCESS=openid"):
        parse_allow_list(listed, "open")


@pytest.mark.parametrize(
    "claims",
    [
        {"email": "anna@example.org", "email_verified": False},
        {"email": "anna@example.org", "email_verified": "true"},
        {"email": "anna@example.org"},
        {"email": "bela@example.org.evil.example", "email_verified": True},
        {"email": "bela@lab.example@evil.example", "email_verified": True},
        {"email": "", "email_verified": True},
        {"email": None, "email_verified": True, "sub": "@lab.example"},
        {},
    ],
)
def test_who_only_looks_invited_is_not(claims):
    assert not is_admitted(("anna@example.org", "@lab.example"), claims)
    assert is_admitted((), claims)


def test_nobody_with_an_openid_is_taken_for_another():
    assert build_openid_name({"iss": "https://a", "sub": "1"}) == "openid:https://a:1"
    long = [build_openid_name({"iss": "https://" + "a" * 300, "sub": sub}) for sub in "12"]
    assert long[0] != long[1] and max(map(len, long)) < 255
    for nobody in ({}, {"iss": "https://a"}, {"sub": "1"}, {"iss": "https://a", "sub": ""}):
        with pytest.raises(UsageError, match="does not say who"):
            build_openid_name(nobody)


@pytest.mark.parametrize("address", ["0.0.0.0", "", None, "192.168.1.4", "example.org"])
def test_only_a_local_page_of_nobody_in_particular_is_kept_to_this_machine(address):
    with pytest.raises(UsageError, match="elysia user add"):
        refuse_open_access(AccessMode.LOCAL, address)
    for access in (AccessMode.PASSWORD, AccessMode.OPENID, AccessMode.OPEN):
        refuse_open_access(access, address)
    refuse_open_access(AccessMode.LOCAL, "127.0.0.1")


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path):
    file = tmp_path / "web.key"
    key = load_signing_key(file)
    assert len(key) == 32 and load_signing_key(file) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_bytes(b"short")
    with pytest.raises(UsageError, match="is not a key"):
        load_signing_key(file)
