"""What people do on the page, in words for the browser tests and the screenshots."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

BOX = '[data-testid="stChatInputTextArea"]'
MESSAGE = '[data-testid="stChatMessage"]'


def expect(locator):
    """Playwright's, with patience for a busy machine."""
    from playwright.sync_api import expect

    expect.set_options(timeout=30_000)
    return expect(locator, "seen on the page")


def ready(page):
    """The page is as the server has drawn it last."""
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()


def begin(page, character="elysia"):
    """From the gallery into a talk; its id."""
    page.click(f".st-key-begin_{character} button")
    page.wait_for_selector(MESSAGE)
    page.wait_for_url(re.compile("talk="))
    ready(page)
    return parse_qs(urlsplit(page.url).query)["talk"][0]


def say(page, text, *, wait=True):
    """Send a message; wait for the end of the answer."""
    page.fill(BOX, text)
    page.press(BOX, "Enter")
    page.get_by_text(text, exact=True).last.wait_for()
    if wait:
        idle(page)


def idle(page):
    """Nobody writes: the newest line has its buttons."""
    page.locator(MESSAGE).last.locator(
        '[class*="st-key-again_"], [class*="st-key-try_"]'
    ).first.wait_for()
    ready(page)


def texts(page):
    """The words of every message, its buttons left out."""
    found = page.locator(MESSAGE).all()
    return [
        "\n".join(
            one.locator(
                '[data-testid="stMarkdown"]:not([class*="st-key-acts_"] *):not(:has([data-testid="stCaptionContainer"])), [data-testid="stText"]'
            ).all_inner_texts()
        )
        for one in found
    ]


def act(page, name, message=-1):
    """Press a small button of a message."""
    page.wait_for_selector(MESSAGE)
    ready(page)
    one = page.locator(MESSAGE).nth(message)
    one.locator(f'[class*="st-key-{name}_"] button:visible').first.click()


def view(page, label):
    """To another view of the talk."""
    page.locator(".st-key-head_views").get_by_role("radio", name=label).click()


def upload(page, key, file: Path | dict):
    """Give a file to an uploader whose key begins so, once the one of the last file is gone."""
    ready(page)
    chooser = page.locator(f'[class*="st-key-{key}"] input[type=file]')
    expect(chooser).to_have_count(1)
    chooser.set_input_files(file)
