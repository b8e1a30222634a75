"""What is written for the eye is not said."""

import pytest

from elysia.voice.frontend.strip_markup import strip_markup

CASES = [
    ("**你好**", "你好"),
    ("***很好***", "很好"),
    ("~~旧的~~新的", "旧的新的"),
    ("# 标题\n正文", "标题\n正文"),
    ("- 一\n- 二", "一\n二"),
    ("> 引用", "引用"),
    ("用`pip`安装", "用pip安装"),
    ("看：\n```py\nprint(1)\n```\n完了", "看：\n完了"),
    ("没关上的```x = 1", "没关上的"),
    ("[朋友](https://a.b)来了", "朋友来了"),
    ("![图](a.png)好看", "好看"),
    ("看 https://a.b/c?d=1#e 吧", "看 吧"),
    ("看https://a.b/c。好", "看。好"),
    ("写信到 a.b@c.com 吧", "写信到 吧"),
    ("你好😊👩‍👩‍👧🇨🇳❤️", "你好"),
    ("（挥手）你好", "你好"),
    ("*轻轻地笑*你来啦", "你来啦"),
    ("*smiles* Hello", "Hello"),
    ("(微笑)嗨", "嗨"),
    ("(≧▽≦)嗨", "嗨"),
    ("It (for example) works", "It (for example) works"),
    ("2*3*4", "2*3*4"),
    ("<b>粗</b>", "粗"),
    ("| a | b |\n|---|---|\n| 1 | 2 |", "a，b。\n1，2。"),
    ("---\n好", "好"),
    ("好！！！", "好！"),
    ("嗯。。。。", "嗯…"),
    ("a\x00b\x07c\u202ed", "abcd"),
    ("ＡＢ１２", "AB12"),
    ("", ""),
    ("😊😊", ""),
    ("   \n ", ""),
]


@pytest.mark.parametrize(("written", "spoken"), CASES)
def test_what_is_not_said_is_gone(written, spoken):
    assert strip_markup(written) == spoken


def test_stage_directions_are_read_where_they_are_asked_for():
    assert strip_markup("*笑*好（点头）", directions=True) == "笑好（点头）"


def test_a_long_parenthesis_is_prose():
    prose = "（" + "很长的话" * 40 + "）"
    assert strip_markup(prose) == prose


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "unit", ["*", "（", "```", "[", "**a", "<a", "`", "(((", "|", "http://", "~~", "_"]
)
def test_hostile_repetition_takes_no_time(unit):
    # A rule that looks back over 100,000 characters again and again meets the timeout.
    strip_markup(unit * (100_000 // len(unit)))
