"""Who speaks next: names in unspaced Chinese, everyone, guests who call each other, a budget."""

from __future__ import annotations

import pytest

from elysia.chat.generation.speaker_selection import (
    GroupMember,
    GroupMessage,
    SelectionReason,
    build_name_stops,
    find_named_members,
    select_speaker,
)

ELYSIA = GroupMember("elysia", ("爱莉希雅", "爱莉", "Elysia"))
TANG = GroupMember("xiaotang", ("小棠", "Xiaotang"))
YAN = GroupMember("ayan", ("阿砚",))
EDEN = GroupMember("eden", ("Eden",))
TABLE = [ELYSIA, TANG, YAN, EDEN]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("爱莉你好，Eden在吗", ["elysia", "eden"]),
        ("Eden，爱莉呢？", ["eden", "elysia"]),
        ("爱莉希雅爱莉Elysia", ["elysia"]),
        ("小棠和阿砚都来了", ["xiaotang", "ayan"]),
        ("你觉得小棠的面包怎么样", ["xiaotang"]),
        ("ELYSIA?", ["elysia"]),
        ("xiaotang's bread", ["xiaotang"]),
        ("the garden of Edenia", []),
        ("hidden", []),
        ("wooden", []),
        ("海棠花开了", []),
        ("", []),
    ],
)
def test_names_are_heard_where_they_stand(text, keys):
    assert find_named_members(text, TABLE) == keys


def test_the_longer_of_two_names_is_heard():
    short, long = GroupMember("a", ("小棠",)), GroupMember("b", ("小棠花",))
    assert find_named_members("小棠花来了", [short, long]) == ["b"]
    assert find_named_members("小棠来了", [short, long]) == ["a"]


def test_a_single_sign_is_no_name():
    assert find_named_members("今天好热", [GroupMember("x", ("今",))]) == []


def user(text):
    return GroupMessage(None, text)


def test_whom_the_user_names_answers_in_that_order_and_nobody_else():
    talk = [user("阿砚，小棠呢？")]
    first = select_speaker(talk, TABLE, [], 6)
    assert (first.key, first.reason) == ("ayan", SelectionReason.NAMED_BY_USER)
    assert str(first.text) == "named by the user: 阿砚"
    talk.append(GroupMessage("ayan", "她在烤面包。"))
    second = select_speaker(talk, TABLE, ["ayan"], 6)
    assert second.key == "xiaotang"
    talk.append(GroupMessage("xiaotang", "我来啦！"))
    assert select_speaker(talk, TABLE, ["ayan", "xiaotang"], 6) is None


def test_the_budget_ends_a_round():
    talk = [user("大家好"), GroupMessage("elysia", "你好呀，Eden")]
    assert select_speaker(talk, TABLE, ["elysia"], 1) is None
    assert select_speaker(talk, TABLE, ["elysia"], 2).key != "elysia"


def test_everyone_is_asked_once_the_longest_silent_first():
    talk = [GroupMessage("eden", "hm"), GroupMessage("elysia", "嗯"), user("大家怎么想？")]
    spoken = []
    while choice := select_speaker(talk, TABLE, spoken, 6):
        assert choice.reason == SelectionReason.EVERYONE_ASKED
        spoken.append(choice.key)
        talk.append(GroupMessage(choice.key, "嗯。"))
    assert sorted(spoken) == sorted(guest.key for guest in TABLE)
    assert set(spoken[:2]) == {"xiaotang", "ayan"}


def test_a_guest_calls_another_and_two_do_not_talk_for_ever():
    talk = [user("今天吃什么"), GroupMessage("elysia", "问问小棠吧。")]
    choice = select_speaker(talk, TABLE, ["elysia"], 6)
    assert (choice.key, choice.reason) == ("xiaotang", SelectionReason.NAMED_BY_CHARACTER)
    assert choice.params == {"name": "爱莉希雅"}
    talk.append(GroupMessage("xiaotang", "爱莉想吃什么？"))
    assert select_speaker(talk, TABLE, ["elysia", "xiaotang"], 6) is None


def test_a_short_answer_goes_to_whom_it_answers_and_a_new_topic_to_the_silent():
    talk = [user("阿砚"), GroupMessage("ayan", "要喝茶吗？"), user("要")]
    assert select_speaker(talk, TABLE, [], 2).key == "ayan"
    talk[-1] = user("说起来，昨天山下的集市来了一个卖风筝的老人。")
    assert select_speaker(talk, TABLE, [], 2).key in {"elysia", "xiaotang", "eden"}


def test_an_empty_table_is_silent():
    assert select_speaker([user("hi")], [], [], 2) is None


def test_lines_that_would_be_somebody_elses_end_a_reply():
    stops = build_name_stops([ELYSIA, TANG], "elysia", "阿明")
    assert "\n阿明：" in stops and "\n小棠:" in stops
    assert not any("爱莉" in stop for stop in stops)
