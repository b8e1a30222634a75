"""Tokens to shown text: whole characters only, stop texts never, thoughts apart."""

import random

import pytest

from elysia.models.streaming_text import (
    THOUGHT_MARKS,
    ReasoningFilter,
    ReplyFilter,
    StopTextFilter,
    StreamingDetokenizer,
)

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


def separate(filter_, reply, draw):
    """(text, reasoning) of a reply that comes in random pieces."""
    text = thought = ""
    while reply:
        cut = draw.randint(1, 7)
        piece, reply = filter_.push(reply[:cut]), reply[cut:]
        text, thought = text + piece.text, thought + piece.reasoning
    rest = filter_.rest()
    return text + rest.text, thought + rest.reasoning


MARKED = [
    (
        f"{lead}{mark}\nHm, <b> a </ tag.\n{close}\n\nHello, dear!",
        "",
        "Hello, dear!",
        "Hm, <b> a </ tag.",
    )
    for mark, close in THOUGHT_MARKS.items()
    for lead in ("", "\n ")
]


@pytest.mark.parametrize(
    ("reply", "prompt_end", "text", "thought"),
    [
        *MARKED,
        # gpt-oss
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi",
            "<|start|>assistant", "Hi", "Hm.",
        ),
        ("<|channel|>final<|message|>Hi", "<|start|>assistant", "Hi", ""),
        # Sky-T1
        (
            "<|begin_of_thought|>\n\nHm.<|end_of_thought|>\n\n<|begin_of_solution|>\n\nHi!\n\n"
            "<|end_of_solution|>",
            "", "Hi!", "Hm.",
        ),
        # The prompt has opened the thought, and some models open it again.
        ("Hm.\n</think>\n\nHi", "<|Assistant|><think>\n", "Hi", "Hm."),
        ("<think>\nHm.</think>Hi", "<think>\n", "Hi", "Hm."),
        ("</think>Hi", "<think>", "Hi", ""),
        # ... or has closed an empty one.
        ("Hi", "<think>\n\n</think>\n\n", "Hi", ""),
        ("<think>Hm.</think> Hi", "<think>\n\n</think>\n\n", "Hi", "Hm."),
        # Never closed, cut within the mark, two thoughts, nothing at all.
        ("<think>Hm, and then </thin", "", "", "Hm, and then </thin"),
        ("<think>One.</think>\n<think>Two.</think>\nHi", "", "Hi", "One.Two."),
        ("<think>\n\n</think>\n\nHi", "", "Hi", ""),
        ("<think>Hm.</think>", "", "", "Hm."),
        ("<thi", "", "<thi", ""),
        ("", "", "", ""),
        ("  \n", "", "  \n", ""),
        # Text that speaks of tags.
        ("  Use <think>a</think> here.", "", "  Use <think>a</think> here.", ""),
        ("```\n<think>a</think>\n```", "", "```\n<think>a</think>\n```", ""),
        ("`<think>` opens it.", "", "`<think>` opens it.", ""),
        ("<thinker> [THIN] </think>", "", "<thinker> [THIN] </think>", ""),
        (
            "<think>a</think>A tag:\n```\n<think>b</think>\n```", "",
            "A tag:\n```\n<think>b</think>\n```", "a",
        ),
    ],
)  # fmt: skip
def test_thoughts_are_separated_however_they_arrive(reply, prompt_end, text, thought):
    for seed in range(12):
        result = separate(ReasoningFilter(prompt_end), reply, random.Random(seed))
        assert result == (text, thought)


def test_a_stop_text_ends_the_reply_and_not_the_thought():
    reply = "<think>What would\nUser: say?</think>Hello.\nUser: hi"
    for seed in range(12):
        filter_ = ReplyFilter(["\nUser:"])
        result = separate(filter_, reply, random.Random(seed))
        assert (*result, filter_.stopped) == ("Hello.", "What would\nUser: say?", True)


def test_thoughts_and_text_pass_without_delay():
    filter_ = ReplyFilter(["<|im_end|>"])
    pieces = [
        filter_.push(piece) for piece in ("<think>", "a", " b", "</think>", "\n", "Hi", " you")
    ]
    assert [piece.reasoning for piece in pieces] == ["", "a", " b", "", "", "", ""]
    assert [piece.text for piece in pieces] == ["", "", "", "", "", "Hi", " you"]


def test_plain_text_that_is_continued_holds_no_thoughts():
    filter_ = ReplyFilter([], raw=True)
    assert separate(filter_, "<think>a</think>b", random.Random(0)) == ("<think>a</think>b", "")
