"""Two people with passwords: each logs in, stays so over a refresh, and sees nothing of the other."""

from __future__ import annotations

import threading

import httpx
import pytest

from tests.web.conftest import served
from tests.web.steps import MESSAGE, begin, say, texts

pytestmark = pytest.mark.browser


def log_in(page, name):
    page.fill("#name", name)
    page.fill("#password", f"password of {name}")
    page.click("button")
    page.wait_for_selector(".st-key-begin_elysia")


def test_two_people_talk_at_once_and_nothing_crosses(look, people):
    pages = {}
    for name in ("anna", "bela"):
        pages[name] = look(url=people, locale="en-GB")
        log_in(pages[name], name)
        pages[name].reload()
        pages[name].get_by_text(f"You are {name}").wait_for()
    talks = {name: begin(page) for name, page in pages.items()}
    for name, page in pages.items():
        say(page, f"the secret of {name} " + "so " * 20, wait=False)
    for name, page in pages.items():
        page.locator('[class*="st-key-again_"]').wait_for()
        other = {"anna": "bela", "bela": "anna"}[name]
        assert texts(page)[-1].startswith(f"heard: the secret of {name}")
        assert f"secret of {other}" not in page.locator("body").inner_text()
    # A talk of somebody else is as one that is not there.
    pages["bela"].goto(f"{people}/?talk={talks['anna']}")
    pages["bela"].get_by_text("There is no such chat").wait_for()
    assert pages["bela"].locator(MESSAGE).count() == 0
    pages["anna"].locator("a.log-out").click()
    pages["anna"].wait_for_selector("#password")
    pages["anna"].goto(f"{people}/?talk={talks['anna']}")
    pages["anna"].wait_for_selector("#password")


def test_without_a_login_no_page_file_or_socket_opens(people):
    with httpx.Client(base_url=people, timeout=60) as client:
        for path in ("/", "/?talk=1", "/media/x.png", "/_stcore/host-config", "/voice/a/b"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["location"]) == (303, "/login"), path
        upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
                   "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
        assert client.get("/_stcore/stream", headers=upgrade).status_code == 403
        forged = client.get("/", headers={"cookie": f"elysia={'a' * 32}.9999999999.{'0' * 64}"})
        assert forged.status_code == 303


def test_a_wrong_password_is_told_and_guessing_is_slowed(people):
    with httpx.Client(base_url=people, timeout=60) as client:
        wrong = {"name": "nobody<b>", "password": "guess"}
        for _ in range(5):
            answer = client.post("/login", data=wrong)
            assert answer.status_code == 401 and "set-cookie" not in answer.headers
        assert client.post("/login", data=wrong).status_code == 429
        elsewhere = client.post("/login", data=wrong, headers={"origin": "http://evil.example"})
        assert elsewhere.status_code == 403
        assert client.post("/login", content=b"x" * 100_000).status_code == 413
        answer = client.post("/login", data={"name": "anna", "password": "password of anna"})
        cookie = answer.headers["set-cookie"].lower()
        assert answer.status_code == 303 and "httponly" in cookie and "samesite=lax" in cookie


def test_beyond_this_machine_nothing_is_served_without_a_login(tmp_path):
    """A page of one local user at all addresses answers with the reason, and opens no socket."""
    with served(tmp_path, "--server.address", "0.0.0.0", wait=False) as url:
        answer = wait_for_sentence(url, "ELYSIA_ACCESS")
        assert answer.status_code == 503 and "elysia user add" in answer.text


def test_a_model_that_is_not_there_is_told_in_a_sentence(tmp_path):
    """The product's own start, with no model behind it."""
    arguments = ("--model", str(tmp_path / "none"), "--database", str(tmp_path / "chat.db"))
    with served(tmp_path, script="web_demo/app.py", wait=False, arguments=arguments) as url:
        answer = wait_for_sentence(url, "The chat is not ready")
        assert answer.status_code == 503 and "none" in answer.text
        assert "Traceback" not in answer.text


def wait_for_sentence(url, sentence):
    """The page's answer as soon as it says so; a model may take a while to load, or not to."""
    wait = threading.Event()
    for _ in range(400):
        answer = httpx.get(url + "/", headers={"accept-language": "en"}, timeout=60)
        if sentence in answer.text:
            return answer
        wait.wait(0.2)
    raise AssertionError(answer.text)
