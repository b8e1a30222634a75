"""The page in a browser: talk, stop, come back, branch; what two people say stays apart."""

from __future__ import annotations

import re

import pytest

from tests.web.steps import MESSAGE, act, begin, expect, idle, ready, save, say, texts, upload

pytestmark = pytest.mark.browser


def test_she_answers(look):
    page = look()
    begin(page)
    say(page, "hello there")
    assert texts(page)[1:] == ["hello there", "heard: hello there"]
    expect(page.locator(".st-key-talks")).to_contain_text("爱莉希雅: hello there")


def test_stop_keeps_what_was_written(look, let_go):
    page = look()
    begin(page)
    say(page, "held " + "word " * 200, wait=False)
    page.get_by_text("heard: held word").wait_for()
    page.click(".st-key-stop button")
    page.get_by_text("stopped here").wait_for()
    idle(page)
    written = texts(page)[-1]
    assert written.startswith("heard: held word") and len(written) < 700
    say(page, "go on")
    assert texts(page)[-1] == "heard: go on"


def test_a_refresh_in_mid_reply_finds_it_again_and_sees_it_finish(look, let_go):
    page = look()
    begin(page)
    text = "held " + " ".join(f"n{number}" for number in range(90))
    say(page, text, wait=False)
    page.get_by_text("heard: held n0 n1").wait_for()
    page.reload()
    page.locator(".st-key-stop").wait_for()  # it is still being written
    page.get_by_text("heard: held n0 n1").wait_for()
    let_go()
    idle(page)
    assert texts(page)[-1] == "heard: " + text


def test_two_windows_see_the_same_reply_grow(look, let_go):
    first = look()
    talk = begin(first)
    second = look(f"/?talk={talk}")
    second.wait_for_selector(MESSAGE)
    say(first, "held " + "a b c d " * 20 + "end", wait=False)
    second.reload()
    for window_page in (first, second):
        window_page.get_by_text("heard: held a b c d").wait_for()
        assert "end" not in texts(window_page)[-1]
    let_go()
    idle(first)
    idle(second)
    assert texts(first) == texts(second) and texts(first)[-1].endswith("a b c d end")


def test_an_edited_message_is_a_branch_and_the_old_one_is_a_swipe_away(look):
    page = look()
    begin(page)
    say(page, "old words")
    act(page, "edit", 1)
    page.locator('[class*="st-key-words_"] textarea').fill("new words")
    save(page, "save_edit")
    page.get_by_text("heard: new words").wait_for()
    idle(page)
    assert texts(page)[1:] == ["new words", "heard: new words"]
    expect(page.locator(MESSAGE).nth(1)).to_contain_text("2/2")
    act(page, "before", 1)
    page.get_by_text("heard: old words").wait_for()
    assert texts(page)[1:] == ["old words", "heard: old words"]


def test_a_reply_is_made_anew_beside_the_first_and_undo_and_delete_step_back(look):
    page = look()
    begin(page)
    say(page, "one")
    say(page, "two")
    act(page, "again")
    expect(page.locator(MESSAGE).last).to_contain_text("2/2")
    page.click(".st-key-menu button")
    page.click(".st-key-undo button")
    expect(page.locator(MESSAGE)).to_have_count(3)
    assert texts(page)[1:] == ["one", "heard: one"]
    page.keyboard.press("Escape")
    act(page, "delete", 1)
    expect(page.locator(MESSAGE)).to_have_count(1)


def test_a_model_that_goes_away_keeps_the_words_and_a_button_tries_again(look, site):
    page = look()
    begin(page)
    (site[1] / "gone").touch()
    say(page, "please fail")
    expect(page.locator(MESSAGE).last).to_contain_text("does not answer")
    assert texts(page)[1] == "please fail" and "I was just about" in texts(page)[2]
    (site[1] / "gone").unlink()
    page.click('[class*="st-key-try_"] button:visible')
    page.get_by_text("heard: please fail").wait_for()


def test_another_language_and_what_is_said_stays(look):
    page = look()
    begin(page)
    say(page, "hello")
    page.locator(".st-key-language").get_by_text("中文").click()
    expect(page.locator(".st-key-new_talk")).to_contain_text("新的对话")
    assert texts(page)[-1] == "heard: hello"
    page.reload()
    expect(page.locator(".st-key-new_talk")).to_contain_text("新的对话")
    chinese = look(locale="zh-CN")
    expect(chinese.locator("h2")).to_have_text("今天想和谁聊？")


def test_on_a_phone_nothing_is_wider_than_the_screen(look):
    page = look(viewport={"width": 375, "height": 720}, has_touch=True, is_mobile=True)
    wide = "document.querySelector('[data-testid=stMain]').scrollWidth"
    page.wait_for_selector(".st-key-begin_elysia button")
    assert page.evaluate(wide) <= 375
    begin(page)
    say(page, "a-word-without-an-end-" * 20)
    assert page.evaluate(wide) <= 375
    page.get_by_role("radio", name="Settings").click()
    page.locator('[class*="st-key-set_temperature"]').wait_for()
    assert page.evaluate(wide) <= 375


def test_a_group_speaks_in_order_and_says_why(look):
    page = look()
    for character in ("elysia", "xiaotang"):
        page.locator(f".st-key-seat_{character} label").click()
    page.click(".st-key-start button")
    page.wait_for_selector(MESSAGE)
    say(page, "大家好！")
    expect(page.locator(MESSAGE)).to_have_count(4)
    idle(page)
    shown = texts(page)
    assert "everyone was asked" in page.locator(MESSAGE).nth(2).inner_text()
    assert {shown[2].split()[0], shown[3].split()[0]} == {"爱莉希雅", "小棠"}


def test_talks_are_found_renamed_exported_and_deleted(look, tmp_path):
    page = look()
    talk = begin(page)
    say(page, "a very rare zebra")
    page.click(".st-key-menu button")
    page.locator('[class*="st-key-title_"] input').fill("Of stripes")
    page.keyboard.press("Enter")
    expect(page.locator("h4", has_text="Of stripes")).to_be_visible()
    ready(page)
    page.keyboard.press("Escape")
    expect(page.locator(".st-key-export")).to_be_hidden()
    page.click(".st-key-menu button")
    with page.expect_download() as download:
        page.click(".st-key-export button")
    rows = download.value.path().read_text("utf-8").splitlines()
    assert "Of stripes" in rows[0] and "a very rare zebra" in rows[2] and len(rows) == 4
    page.keyboard.press("Escape")
    page.locator(".st-key-search input").fill("rare zebra")
    page.keyboard.press("Enter")
    expect(page.locator(".st-key-talks button")).to_have_count(1)
    page.click(".st-key-menu button")
    page.click(".st-key-delete_talk button")
    page.wait_for_selector(".st-key-gallery")
    assert talk not in page.url
    expect(page.locator(".st-key-talks button")).to_have_count(0)
    page.locator(".st-key-search input").fill("")
    page.keyboard.press("Enter")
    ready(page)
    page.locator(".st-key-import_talk summary").click()
    file = tmp_path / "talk.jsonl"
    file.write_text("\n".join(rows))
    upload(page, "talk_file", file)
    page.get_by_text("heard: a very rare zebra").wait_for()
    assert re.search("talk=", page.url) and talk not in page.url
