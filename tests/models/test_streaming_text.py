"""Tokens to shown text: whole characters only, stop texts never."""

import random

import pytest

from elysia.models.streaming_text import StopTextFilter, StreamingDetokenizer

TEXT = "你好🌸, Elysia!\n café — 爱莉希雅"


def bytes_decode(ids):
    """A byte-level tokenizer: a token is a byte."""
    return bytes(ids).decode("utf-8", errors="replace")


def test_no_delta_ever_holds_a_broken_character():
    detokenizer = StreamingDetokenizer(bytes_decode)
    deltas = [detokenizer.push(byte) for byte in TEXT.encode()]
    assert "".join(deltas) + detokenizer.rest() == TEXT
    assert not any("\ufffd" in delta for delta in deltas)
    assert len([delta for delta in deltas if delta]) == len(TEXT)


def test_an_unfinished_character_at_the_end_is_dropped():
    detokenizer = StreamingDetokenizer(bytes_decode)
    shown = "".join(detokenizer.push(byte) for byte in "好".encode() + "好".encode()[:2])
    assert shown + detokenizer.rest() == "好"


def test_wrong_bytes_in_the_middle_do_not_swallow_what_follows():
    detokenizer = StreamingDetokenizer(bytes_decode)
    ids = [*b"a", 0xFF, 0xFF, *b"b"]
    shown = "".join(detokenizer.push(byte) for byte in ids) + detokenizer.rest()
    assert shown == bytes_decode(ids)


def test_a_leading_space_that_a_decoder_drops_comes_back_inside():
    """SentencePiece: pieces carry their space, the decoder strips the first one."""
    pieces = ["▁Hello", "▁world", "▁", "again"]
    detokenizer = StreamingDetokenizer(
        lambda ids: "".join(pieces[i] for i in ids).replace("▁", " ").removeprefix(" ")
    )
    assert "".join(detokenizer.push(i) for i in range(4)) == "Hello world again"


def test_bytes_that_are_decoded_as_one_run_are_waited_for():
    """ByteFallback: one wrong byte makes every byte of its run broken."""

    def decode(ids):
        try:
            return bytes(ids).decode()
        except UnicodeDecodeError:
            return "\ufffd" * len(ids)

    detokenizer = StreamingDetokenizer(decode)
    deltas = [detokenizer.push(byte) for byte in "爱莉希雅".encode()]
    assert "".join(deltas) == "爱莉希雅"


def test_the_window_stays_short():
    longest = 0

    def decode(ids):
        nonlocal longest
        longest = max(longest, len(ids))
        return bytes_decode(ids)

    detokenizer = StreamingDetokenizer(decode)
    for byte in TEXT.encode() * 20:
        detokenizer.push(byte)
    assert longest <= 12


@pytest.mark.parametrize("seed", range(20))
def test_a_stop_text_is_hidden_however_it_arrives(seed):
    stops, reply = ("<|im_end|>", "###"), "你好 <|im_ <b> ## ok<|im_end|>never"
    draw, filter_, shown = random.Random(seed), StopTextFilter(stops), ""
    while reply and not filter_.stopped:
        cut = draw.randint(1, 5)
        shown += filter_.push(reply[:cut])
        reply = reply[cut:]
    assert filter_.stopped
    assert shown + filter_.rest() == "你好 <|im_ <b> ## ok"


def test_the_beginning_of_a_stop_text_that_never_comes_is_shown_at_the_end():
    filter_ = StopTextFilter(["<|im_end|>"])
    assert filter_.push("ok <|im") == "ok "
    assert filter_.rest() == "<|im"


def test_the_first_of_two_stop_texts_wins():
    filter_ = StopTextFilter(["bb", "a"])
    assert filter_.push("xabb") == "x"


def test_without_stop_texts_everything_passes_at_once():
    assert StopTextFilter(["", ""]).push("abc") == "abc"
