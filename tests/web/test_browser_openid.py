"""People who log in at an OpenID provider: each sees their own, hears her, and the uninvited stay out."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
import pytest

from elysia.chat.accounts import AccountStore
from elysia.store.database import open_database
from tests.web.conftest import served
from tests.web.steps import MESSAGE, begin, say, switch_voice_on, texts

pytestmark = pytest.mark.browser

SETTINGS = """[auth]
redirect_uri = "http://127.0.0.1:{{port}}/oauth2callback"
cookie_secret = "a secret of this test alone, long enough"
client_id = "elysia"
client_secret = "the client's secret"
server_metadata_url = "http://127.0.0.1:{port}/.well-known/openid-configuration"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A page behind a provider: its URL, its folder, the provider."""
    openid = pytest.importorskip("tests.web.openid", reason="Authlib is not installed")
    folder = tmp_path_factory.mktemp("openid")
    secrets = folder / "secrets.toml"
    allowed = "anna@example.org, @lab.example"
    with openid.provider() as provider:
        secrets.write_text(SETTINGS.format(port=provider.server_port))
        with served(
            folder, "--secrets.files", str(secrets),
            ELYSIA_ACCESS="openid", ELYSIA_OPENID_ALLOWED=allowed,
        ) as url:  # fmt: skip
            yield url, folder, provider


def log_in(page, name):
    page.get_by_role("button", name="Log in").click()
    page.click(f"#{name}")


def users(folder):
    database = open_database(str(folder / "chat.db"))
    names = [user.name for user in AccountStore(database).all()]
    database.close()
    return names


def test_two_people_talk_hear_her_and_see_nothing_of_each_other(look, place):
    url, folder, provider = place
    pages, talks = {}, {}
    for name in ("anna", "bela"):
        page = pages[name] = look(url=url, locale="en-GB")
        log_in(page, name)
        page.get_by_text(f"You are {name.title()}").wait_for()
        talks[name] = begin(page)
        say(page, f"the secret of {name}")
    assert users(folder) == [f"openid:http://127.0.0.1:{provider.server_port}:{sub}" for sub in ("a-1", "b-2")]  # fmt: skip
    anna, bela = pages["anna"], pages["bela"]
    anna.reload()
    anna.wait_for_selector(MESSAGE)
    assert texts(anna)[-1] == "heard: the secret of anna"
    bela.goto(f"{url}/?talk={talks['anna']}")
    bela.get_by_text("There is no such chat").wait_for()
    assert "secret of anna" not in bela.locator("body").inner_text()
    sound = hear(anna)
    assert sound.path.startswith(f"/voice/{talks['anna']}/")
    with httpx.Client(base_url=url, timeout=60) as stranger:
        answer = stranger.get(f"{sound.path}?{sound.query}")
        assert answer.status_code == 200 and answer.content.startswith(b"RIFF")
        assert stranger.get(sound.path).status_code == 401
        other = sound.path.rsplit("/", 1)[0] + "/0"
        assert stranger.get(f"{other}?{sound.query}").status_code == 401
    anna.get_by_role("button", name="Log out").click()
    anna.get_by_role("button", name="Log in").wait_for()
    assert [query["client_id"] for query in provider.ended] == ["elysia"]
    anna.goto(f"{url}/?talk={talks['anna']}")
    anna.get_by_role("button", name="Log in").wait_for()
    assert "secret of anna" not in anna.locator("body").inner_text()


def hear(page):
    """Turn her voice on and say something; the URL of the sound that plays."""
    switch_voice_on(page)
    with page.expect_response(lambda answer: "/voice/" in answer.url) as heard:
        say(page, "Aloud, please.", wait=False)
    assert heard.value.status == 200
    return urlsplit(heard.value.url)


def test_whoever_is_not_on_the_list_is_told_so_and_leaves_no_trace(look, place):
    """Eve claims Anna's address, which the provider has not verified."""
    url, folder, _ = place
    page = look(url=url, locale="en-GB")
    log_in(page, "eve")
    page.get_by_text("Eve is not on the list of those who may come in.").wait_for()
    assert page.locator(".st-key-begin_elysia").count() == 0
    assert not any("e-3" in name for name in users(folder))
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("button", name="Log in").wait_for()


def test_a_token_that_another_signed_lets_nobody_in(look, place):
    from joserfc.jwk import RSAKey

    url, _, provider = place
    provider.wrong_key = RSAKey.generate_key(2048)
    try:
        page = look(url=url, locale="en-GB")
        log_in(page, "anna")
        page.get_by_role("button", name="Log in").wait_for()
        assert "You are" not in page.locator("body").inner_text()
    finally:
        provider.wrong_key = None
