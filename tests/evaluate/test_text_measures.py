"""Measures of replies as text."""

import pytest

from elysia.evaluate import text_measures

OWN = [f"嘻嘻，今天的第{n}朵花开啦，要不要来看看呀～" for n in range(40)]
OTHERS = [f"根据资料，第{n}条规定于去年生效，请参阅附件。" for n in range(40)]


def test_a_voice_is_told_from_others():
    classifier = text_measures.StyleClassifier(OWN, OTHERS)
    assert classifier.accuracy > 0.95
    assert classifier.share(["嘻嘻，花房里又香又暖，来嘛～", "请参阅附件第三条规定。"]) == 0.5


def test_catchphrases_are_those_that_mark_the_character():
    phrases = text_measures.find_catchphrases(OWN, OTHERS)
    assert any("嘻嘻" in phrase for phrase in phrases)
    assert not any("规定" in phrase for phrase in phrases)
    assert text_measures.count_per_line(["嘻嘻"], OWN) == 1.0
    assert (
        text_measures.measure_rate_distance(
            text_measures.count_per_line(phrases, OWN * 2),
            text_measures.count_per_line(phrases, OWN),
        )
        == 0
    )
    assert (
        text_measures.measure_rate_distance(0.0, 1.0) > 3
        and text_measures.measure_rate_distance(8.0, 1.0) > 2
    )


def test_the_longest_copied_run_is_found():
    training = ["abcdefgh", "12345678"]
    assert text_measures.measure_longest_copies(
        ["xxcdefyy", "zz", "345678abc", "gh12"], training
    ) == [4, 0, 6, 2]


def test_replies_equal_to_the_truth_have_the_highest_chrf():
    assert text_measures.compute_chrf(OWN, OWN) == pytest.approx(100)
    assert text_measures.compute_chrf(OTHERS, OWN) < 20


def test_variety_counts_different_grams():
    assert text_measures.compute_distinct(["a b c d"], 2) == 1
    assert text_measures.compute_distinct(["好的好的", "好的"], 1) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "reply, wrong",
    [("好的。\nUser: 那么", True), ("好的。\n用户：走吗", True), ("<|im_start|>user", True), ("你说：走吧。", False), ("我问你呀", False)],
)  # fmt: skip
def test_speaking_for_the_user_is_seen(reply, wrong):
    assert text_measures.speaks_for_user(reply) is wrong


def test_loops_are_seen():
    assert text_measures.has_loop("我爱你我爱你我爱你我爱你")
    assert not text_measures.has_loop("好好学习，天天向上。哈哈哈哈")
