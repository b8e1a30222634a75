import json

import pytest

from elysia.core.errors import DataError
from elysia.core.templates import get_template
from elysia.data.formats.conversion import RowConverter, iter_sample_groups
from elysia.data.tokenize.encoder import IGNORE
from elysia.data.tokenize.sample_tokenizer import tokenize_samples
from elysia.models import loading

TURN = {
    "Human": "<|Human|>: What is 2 + 2?<eoh>\n",
    "Commands": "<|Commands|>: Calculate(2+2)<eoc>\n",
    "Tool Responses": "<|Results|>:\n4<eor>\n",
    "MOSS": "<|MOSS|>: MOSS says four.<eom>\n",
}


def moss(tmp_path, turns=1, **more):
    row = {"meta_instruction": "You are MOSS.\n", "num_turns": turns,
           "chat": {f"turn_{n}": TURN for n in range(1, turns + 1)}, **more}  # fmt: skip
    path = tmp_path / "moss.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path


def load_ready(path, name, **options):
    return [sample for (sample,) in iter_sample_groups(path, RowConverter(name, **options))]


def tokens_of(samples, tokenizer, **options):
    return tokenize_samples(
        samples, get_template("moss_sft"), tokenizer, **{"max_length": 2048} | options
    )


def test_moss_learns_all_but_the_instruction_and_what_tools_answered(tmp_path, tiny_tokenizer):
    words = loading.load_tokenizer(tiny_tokenizer)
    samples = load_ready(moss(tmp_path), "moss_sft", bot_name="Elysia")
    ids, labels = tokens_of(samples, words)[0]
    learned = words.decode([i for i, label in zip(ids, labels, strict=True) if label != IGNORE])
    assert "You are" not in learned and "\n4" not in learned
    assert "<|Results|>:<eor>" in learned and "Elysia says four." in learned
    assert "What is 2 + 2?" in learned and "MOSS says" not in words.decode(ids)


def test_moss_rows_that_are_too_long_lose_whole_last_turns(tmp_path, tiny_tokenizer):
    words = loading.load_tokenizer(tiny_tokenizer)
    length = len(tokens_of(load_ready(moss(tmp_path), "moss_sft"), words).ids)
    three = load_ready(moss(tmp_path, turns=3), "moss_sft")
    cut = tokens_of(three, words, max_length=length + 5, overlong="cut")
    assert len(cut.ids) == length and cut.cut == 1


@pytest.mark.parametrize(
    ("change", "what"),
    [({"chat": {}}, "turn_1"), ({"num_turns": "x"}, "num_turns"), ({"chat": None}, "'chat'")],
)
def test_a_damaged_moss_row_is_named(tmp_path, change, what):
    with pytest.raises(DataError, match=rf"moss\.jsonl, row 1: .*{what}"):
        load_ready(moss(tmp_path, **change), "moss_sft")


def test_tokenized_rows_are_taken_as_they_are(tmp_path, tiny_tokenizer):
    path = tmp_path / "part.bin"
    path.write_text('{"tokens": [-20, -21, 30, 31]}\n{"tokens": [-20, 30]}\n')
    samples = load_ready(path, "tokens", min_length=3)
    words = loading.load_tokenizer(tiny_tokenizer)
    tokens = tokens_of(samples, words)
    assert len(tokens) == 1
    assert tokens.ids.tolist() == [20, 21, 30, 31]
    assert tokens.labels.tolist() == [IGNORE, IGNORE, 30, 31]
    with pytest.raises(DataError, match="no row has 9 tokens"):
        load_ready(path, "tokens", min_length=9)


def test_tokens_of_another_tokenizer_are_refused(tmp_path, tiny_tokenizer):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"input_ids": [5, 999999]}\n')
    with pytest.raises(DataError, match="row 1: token 999999"):
        tokens_of(load_ready(path, "tokens"), loading.load_tokenizer(tiny_tokenizer))
    path.write_text('{"input_ids": [5, 6], "labels": [5]}\n')
    with pytest.raises(DataError, match="2 numbers and 'labels' 1"):
        load_ready(path, "tokens")


def test_truncating_keeps_the_beginning_and_drops_what_then_teaches_nothing(
    tmp_path, tiny_tokenizer
):
    words = loading.load_tokenizer(tiny_tokenizer)
    path = tmp_path / "part.bin"
    path.write_text('{"tokens": [-20, 30, 31, 32]}\n{"tokens": [-20, -21, -22, 30]}\n')
    tokens = tokens_of(load_ready(path, "tokens"), words, max_length=3, overlong="truncate")
    assert tokens.ids.tolist() == [20, 30, 31] and (tokens.cut, tokens.dropped) == (1, 1)


def test_lines_of_messages_are_conversations(tmp_path):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(talk) + "\n")
    assert [m.text for m in load_ready(path, "openai_lines")[0].messages] == ["a", "b"]
    path.write_text("{\n")
    with pytest.raises(DataError, match="line 1: not JSON"):
        load_ready(path, "openai_lines")
