"""Whose voice is heard in the browser: one's own replies alone, a group in order, nothing after stop."""

from __future__ import annotations

import json
import re

import pytest

from tests.web.steps import MESSAGE, begin, expect, ready, say, switch_voice_on, upload

pytestmark = pytest.mark.browser
# Chromium's own: the strictest one forgets a key press after five seconds, which a busy machine takes.
AUTOPLAY = "document-user-activation-required"

# Notes each sound that plays, from a page's first moment, and whether two ever play together.
LISTEN = """
window.played = []; window.together = 0;
const playing = new Set();
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () {
  window.player = this;
  this.addEventListener("playing", () => {
    playing.add(this); window.together = Math.max(window.together, playing.size);
    if (window.played.at(-1) !== this.src) window.played.push(this.src);
  });
  for (const end of ["ended", "pause", "emptied", "error"])
    this.addEventListener(end, () => playing.delete(this));
  return play.call(this);
};
"""

MIRA = json.dumps(
    {
        "spec": "chara_card_v2",
        "spec_version": "2.0",
        "data": {
            "name": "Mira",
            "description": "{{char}} sings.",
            "first_mes": "",
            "extensions": {"elysia": {"voice": "hers"}},
        },
    }
).encode()


def enter(look, url, name):
    """Somebody's window, that notes what is heard in it."""
    page = look(url=url, locale="en-GB")
    page.context.add_init_script(LISTEN)
    page.fill("#name", name)
    page.fill("#password", f"password of {name}")
    page.click("button")
    page.wait_for_selector(".st-key-begin_elysia")
    return page


def heard(page):
    """Paths of what has played, in order."""
    return [re.sub(r"^https?://[^/]+", "", url) for url in page.evaluate("window.played")]


def test_two_people_hear_each_their_own_and_stop_silences_one(look, people):
    pages = {name: enter(look, people, name) for name in ("anna", "bela")}
    talks = {}
    for name, page in pages.items():
        talks[name] = begin(page)
        switch_voice_on(page)
    for name, page in pages.items():
        say(page, f"held, {name}. " + "One more sentence. " * 60, wait=False)
        page.wait_for_function("window.player && window.player.currentTime > 0.2")
        assert len(heard(page)) == 1 and heard(page)[0].startswith(f"/voice/{talks[name]}/")
    pages["anna"].click(".st-key-stop button")
    expect(pages["anna"].locator(".st-key-player")).to_have_count(0)
    pages["anna"].wait_for_function("window.player.paused")
    before = pages["bela"].evaluate("window.player.currentTime")
    pages["bela"].wait_for_function(f"window.player.currentTime > {before} + 0.2")
    theirs = heard(pages["bela"])[0]
    assert pages["anna"].request.get(people + theirs).status == 404, "a stranger's reply"
    pages["bela"].click(".st-key-stop button")
    expect(pages["bela"].locator(".st-key-player")).to_have_count(0)


def test_a_group_is_heard_in_order_one_at_a_time_each_in_her_own_voice(look, people):
    page = enter(look, people, "anna")
    page.locator(".st-key-import_card summary").click()
    upload(page, "card_file", {"name": "mira.json", "mimeType": "application/json", "buffer": MIRA})
    expect(page.locator('[class*="st-key-begin_"]')).to_have_count(5)
    page.locator(".st-key-seat_elysia label").click()
    ready(page)
    mira = page.locator('[class*="st-key-card_"]', has_text="Mira")
    mira.locator('[class*="st-key-seat_"] label').click()
    page.click(".st-key-start button")
    page.wait_for_selector(MESSAGE)
    switch_voice_on(page)
    voices = []
    page.on(
        "response",
        lambda r: (
            voices.append((r.url, r.all_headers().get("content-type")))
            if "/voice/" in r.url
            else None
        ),
    )
    say(page, "大家好！")
    page.wait_for_function("window.played.length == 2 && window.player.ended")
    order = heard(page)
    assert page.evaluate("window.together") == 1
    assert [url.removeprefix(people) for url, _ in voices[:2]] == order, "asked for as they played"
    sounds = [page.request.get(people + path).body() for path in order]
    assert sounds[0] != sounds[1] and min(map(len, sounds)) > 44, "one voice for both"
