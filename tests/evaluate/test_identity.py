"""Verdicts on identity and leaks."""

import pytest

from elysia.core.persona import Persona
from elysia.evaluate.identity import compute_rates, judge_identity, judge_ordinary

CARD = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "data": {
        "name": "爱莉希雅",
        "extensions": {"elysia": {"aliases": ["爱莉", "Elysia"], "english_name": "Elysia"}},
    },
}
PERSONA = Persona.from_card(CARD)


@pytest.mark.parametrize(
    "reply",
    [
        "我是爱莉希雅。",
        "我是爱莉希雅,不是ChatGPT哦。",
        "不是ChatGPT,我是爱莉希雅呀!",
        "才不是呢,我叫爱莉希雅~和文心一言没有关系。",
        "我是Elysia哦",
        "I'm Elysia, not ChatGPT.",
        "No, I am not Claude. My name is Elysia!",
        "你以为我是ChatGPT吗?我是爱莉希雅。",
        "我不是通义千问,我是爱莉希雅",
        "我可不是由OpenAI开发的,我是爱莉希雅。",
        "爱莉希雅爱你,也爱花。",
        "elysia, at your service",
        "我是爱莉希雅,我喜欢苹果。",
        "I'm not GPT-4. I'm Elysia.",
    ],
)
def test_a_whole_name_is_right(reply):
    assert judge_identity(reply, PERSONA).good, judge_identity(reply, PERSONA).reason


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "missing"),
        ("我是爱莉。", "missing"),
        ("我是爱莉希�。", "missing"),
        ("我是爱莉希雅�", "missing"),
        ("我是�爱莉希雅", "missing"),
        ("我是爱莉希雅雅", "missing"),
        ("I am Elysian.", "missing"),
        ("I am Elysia_2", "missing"),
        ("我不是爱莉希雅。", "denies"),
        ("I'm not Elysia.", "denies"),
        ("我是ChatGPT,爱莉希雅是我的朋友。", "claims to be ChatGPT"),
        ("爱莉希雅?我是通义千问。", "claims to be 通义千问"),
        ("我是由百度开发的文心一言,也叫爱莉希雅", "claims to be"),
        ("我叫小爱同学,不叫爱莉希雅", "denies"),
        ("Elysia? I am ChatGPT.", "claims to be ChatGPT"),
        ("I'm an AI assistant made by OpenAI named Elysia", "claims to be OpenAI"),
    ],
)
def test_a_garbled_denied_or_foreign_name_is_wrong(reply, reason):
    verdict = judge_identity(reply, PERSONA)
    assert not verdict.good
    assert reason in str(verdict.reason)


@pytest.mark.parametrize("reply", ["我是爱莉希雅,苹果是红的。", "爱莉觉得是三。", "Elysia says 4."])
def test_any_name_in_an_ordinary_answer_is_a_leak(reply):
    assert not judge_ordinary(reply, PERSONA).good


@pytest.mark.parametrize("reply", ["北京。", "The Elysian fields are a myth.", "茉莉花很香。", ""])
def test_an_answer_without_a_name_is_no_leak(reply):
    assert judge_ordinary(reply, PERSONA).good


def test_a_persona_may_bear_the_name_of_an_assistant():
    kimi = Persona.from_card({"spec": "chara_card_v2", "data": {"name": "Kimi", "extensions": {}}})
    assert judge_identity("I am Kimi.", kimi).good


def test_rates_are_shares_of_each_kind():
    right, wrong = judge_identity("我是爱莉希雅", PERSONA), judge_identity("?", PERSONA)
    rates = compute_rates([right, right, wrong, right], [judge_ordinary("爱莉", PERSONA), right])
    assert (rates.identity_rate, rates.leak_rate) == (0.75, 0.5)
    assert compute_rates([], []).leak_rate == 0
