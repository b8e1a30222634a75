"""The rolling summary: what matters, dated, within its budget, in the talk's own words."""

from __future__ import annotations

from elysia.memory.summary import format_summary, parse_summary, summarize

BUDGET = 60


def count(text: str) -> int:
    return len(text)


def test_facts_and_decisions_stay_and_greetings_go(say):
    turns = [
        say("你好呀"), say("晚上好～", "assistant"), say("今天天气一般。我决定五月搬到杭州。"),
        say("我养了一只橘猫，叫年糕"), say("那太好啦", "assistant"), say("你觉得呢？"),
    ]  # fmt: skip
    text = format_summary(summarize([], turns, budget=200, count=count))
    assert "我决定五月搬到杭州" in text and "年糕" in text
    assert "你好" not in text and "你觉得" not in text
    assert all(line.startswith("2024-05-0") for line in text.splitlines())


def test_every_sentence_was_said(say):
    turns = [
        say(f"I decided number {n} on May {n} with Grace, and I was happy about it.")
        for n in range(1, 9)
    ]
    spoken = " ".join(turn.text for turn in turns)
    for sentence in summarize([], turns, budget=400, count=count):
        assert sentence.text.rstrip("…") in spoken


def test_the_budget_holds_over_many_updates_and_what_weighs_most_stays(say):
    summary = summarize([], [say("我对花生过敏，我妈妈叫陈桂芳")], budget=BUDGET * 4, count=count)
    for n in range(12):
        turns = [say(f"第{n}天，我去了公园散步"), say(f"今天的第{n}顿饭很好吃")]
        summary = summarize(summary, turns, budget=BUDGET * 4, count=count)
        assert count(format_summary(summary)) <= BUDGET * 4
    assert "花生" in format_summary(summary)
    assert summarize(summary, [], budget=0, count=count) == []


def test_what_is_said_again_stands_once_and_the_order_is_that_of_the_talk(say):
    first = summarize(
        [],
        [say("I moved to Leeds in May"), say("My sister Grace is proud")],
        budget=500,
        count=count,
    )
    again = summarize(first, [say("I moved to Leeds in May!")], budget=500, count=count)
    assert [sentence.text for sentence in again] == [
        "My sister Grace is proud",
        "I moved to Leeds in May",
    ]


def test_of_a_fact_that_changed_the_newer_one_stays(say):
    first = summarize([], [say("我住在北京"), say("我打算养一只猫")], budget=500, count=count)
    text = format_summary(summarize(first, [say("我搬到上海了")], budget=500, count=count))
    assert "上海" in text and "北京" not in text and "养一只猫" in text


def test_the_same_turns_give_the_same_summary_and_its_text_reads_back(say):
    turns = [say("I decided to leave Leeds on 3 May. Tom: agreed."), say("I was sad and cried")]
    summary, two = (summarize([], turns, budget=300, count=count) for _ in range(2))
    assert summary == two
    back = parse_summary(format_summary(summary))
    assert [(sentence.day, sentence.speaker, sentence.text) for sentence in back] == [
        (sentence.day, sentence.speaker, sentence.text) for sentence in summary
    ]
