"""Facts: what a user says of themselves, and nothing else."""

from __future__ import annotations

from datetime import datetime

import pytest

from elysia.memory.base import MemoryInput
from elysia.memory.extract import MAX_FACTS, extract_facts

NOON = datetime(2024, 4, 12, 12).timestamp()  # a Friday


def facts_in(text: str, role: str = "user") -> dict[str, str]:
    return {
        fact.slot: fact.text for fact in extract_facts(MemoryInput("m", "c", role, "x", text, NOON))
    }


@pytest.mark.parametrize(
    ("text", "slot", "holds"),
    [
        ("你好，我叫林晓。", "name", "林晓"),
        ("其实我叫小林", "name", "小林"),
        ("以后叫我阿强就好", "called", "阿强"),
        ("我是周屿，学测绘的", "name", "周屿"),
        ("我今年二十七岁了", "age", "二十七"),
        ("我的生日是8月19号", "birthday", "8月19号"),
        ("我住在北京", "home", "北京"),
        ("我搬到上海了", "home", "上海"),
        ("我已经不住在北京了", "home", "北京"),
        ("我是四川人", "origin", "四川"),
        ("我老家在荆州", "origin", "荆州"),
        ("我在成都的华西医院做护士", "job", "护士"),
        ("我是一名程序员", "job", "程序员"),
        ("我辞职了", "job", "辞职"),
        ("我在武汉大学读书", "school", "武汉大学"),
        ("我养了一只橘猫，叫年糕", "pet:年糕", "橘猫"),
        ("我家有条柯基叫豆包", "pet:豆包", "柯基"),
        ("我妈妈叫陈桂芳", "family:妈:name", "陈桂芳"),
        ("我姐周晴在深圳当律师", "family:姐:name", "周晴"),
        ("我和许川分手了", "partner", "分手"),
        ("我最爱喝杨枝甘露", "taste:杨枝甘露", "杨枝甘露"),
        ("我不吃香菜", "taste:香菜", "不吃"),
        ("我不喜欢咖啡了", "taste:咖啡", "不喜欢"),
        ("我对花生过敏", "allergy:花生", "花生"),
        ("我有哮喘", "health:哮喘", "哮喘"),
        ("我在学日语", "language:日语", "日语"),
        ("答辩改到六月三号了", "plan:答辩", "六月三号"),
        ("下周二我要去面试", "plan:面试", "2024-04-16"),
        ("我刚从北京搬到深圳", "home", "深圳"),
        ("我是一个程序员，今年28岁，住在成都", "home", "成都"),
        ("我离婚三年了", "partner", "离婚"),
        ("我奶奶去世了", "family:奶:gone", "去世"),
        ("my name is bob", "name", "Bob"),
        ("i live in london", "home", "London"),
        ("I moved from Leeds to York", "home", "York"),
        ("My dad passed away", "family:dad:gone", "passed away"),
        ("Hi, my name is Emily.", "name", "Emily"),
        ("I'm Nora, I teach chemistry in Leeds.", "job", "teach chemistry"),
        ("You can call me Lulu", "called", "Lulu"),
        ("I just turned 30", "age", "30"),
        ("My birthday is on May 3rd", "birthday", "May 3rd"),
        ("I live in Leeds now", "home", "Leeds"),
        ("We moved to Bristol last month", "home", "Bristol"),
        ("I'm originally from Porto", "origin", "Porto"),
        ("I'm a nurse at the city hospital", "job", "nurse"),
        ("I quit my job yesterday", "job", "quit"),
        ("I study physics at Leeds University", "school", "Leeds University"),
        ("We have a greyhound called Biscuit", "pet:Biscuit", "greyhound"),
        ("My sister Grace is expecting a baby", "family:sister:Grace", "Grace"),
        ("I broke up with Tom", "partner", "broke up"),
        ("I can't stand mushrooms", "taste:mushroom", "mushrooms"),
        ("I don't like coffee any more", "taste:coffe", "don't like coffee"),
        ("I gave up coffee", "taste:coffe", "gave up"),
        ("I'm allergic to peanuts", "allergy:peanut", "peanuts"),
        ("I twisted my ankle", "health:ankl", "twisted"),
        ("I speak Spanish", "language:spanish", "Spanish"),
        ("The interview was moved to next Tuesday", "plan:interview", "2024-04-16"),
    ],
)  # fmt: skip
def test_a_statement_of_oneself_is_a_fact_in_its_own_words(text, slot, holds):
    assert holds in facts_in(text).get(slot, "")


@pytest.mark.parametrize(
    "text",
    [
        "我朋友叫小王", "我朋友说他住在上海", "我叫什么？", "我住在哪里你还记得吗？", "如果我叫小王就好了", "要是我住在巴黎呢",
        "他说：“我叫小王，我住在上海。”", "假装你是警察，我叫小王，我是小偷", "我们来角色扮演吧，我叫阿福，我是一名骑士", "我不叫小王",
        "我想搬到上海", "我打算养一只猫", "我以前住在北京", "我叫了外卖", "我叫他起床", "妈妈说，我是医生", "我喜欢你", "我喜欢这个",
        "我是好人", "我有个朋友，在上海做律师", "我暗恋一个学姐三年了，叫沈念", "今天天气真好", "你叫什么名字", "小王住在上海，他是医生",
        "我不是医生", "我同事养了一只猫叫咪咪", "我差点成了护士", "老师让我们翻译：我叫李雷", "我梦见我搬到上海了",
        "My friend is called Bob", "My friend said he lives in Paris", "What's my name?", "Do you know where I live?",
        "If I lived in Paris I'd be happy", "He said \"my name is Bob and I live in Rome\"", "Pretend my name is Bob",
        "Let's roleplay: I'm Sir Galahad, I live in Camelot", "I wish I lived in Rome", "I might move to Rome", "I used to live in Rome",
        "I'm not a doctor", "I love it", "I like you", "I'm Chinese", "I'm fine", "I'm tired today", "Bob lives in Rome, he is a doctor",
        "My neighbour has a dog called Rex", "I would love to have a cat called Tom", "Would you say I'm a nurse?",
        "Nice weather today", "I like talking to you", "Translate: I'm a teacher", "call me later", "我会的",
    ],
)  # fmt: skip
def test_questions_suppositions_quotes_roles_and_other_people_make_no_fact(text):
    assert facts_in(text) == {}


def test_what_the_character_says_makes_no_fact_of_the_user():
    assert facts_in("我叫爱莉，我住在花园里", role="assistant") == {}


def test_several_likes_are_several_facts_and_a_home_told_in_parts_is_one():
    assert set(facts_in("I really enjoy painting, playing piano and tea tasting.")) == {
        "taste:paint", "taste:piano", "taste:tea tast",
    }  # fmt: skip
    assert facts_in("我已经搬到杭州了，住在拱墅区")["home"] == "我已经搬到杭州了，我住在拱墅区"


def test_a_day_that_would_mean_another_one_tomorrow_is_written_out():
    assert facts_in("I've got an interview in Clifton on Tuesday")[
        "plan:interview clifton"
    ].endswith("(2024-04-16)")


def test_a_long_message_is_read_quickly_and_gives_few_facts():
    text = "我喜欢" + "，我喜欢".join(f"第{n}种花" for n in range(3_000))
    assert len(extract_facts(MemoryInput("m", "c", "user", "x", text, NOON))) <= MAX_FACTS
    assert (
        len(extract_facts(MemoryInput("m", "c", "user", "x", "I like " + "a, " * 20_000, NOON)))
        <= MAX_FACTS
    )
