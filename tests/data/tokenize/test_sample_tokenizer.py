"""Datasets as flat arrays: what goes in comes out, and what cannot be learned is refused by file and row."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from elysia.core.errors import DataError
from elysia.core.messages import Message
from elysia.core.templates import get_template, render_training_pieces
from elysia.data.formats.conversion import load_conversations
from elysia.data.schema import IGNORE, Sample
from elysia.data.tokenize.encoder import encode
from elysia.data.tokenize.sample_tokenizer import tokenize_samples

TEMPLATE = get_template("internlm2_chat")


@pytest.fixture(scope="module")
def tokenizer():
    """One token a byte, so that lengths can be counted by hand."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", *letters]
    inner = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(words[:4])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def sample(*words: str, row: int = 1, learn: bool | None = None) -> Sample:
    messages = []
    for index, word in enumerate(words):
        reply = index % 2 == 1
        messages.append(
            Message("assistant" if reply else "user", word, learn=learn if reply else None)
        )
    return Sample(messages, "a.json", row)


def test_samples_come_back_as_they_were_encoded(tokenizer):
    samples = [sample("a", "bb", row=4), sample("c", "d", "e", "f", row=7)]
    tokens = tokenize_samples(samples, TEMPLATE, tokenizer, max_length=200)
    assert len(tokens) == 2 and tokens.origin == (("a.json", 4), ("a.json", 7))
    for (ids, labels), original in zip(tokens, samples, strict=True):
        expected = encode(render_training_pieces(original.messages, TEMPLATE), tokenizer)
        assert (ids.tolist(), labels.tolist()) == (expected.ids, expected.labels)
    assert tokens.ids.dtype == tokens.labels.dtype == np.int32
    assert tokens.lengths.tolist() == [len(ids) for ids, _ in tokens]
    assert tokens.labelled.tolist() == [3, 4]  # the replies' letters and one <|im_end|> each
    assert tokens[-1][0].tolist() == tokens[1][0].tolist()
    with pytest.raises(IndexError):
        tokens[2]


def test_the_system_goes_before_talks_that_have_none_and_never_before_documents(tokenizer):
    own = Sample([Message("system", "own"), *sample("a", "b").messages], "a.json", 1)
    document = Sample([Message("assistant", "text")], "a.json", 3)
    samples = [own, sample("a", "b", row=2), document]
    texts = [
        tokenizer.decode(ids)
        for ids, _ in tokenize_samples(samples, TEMPLATE, tokenizer, system="SYS", max_length=200)
    ]
    assert "own" in texts[0] and "SYS" not in texts[0]
    assert texts[1].startswith("<s><|im_start|>system\nSYS<|im_end|>")
    assert texts[2] == "<s>text</s>"


def test_a_row_that_teaches_nothing_is_refused_with_file_and_row(tokenizer):
    samples = [sample("a", "b"), sample("a", "b", row=2, learn=False)]
    with pytest.raises(DataError, match=r"a\.json, row 2: nothing in this row would be learned"):
        tokenize_samples(samples, TEMPLATE, tokenizer, max_length=200)


def test_a_row_that_is_too_long_is_refused_with_its_length(tokenizer):
    samples = [sample("a", "b"), sample("a", "b" * 100, row=2)]
    tokens = len(encode(render_training_pieces(samples[1].messages, TEMPLATE), tokenizer).ids)
    with pytest.raises(
        DataError, match=rf"row 2: {tokens} tokens, and max_length is 99.*overlong="
    ):
        tokenize_samples(samples, TEMPLATE, tokenizer, max_length=99)
    assert len(tokenize_samples(samples, TEMPLATE, tokenizer, max_length=tokens)) == 2


def test_drop_leaves_long_rows_out_and_counts_them(tokenizer, caplog):
    samples = [sample("a", "b"), sample("a", "b" * 100, row=2), sample("c", "d", row=3)]
    tokens = tokenize_samples(samples, TEMPLATE, tokenizer, max_length=99, overlong="drop")
    assert [row for _, row in tokens.origin] == [1, 3]
    assert (tokens.dropped, tokens.cut) == (1, 0)
    assert "Of 3 rows, 1 were left out" in caplog.text


def test_cut_drops_whole_last_turns_until_the_row_fits(tokenizer, caplog):
    long = sample("a", "b", "c", "d", "e", "f" * 100, row=2)
    tokens = tokenize_samples([long], TEMPLATE, tokenizer, max_length=110, overlong="cut")
    expected = encode(render_training_pieces(long.messages[:4], TEMPLATE), tokenizer)
    assert tokens[0][0].tolist() == expected.ids and tokens[0][1].tolist() == expected.labels
    assert (tokens.dropped, tokens.cut) == (0, 1)
    assert "1 lost their last turns" in caplog.text


def test_cut_keeps_as_many_turns_as_fit_exactly(tokenizer):
    long = sample(*"abcdefgh")
    lengths = [
        len(encode(render_training_pieces(long.messages[:n], TEMPLATE), tokenizer).ids)
        for n in (2, 4, 6)
    ]
    for turns, length in enumerate(lengths, start=1):
        tokens = tokenize_samples([long], TEMPLATE, tokenizer, max_length=length, overlong="cut")
        assert tokens.lengths.tolist() == [length] and tokens.labelled.tolist() == [2 * turns]


def test_cut_leaves_out_what_would_teach_nothing(tokenizer):
    first_is_context = Sample(
        [
            Message("user", "a"),
            Message("assistant", "b", learn=False),
            Message("user", "c"),
            Message("assistant", "d" * 100),
        ],
        "a.json",
        2,
    )
    one_long_turn = sample("a", "b" * 100, row=3)
    samples = [sample("a", "b"), first_is_context, one_long_turn]
    tokens = tokenize_samples(samples, TEMPLATE, tokenizer, max_length=99, overlong="cut")
    assert [row for _, row in tokens.origin] == [1]
    assert (tokens.dropped, tokens.cut) == (2, 0)


def test_nothing_left_is_refused(tokenizer):
    with pytest.raises(DataError, match="No row is left: all 1 are longer"):
        tokenize_samples(
            [sample("a", "b" * 99)], TEMPLATE, tokenizer, max_length=9, overlong="drop"
        )
    with pytest.raises(DataError, match="no row to train on"):
        tokenize_samples([], TEMPLATE, tokenizer, max_length=9)


def test_an_unknown_way_with_long_rows_is_refused(tokenizer):
    with pytest.raises(DataError, match="'error', 'drop', 'cut' or 'truncate'"):
        tokenize_samples([sample("a", "b")], TEMPLATE, tokenizer, max_length=99, overlong="trim")


def test_more_samples_than_one_batch_are_encoded_alike(tokenizer, monkeypatch):
    samples = [sample("a", "b" * n, row=n) for n in range(1, 8)]
    whole = tokenize_samples(samples, TEMPLATE, tokenizer, max_length=200)
    monkeypatch.setattr("elysia.data.tokenize.sample_tokenizer.SAMPLES_PER_BATCH", 3)
    parts = tokenize_samples(samples, TEMPLATE, tokenizer, max_length=200)
    assert parts.origin == whole.origin and parts.sha256() == whole.sha256()


def test_a_subset_keeps_order_origin_and_counts(tokenizer):
    samples = [sample("a", "b" * n, row=n) for n in (1, 2, 3)]
    full = tokenize_samples(samples, TEMPLATE, tokenizer, max_length=200)
    some = full.subset([2, 0, 2])
    assert [row for _, row in some.origin] == [3, 1, 3]
    assert some.labelled.tolist() == [4, 2, 4]
    assert some[0][0].tolist() == full[2][0].tolist()
    assert len(full.subset([])) == 0 and full.subset([]).labelled.tolist() == []


def test_the_hash_follows_what_is_trained_on_and_nothing_else(tokenizer):
    def digest(*samples, template=TEMPLATE, system=""):
        tokens = tokenize_samples(samples, template, tokenizer, max_length=200, system=system)
        return tokens.sha256()

    first = digest(sample("a", "b"))
    assert first == digest(sample("a", "b", row=9)) and len(first) == 64
    others = [
        digest(sample("a", "c")),
        digest(sample("a", "b"), sample("a", "b")),
        digest(sample("a", "b"), template=get_template("vicuna")),
        digest(sample("a", "b"), system="S"),
    ]
    assert len({first, *others}) == 5


def test_the_real_dialogues_are_tokenized_and_two_thirds_learned(shared_data):
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers/qwen2")
    samples = load_conversations(shared_data / "persona/emollm_aiwei.json", "xtuner")[:200]
    tokens = tokenize_samples(samples, TEMPLATE, tokenizer, max_length=2048)
    assert len(tokens) == 200
    assert 0.4 < tokens.labelled.sum() / tokens.lengths.sum() < 0.8
    assert all((labels[labels != IGNORE] == ids[labels != IGNORE]).all() for ids, labels in tokens)
