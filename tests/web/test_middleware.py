"""The door in HTTP, without a browser: what is answered while, and when, a site does not open."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from elysia.core.errors import UsageError
from elysia.web import app_state, middleware
from elysia.web.middleware import app_options
from tests.web.stand_in import open_stand_in


@contextmanager
def door(open_, address="127.0.0.1"):
    app = Starlette(**app_options(open_, lambda: address))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client
    assert app_state.get_startup_task() is None  # closed with the server


def failing(error):
    def open_():
        raise error

    return open_


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UsageError("There is no <model>."), "There is no &lt;model&gt;."),
        (ZeroDivisionError("oops"), "This is a bug: ZeroDivisionError: oops."),
    ],
)
def test_a_site_that_does_not_open_says_why(error, expected):
    with door(failing(error)) as client:
        while not app_state.get_startup_task().is_done():
            threading.Event().wait(0.01)
        answer = client.get("/")
        assert answer.status_code == 503 and expected in answer.text
        assert "img-src 'self' data: blob:" in answer.headers["content-security-policy"]


def test_while_the_model_loads_the_page_waits_and_looks_again(tmp_path):
    loaded = threading.Event()

    def slow():
        loaded.wait(60)
        return open_stand_in(tmp_path)

    with door(slow) as client:
        answer = client.get("/", headers={"accept-language": "zh-CN"})
        assert answer.status_code == 503 and 'http-equiv="refresh"' in answer.text
        assert "正在醒来" in answer.text
        loaded.set()
        app_state.get_startup_task().result(60)
        assert client.get("/voice/nothing/here").status_code == 404
        assert client.get("/login").status_code == 200


def test_the_pages_before_the_page_escape_what_they_are_told():
    page = middleware.render_error_page("en", "<script>alert(1)</script> & more")
    assert "<script" not in page and "&lt;script&gt;" in page
    for language in ("zh", "en"):
        login = middleware.render_login_page(language, "login_wrong")
        assert "<script" not in login + middleware.render_waiting_page(language)
