"""What says nothing, and what does although it begins with a greeting."""

from __future__ import annotations

import time

import pytest

from elysia.memory.importance import is_small_talk


@pytest.mark.parametrize(
    "text",
    ["你好！", "早上好呀～", "嗯嗯，好的好的", "谢谢你，晚安。", "謝謝", "Hello there!", "good morning :)",
     "OK, thanks!", "……", "爱莉，在吗？", "🌸🌸"],
)  # fmt: skip
def test_greetings_and_thanks_say_nothing(text):
    assert is_small_talk(text, ["爱莉", "爱莉希雅"])


@pytest.mark.parametrize(
    "text",
    ["你好，我叫小林。", "好的，周三去医院。", "晚安，明天考试。", "Hi, I'm Ann.", "yes, in Leeds", "不行",
     "爱莉在北京吗？", "2024"],
)  # fmt: skip
def test_a_greeting_with_something_behind_it_says_something(text):
    assert not is_small_talk(text, ["爱莉", "爱莉希雅"])


def test_a_strangers_text_takes_no_time():
    began = time.process_time()
    for text in ("好" * 39 + "x", "hi " * 13 + "x", "好的" * 100_000):
        is_small_talk(text)
    assert time.process_time() - began < 1
