"""What people do on the page, in words for the browser tests and the screenshots.

A step ends when its effect is seen: Streamlit draws a page anew for every click, what was drawn before
stays meanwhile, and a place to write holds its words before they are sent.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

BOX = '[data-testid="stChatInputTextArea"]'
MESSAGE = '[data-testid="stChatMessage"]'
PATIENCE = 90_000  # milliseconds; a machine may be busy with much else
LOOK = 5_000  # milliseconds that one look at the memories takes at most
# What only this view has.
SEEN = {
    "Talk": BOX,
    "Documents": '[class*="st-key-documents_"]',
    "Settings": '[class*="st-key-set_temperature"]',
}


def expect(locator):
    """Playwright's, with patience for a busy machine."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    return expect(locator, "seen on the page")


def ready(page):
    """No drawing is under way. One that a click has just asked for may not have begun: wait for what the
    click does, too.
    """
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()


def begin(page, character="elysia"):
    """From the gallery into a talk; its id."""
    page.click(f".st-key-begin_{character} button")
    page.wait_for_selector(MESSAGE)
    page.wait_for_url(re.compile("talk="))
    ready(page)
    return parse_qs(urlsplit(page.url).query)["talk"][0]


def say(page, text, *, wait=True):
    """Send a message, which then stands in the talk; wait for the end of the answer."""
    ready(page)
    messages = page.locator('[class*="st-key-said_user_"]')
    before = messages.count()
    page.fill(BOX, text)
    page.press(BOX, "Enter")
    expect(messages).to_have_count(before + 1)
    messages.last.get_by_text(text, exact=True).wait_for()
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
    elements = page.locator(MESSAGE).all()
    return [
        "\n".join(
            element.locator(
                '[data-testid="stMarkdown"]:not([class*="st-key-acts_"] *):not(:has([data-testid="stCaptionContainer"])), [data-testid="stText"]'
            ).all_inner_texts()
        )
        for element in elements
    ]


def act(page, name, message=-1):
    """Press a small button of a message."""
    page.wait_for_selector(MESSAGE)
    ready(page)
    element = page.locator(MESSAGE).nth(message)
    element.locator(f'[class*="st-key-{name}_"] button:visible').first.click()


def view(page, label):
    """To another view of the talk."""
    page.locator(".st-key-head_views").get_by_role("radio", name=label).click()
    if label in SEEN:
        page.locator(SEEN[label]).first.wait_for()
        ready(page)


def save(page, key):
    """Press the button that keeps what was written; it goes when that is done."""
    page.click(f".st-key-{key} button")
    expect(page.locator(f".st-key-{key}")).to_have_count(0)
    ready(page)


def memory(page, text):
    """The memory with these words. Memories are written down behind the talk: look until it is there."""
    memories = page.locator('[class*="st-key-memory_"]').filter(
        has=page.locator('[data-testid="stText"]', has_text=text)
    )
    from playwright.sync_api import TimeoutError

    end = time.monotonic() + PATIENCE / 1000
    while True:
        view(page, "Memory")
        try:
            memories.first.wait_for(timeout=LOOK)
        except TimeoutError:
            if time.monotonic() > end:
                raise
            view(page, "Talk")
        else:
            ready(page)
            return memories


def switch_voice_on(page):
    """She speaks from now on; back in the talk."""
    view(page, "Settings")
    switch = page.locator('[class*="st-key-set_voice_"]').first
    switch.locator("label").first.click()
    expect(switch.get_by_role("switch").or_(switch.get_by_role("checkbox"))).to_be_checked()
    view(page, "Talk")


def upload(page, key, file: Path | dict):
    """Give a file to an uploader whose key begins so, once the one of the last file is gone."""
    ready(page)
    chooser = page.locator(f'[class*="st-key-{key}"] input[type=file]')
    expect(chooser).to_have_count(1)
    chooser.set_input_files(file)
