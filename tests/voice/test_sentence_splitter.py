"""Sentences of a stream: where they end, what stays together, whatever the pieces."""

import pytest

from elysia.voice.sentence_splitter import (
    MAX_SENTENCE_CHARS,
    StreamingSentenceSplitter,
    iter_sentences,
    split_sentences,
)

TEXT = (
    "好的，*她笑了笑。然后说。*我们走吧！看：```py\nx = 1。\n```\n完了。（点头。走开。）价格是3,000元，约3.5折。"
    "Mr. Li said “hi.” OK?!他说：“走。”\n- 一\n- 二……然后~~~\ncode\n~~~再见"
)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("你好。再见！", ["你好。", "再见！"]),
        ("真的？！好……吧", ["真的？！", "好……", "吧"]),
        ("他说：“走。”然后走了。", ["他说：“走。”", "然后走了。"]),
        ("It is 3.5 kg. Mr. Li, e.g. me.", ["It is 3.5 kg.", "Mr. Li, e.g. me."]),
        ("第一行\n第二行", ["第一行", "第二行"]),
        ("（他走了。又来了。）你好。", ["（他走了。又来了。）", "你好。"]),
        ("前```a。b。```后", ["前", "后"]),
        ("没完的```a。b。", ["没完的"]),
        ("", []),
        ("😊。！\n\n", []),
    ],
)
def test_a_text_is_cut_where_a_reader_would_breathe(text, sentences):
    assert split_sentences(text) == sentences


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_the_pieces_of_a_stream_change_nothing(size):
    pieces = [TEXT[at : at + size] for at in range(0, len(TEXT), size)]
    assert list(iter_sentences(pieces)) == list(iter_sentences([TEXT]))


def test_the_first_clause_ends_at_a_comma_and_later_ones_do_not():
    assert list(iter_sentences(["我在听呢，你慢慢说，不急，"])) == [
        "我在听呢，",
        "你慢慢说，不急，",
    ]
    assert list(iter_sentences(["嗯，我在，好吗。"])) == [
        "嗯，我在，好吗。"
    ]  # too short to start on


def test_a_number_is_not_cut_in_the_middle_of_a_stream():
    assert list(iter_sentences(["一共是3", ",", "000元。"])) == ["一共是3,000元。"]


def test_a_sentence_comes_before_the_next_one_is_written():
    sentences = StreamingSentenceSplitter()
    assert sentences.push("你好啊") == []
    assert sentences.push("。我") == ["你好啊。"]


def test_a_text_without_an_end_is_cut_at_a_comma_and_loses_nothing():
    text = "很长的话，" * 200
    parts = split_sentences(text)
    assert "".join(parts) == text
    assert max(map(len, parts)) <= MAX_SENTENCE_CHARS


@pytest.mark.timeout(30)
@pytest.mark.parametrize("unit", ["好。", "*", "（", "```", "a", "，", ".", "\n", "```a```", "好"])
def test_a_hundred_thousand_characters_take_no_time(unit):
    split_sentences(unit * (100_000 // len(unit)))


def test_an_open_code_block_is_not_kept_in_memory():
    sentences = StreamingSentenceSplitter()
    for _ in range(1000):
        assert sentences.push("```x" if _ == 0 else "y" * 100) == []
    assert len(sentences._text) < 10
