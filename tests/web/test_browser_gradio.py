"""The Gradio page in a browser: the same service, with retry, undo and a conversation a session."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.web.conftest import ROOT, answers, free_port
from tests.web.steps import PATIENCE, expect

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def gradio_page(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("gradio"), free_port()
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "tests/web/gradio_served.py", str(folder)], cwd=ROOT, stdout=log,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, "GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1", "LANG": "C"},
        )  # fmt: skip
        try:
            end = time.monotonic() + PATIENCE / 1000
            while not answers(f"http://127.0.0.1:{port}/"):
                assert time.monotonic() < end and process.poll() is None, (
                    folder / "server.log"
                ).read_text()
                time.sleep(0.3)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_talk_retry_undo_and_another_session_apart(look, gradio_page):
    page = look(url=gradio_page)
    bot = page.locator('[data-testid="bot"]')
    expect(bot.first).to_contain_text("你来啦")
    box = page.locator("textarea").first
    hostile = "numbered hello <img src=x onerror='window.pwned=1'> ![x](http://127.0.0.1:9/a.png)"
    box.fill(hostile)
    box.press("Enter")
    expect(bot.last).to_contain_text("heard: numbered hello <img src=x")
    expect(bot.last).to_contain_text("(1)")
    assert page.evaluate("window.pwned") is None
    assert page.locator('[data-testid="bot"] p img, [data-testid="user"] p img').count() == 0
    page.get_by_role("button", name="Regenerate").click()
    expect(bot.last).to_contain_text("(2)")
    expect(bot).to_have_count(2)
    page.get_by_label("Speak replies aloud").check()
    box.fill("aloud, please")
    box.press("Enter")
    expect(bot.last).to_contain_text("heard: aloud, please")
    expect(page.get_by_role("button", name="Pause").or_(page.locator("audio"))).not_to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(box).to_have_value("aloud, please")
    other = look(url=gradio_page)
    expect(other.locator('[data-testid="bot"]').first).to_contain_text("你来啦")
    assert "hello" not in other.locator("body").inner_text()
    page.get_by_role("button", name="Undo").click()
    expect(bot).to_have_count(1)
    expect(box).to_have_value(hostile)
