"""Who comes in: cookies that cannot be forged, passwords that cannot be guessed, no open door by accident."""

from __future__ import annotations

import stat

import pytest

from elysia.chat.accounts import AccountStore
from elysia.core.errors import UsageError
from elysia.store.database import open_database
from elysia.web.auth import (
    SESSION_SECONDS,
    SessionAuth,
    build_openid_name,
    explain_refusal,
    get_access_mode,
    is_admitted,
    load_signing_key,
    parse_allow_list,
)


class Clock:
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
    return Clock()


@pytest.fixture
def logins(accounts, clock):
    return SessionAuth(accounts, b"k" * 32, clock)


def test_a_login_lasts_until_its_end_or_a_new_password(accounts, logins, clock):
    anna = accounts.add("anna", "a long password")
    cookie = logins.enter(" anna ", "a long password")
    assert logins.user(cookie) == anna
    clock.now += SESSION_SECONDS + 1
    assert logins.user(cookie) is None
    clock.now -= SESSION_SECONDS + 1
    accounts.set_password("anna", "another password")
    assert logins.user(cookie) is None
    accounts.remove("anna")
    assert logins.user(cookie) is None


def test_a_forged_or_foreign_cookie_is_nobodys(accounts, logins, clock):
    anna, bela = (accounts.add(name, "a long password") for name in ("anna", "bela"))
    cookie = logins.enter("anna", "a long password")
    user, end, signature = cookie.split(".")
    later = str(int(end) + 1)
    for forged in (
        None, "", ".", "..", cookie[:-1], cookie + "0", f"{bela.id}.{end}.{signature}",
        f"{user}.{later}.{signature}", f"{user}.²{end}.{signature}", f"{user}.{end}.é", "é.1.2",
        f"{accounts.local().id}.{end}.{signature}",
    ):  # fmt: skip
        assert logins.user(forged) is None, forged
    assert SessionAuth(accounts, b"x" * 32, clock).user(cookie) is None  # another key
    assert logins.user(cookie) == anna


def test_guessing_is_slowed_for_a_name_and_for_all(accounts, logins, clock, monkeypatch):
    accounts.add("anna", "a long password")
    monkeypatch.setattr(
        accounts, "authenticate", lambda name, password: None
    )  # scrypt takes its time
    for _ in range(5):
        assert logins.enter("anna", "guess") is None
    with pytest.raises(UsageError, match="wait a minute"):
        logins.enter("anna", "a long password")
    for number in range(55):
        assert logins.enter(f"n{number}", "guess") is None
    with pytest.raises(UsageError, match="wait a minute"):
        logins.enter("somebody", "guess")
    clock.now += 61
    assert logins.enter("somebody", "guess") is None


def test_access_is_as_set_else_as_the_users_are(accounts):
    assert get_access_mode({}, accounts) == "local"
    accounts.add("anna", "a long password")
    assert get_access_mode({}, accounts) == "password"
    assert get_access_mode({"ELYSIA_ACCESS": "Open"}, accounts) == "open"
    with pytest.raises(UsageError, match="Did you mean 'password'"):
        get_access_mode({"ELYSIA_ACCESS": "pasword"}, accounts)


def test_a_ticket_opens_one_reply_to_one_user_for_a_while(accounts, logins, clock):
    anna, bela = accounts.get_or_create("openid:x:a"), accounts.get_or_create("openid:x:b")
    ticket = logins.ticket(anna.id, "/voice/t/m")
    assert logins.bearer(ticket, "/voice/t/m") == anna
    assert logins.user(ticket) is None  # it is no login
    assert logins.bearer(ticket, "/voice/t/n") is None
    user, end, mark = ticket.split(".")
    for forged in (
        None, "", "..", ticket + "0", f"{bela.id}.{end}.{mark}", f"{user}.{int(end) + 1}.{mark}",
        f"{user}.{end}", f"{user}.x.{mark}", "é.1.é", f"{user}.{'9' * 20}.{mark}",
    ):  # fmt: skip
        assert logins.bearer(forged, "/voice/t/m") is None, forged
    clock.now += 3599
    assert logins.bearer(ticket, "/voice/t/m") == anna
    clock.now += 3602
    assert logins.bearer(ticket, "/voice/t/m") is None
    fresh = logins.ticket(anna.id, "/voice/t/m")
    accounts.remove("openid:x:a")
    assert logins.bearer(fresh, "/voice/t/m") is None


def test_the_list_of_the_invited_is_read_and_only_where_it_counts():
    listed = {"ELYSIA_OPENID_ALLOWED": " anna@example.org, @lab.example ,,"}
    assert parse_allow_list(listed, "openid") == ("anna@example.org", "@lab.example")
    assert parse_allow_list({}, "password") == ()
    with pytest.raises(UsageError, match="Set ELYSIA_ACCESS=openid"):
        parse_allow_list(listed, "open")


@pytest.mark.parametrize(
    "vouched",
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
def test_who_only_looks_invited_is_not(vouched):
    assert not is_admitted(("anna@example.org", "@lab.example"), vouched)
    assert is_admitted((), vouched)


def test_nobody_with_an_openid_is_taken_for_another():
    assert build_openid_name({"iss": "https://a", "sub": "1"}) == "openid:https://a:1"
    long = [build_openid_name({"iss": "https://" + "a" * 300, "sub": sub}) for sub in "12"]
    assert long[0] != long[1] and max(map(len, long)) < 255
    for nobody in ({}, {"iss": "https://a"}, {"sub": "1"}, {"iss": "https://a", "sub": ""}):
        with pytest.raises(UsageError, match="does not say who"):
            build_openid_name(nobody)


@pytest.mark.parametrize("address", ["0.0.0.0", "", None, "192.168.1.4", "example.org"])
def test_only_a_local_page_of_nobody_in_particular_is_kept_to_this_machine(address):
    assert "elysia user add" in explain_refusal("local", address)
    for access in ("password", "openid", "open"):
        assert explain_refusal(access, address) is None
    assert explain_refusal("local", "127.0.0.1") is None


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path):
    file = tmp_path / "web.key"
    key = load_signing_key(file)
    assert len(key) == 32 and load_signing_key(file) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_bytes(b"short")
    with pytest.raises(UsageError, match="is no key"):
        load_signing_key(file)
