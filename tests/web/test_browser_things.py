"""The page in a browser: cards, documents, memories, receipts, her voice."""

from __future__ import annotations

import json

import pytest

from tests.web.steps import (
    MESSAGE,
    act,
    begin,
    expect,
    idle,
    memory,
    save,
    say,
    switch_voice_on,
    texts,
    upload,
    view,
)

pytestmark = pytest.mark.browser

STORY = (
    "# The lighthouse\n\nThe lighthouse keeper is called Oskar and has a green boat.\n\n"
    "Every evening he lights three lamps.\n"
)
HOSTILE = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>**Bo**b"


def card(name, **fields):
    data = {
        "name": name,
        "description": f"{{{{char}}}} is {name}.",
        "first_mes": "Hi from {{char}}!",
        **fields,
    }
    return json.dumps({"spec": "chara_card_v2", "spec_version": "2.0", "data": data}).encode()


def bring(page, name, content):
    page.locator(".st-key-import_card summary").click()
    upload(page, "card_file", {"name": name, "mimeType": "application/json", "buffer": content})


def test_a_card_is_brought_talked_to_and_removed(look, shared_data):
    page = look()
    page.locator(".st-key-import_card summary").click()
    upload(page, "card_file", shared_data / "cards" / "jasl_test_character.png")
    own = page.locator('[class*="st-key-begin_"]').last
    expect(page.locator('[class*="st-key-begin_"]')).to_have_count(5)
    name = page.locator('[class*="st-key-card_"] strong').last.inner_text()
    picture = page.locator('[class*="st-key-card_"] img').last.get_attribute("src")
    assert picture.startswith("data:image/jpeg")
    own.locator("button").click()
    page.wait_for_selector(MESSAGE)
    say(page, "hello, guest")
    assert texts(page)[-1] == "heard: hello, guest"
    page.click(".st-key-new_talk button")
    mine = page.locator('[class*="st-key-card_"]', has_text=name)
    mine.locator('[class*="st-key-about_"] button:visible').click()
    expect(page.locator('[role="dialog"]')).to_contain_text(name)
    page.click(".st-key-remove_card button")
    page.click(".st-key-yes_remove button")
    expect(page.locator('[class*="st-key-begin_"]')).to_have_count(4)


def test_a_card_with_scripts_in_it_is_shown_as_text(look):
    page = look()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    greeting = f"{HOSTILE} ![x](http://127.0.0.1:9/spy.png) [click](javascript:window.pwned=3)"
    bring(
        page, "bad.json", card(HOSTILE, creator_notes=HOSTILE, creator=HOSTILE, first_mes=greeting)
    )
    shown = page.locator('[class*="st-key-card_"]', has_text="pwned").locator("strong")
    expect(shown).to_contain_text("<script>window.pwned")
    page.locator('[class*="st-key-card_"]', has_text="pwned").locator(
        '[class*="st-key-about_"] button:visible'
    ).click()
    expect(page.locator('[role="dialog"]').get_by_text("<img src=x").first).to_be_visible()
    page.keyboard.press("Escape")
    page.locator('[class*="st-key-card_"]', has_text="pwned").locator(
        '[class*="st-key-begin_"] button'
    ).click()
    page.wait_for_selector(MESSAGE)
    expect(page.locator(MESSAGE).first).to_contain_text("<img src=x onerror=")
    say(page, HOSTILE)
    assert HOSTILE in texts(page)[1]
    assert page.evaluate("window.pwned") is None
    assert page.locator(f"{MESSAGE} script, [data-testid=stMarkdownContainer] img").count() == 0
    assert not [url for url in asked if "127.0.0.1:9/" in url]
    assert not page.locator('a[href^="javascript:"]').count()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [("no.json", b"{}", "no.json"), ("no.png", b"\x89PNG\r\n\x1a\nnothing", "no.png")],
)
def test_a_file_that_is_no_card_is_told_in_a_sentence(look, name, content, expected):
    page = look()
    bring(page, name, content)
    alert = page.locator('[data-testid="stAlert"]')
    expect(alert).to_contain_text(expected)
    assert "Traceback" not in page.content()


def test_a_document_is_read_and_an_answer_cites_its_very_words(look):
    page = look()
    begin(page)
    view(page, "Documents")
    file = {"name": "story.md", "mimeType": "text/markdown", "buffer": STORY.encode()}
    upload(page, "documents_", file)
    expect(page.locator('[class*="st-key-document_"]')).to_contain_text("story.md")
    bad = {"name": "bad.txt", "mimeType": "text/plain", "buffer": b"\xff\xfe\xff"}
    upload(page, "documents_", bad)
    expect(page.locator('[data-testid="stAlert"]')).to_contain_text("bad.txt is not UTF-8")
    view(page, "Talk")
    say(page, "What is the lighthouse keeper called?")
    assert "Oskar" in texts(page)[-1]
    page.click('[class*="st-key-cite_"] button:visible')
    cited = page.locator('[class*="st-key-cited_1"]')
    expect(cited).to_have_text("The lighthouse keeper is called Oskar and has a green boat.")
    expect(page.locator('[role="dialog"]')).to_contain_text("three lamps")
    page.keyboard.press("Escape")
    act(page, "receipt")
    dialog = page.locator('[role="dialog"]')
    expect(dialog).to_contain_text("story.md")
    dialog.get_by_text("The whole prompt").click()
    expect(dialog.locator("pre").first).to_contain_text("[1] story.md")
    page.keyboard.press("Escape")
    view(page, "Documents")
    page.click('[class*="st-key-remove_"] button:visible')
    expect(page.locator('[class*="st-key-document_"]')).to_have_count(0)


def test_a_memory_is_seen_corrected_and_forgotten_for_good(look):
    page = look()
    begin(page)
    say(page, "I have a cat called Momo")
    cat = memory(page, "cat called Momo")
    cat.locator('[class*="st-key-correct_"] button:visible').click()
    page.locator('[class*="st-key-right_"] textarea').fill("I have a dog called Momo")
    save(page, "save_memory")
    dog = memory(page, "I have a dog called Momo")
    expect(dog).to_be_visible()
    expect(cat).to_have_count(0)
    page.click(".st-key-new_talk button")
    begin(page)
    say(page, "Who is called Momo?")
    act(page, "receipt")
    expect(page.locator('[role="dialog"]')).to_contain_text("I have a dog called Momo")
    page.keyboard.press("Escape")
    memory(page, "I have a dog called Momo").locator(
        '[class*="st-key-forget_"] button:visible'
    ).click()
    expect(dog).to_have_count(0)
    view(page, "Talk")
    expect(page.locator(MESSAGE)).to_have_count(3)
    act(page, "again")
    expect(page.locator(MESSAGE).last).to_contain_text("2/2")
    idle(page)
    act(page, "receipt")
    expect(
        page.locator('[role="dialog"]').get_by_text("The whole prompt")
    ).to_be_visible()  # its end
    assert "dog" not in page.locator('[role="dialog"]').inner_text()


def test_settings_are_kept(look):
    page = look()
    talk = begin(page)
    view(page, "Settings")
    page.get_by_role("radio", name="Faithful").click()
    expect(page.locator('[class*="st-key-set_temperature"]')).to_contain_text("0.10")
    name = page.locator('[class*="st-key-set_your_name"] input')
    name.fill("Ming")
    view(page, "Talk")  # without Enter: leaving the box is enough
    page.reload()
    page.wait_for_selector(MESSAGE)
    assert talk in page.url
    view(page, "Settings")
    expect(page.locator('[class*="st-key-set_temperature"]')).to_contain_text("0.10")
    expect(name).to_have_value("Ming")


def test_she_speaks_the_reply_and_stop_silences_her(look, let_go):
    page = look()
    heard = []
    page.on("response", lambda r: heard.append((r.url, r.status)) if "/voice/" in r.url else None)
    talk = begin(page)
    switch_voice_on(page)
    say(page, "held. " + "One more sentence. " * 30, wait=False)
    page.locator(".st-key-player").wait_for()
    page.wait_for_function(
        "() => { const a = document.querySelector('.st-key-player audio') || "
        "[...document.querySelectorAll('.st-key-player *')].map(e => e.shadowRoot && "
        "e.shadowRoot.querySelector('audio')).find(Boolean); return a && a.currentTime > 0.2 }"
    )
    assert heard and f"/voice/{talk}/" in heard[0][0] and heard[0][1] == 200
    page.click(".st-key-stop button")
    expect(page.locator(".st-key-player")).to_have_count(0)
    page.get_by_text("stopped here").wait_for()
