"""Parts of rows become the ids that transformers gives to each piece alone, and parts are bounded."""

from __future__ import annotations

import json

import numpy as np
import pytest
from transformers import AutoTokenizer

from elysia.core.errors import DataError
from elysia.core.templates import TEMPLATES, get_template, render_training_pieces
from elysia.data.formats.conversion import RowConverter
from elysia.data.readers.row_reader import DatasetRow, read_rows
from elysia.data.tokenize.arrays import IGNORE
from elysia.data.tokenize.encoder import get_picklable_tokenizer
from elysia.data.tokenize.sample_tokenizer import TokenizeOptions
from elysia.data.tokenize.source_tokenizer import RowBatch, TokenizeJob, split_rows

REAL = {
    "persona/emollm_aiwei.json": "xtuner",
    "persona/emollm_ruozhiba.jsonl": "xtuner",
    "instruct/lf_alpaca_en_demo.json": "alpaca",
    "instruct/lf_alpaca_zh_demo.json": "alpaca",
    "instruct/lf_dpo_zh_demo.json": "preference_sharegpt",
    "instruct/lf_wiki_demo.txt": "pretrain",
    "corpus/zh_modern_niutrans.txt": "pretrain",
}


@pytest.fixture(scope="module")
def qwen(shared_data):
    return AutoTokenizer.from_pretrained(shared_data / "tokenizers/qwen2")


def rows_of(path, count):
    rows = [row for row, _ in zip(read_rows(path), range(count), strict=False)]
    whole = [row for row in rows if "\ufffd" not in json.dumps(row.value, ensure_ascii=False)]
    return RowBatch(str(path), [row.number for row in whole], [row.value for row in whole])


def by_pieces(sample, template, tokenizer):
    """Ids and labels by the plainest way there is."""
    ids, labels = [], []
    for piece in render_training_pieces(sample.messages, template):
        if piece.special == "eos":
            run = [tokenizer.eos_token_id]
        else:
            run = tokenizer(piece.text, add_special_tokens=False)["input_ids"] if piece.text else []
        ids += run
        labels += run if piece.learn else [IGNORE] * len(run)
    return ids, labels


@pytest.mark.parametrize(("file", "format"), REAL.items())
def test_real_rows_are_encoded_as_transformers_encodes_their_pieces(
    shared_data, qwen, file, format
):
    conversion = RowConverter(format, pairs=format.startswith("preference"))
    part = rows_of(shared_data / file, 30)
    names = list(TEMPLATES) if "ruozhiba" in file else ["internlm2_chat"]
    for name in names:
        way = TokenizeOptions(get_template(name), 1 << 20, pairs=conversion.pairs)
        batch = TokenizeJob(conversion, way, get_picklable_tokenizer(qwen), (part.file,))(part)
        rows = (DatasetRow(v, part.file, n) for n, v in zip(part.numbers, part.values, strict=True))
        samples = [sample for unit in conversion.convert(rows) for sample in unit]
        expected = [by_pieces(sample, way.template, qwen) for sample in samples]
        assert batch.tokens.ids.tolist() == [i for ids, _ in expected for i in ids]
        assert batch.tokens.labels.tolist() == [i for _, labels in expected for i in labels]
        assert batch.tokens.lengths.tolist() == [len(ids) for ids, _ in expected]


def test_a_second_sight_of_rows_gives_the_same_ids(shared_data, qwen):
    part = rows_of(shared_data / "persona/emollm_aiwei.json", 20)
    work = TokenizeJob(
        RowConverter("xtuner"), TokenizeOptions(get_template("vicuna"), 1 << 20), qwen, (part.file,)
    )
    first, second = work(part).tokens, work(part).tokens
    assert np.array_equal(first.ids, second.ids) and np.array_equal(first.labels, second.labels)


def test_a_backend_forgets_what_others_set_on_its_tokenizer(qwen):
    backend = get_picklable_tokenizer(qwen)
    texts = ["<|im_end|> a", "b c d"]
    expected = qwen(texts, add_special_tokens=False)["input_ids"]
    qwen(texts, padding=True, truncation=True, max_length=2, split_special_tokens=True)
    assert backend(texts)["input_ids"] == expected
    split = qwen(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert backend(texts, split_special_tokens=True)["input_ids"] == split != expected


def test_a_tokenizer_with_ways_of_its_own_has_no_backend(qwen):
    class OwnTokenizer(type(qwen)):
        def _encode_plus(self, *args, **options):
            return super()._encode_plus(*args, **options)

    own = object.__new__(OwnTokenizer)
    own.__dict__ = qwen.__dict__
    assert get_picklable_tokenizer(own) is None and get_picklable_tokenizer(object()) is None


def test_parts_end_with_their_file_and_when_they_are_long(monkeypatch):
    monkeypatch.setattr("elysia.data.tokenize.source_tokenizer.SAMPLES_PER_BATCH", 3)
    monkeypatch.setattr("elysia.data.tokenize.source_tokenizer.CHARACTERS_PER_BATCH", 100)
    rows = [DatasetRow({}, "a", n, 1) for n in range(1, 5)] + [
        DatasetRow({}, "b", n, 60) for n in range(1, 4)
    ]
    batches = [(part.file, part.numbers) for part in split_rows(rows)]
    assert batches == [("a", [1, 2, 3]), ("a", [4]), ("b", [1, 2]), ("b", [3])]


def test_what_was_read_before_a_fault_comes_before_it():
    def rows():
        yield DatasetRow({"a": 1}, "a", 1)
        raise DataError("line 2")

    parts = split_rows(rows())
    assert next(parts).numbers == [1]
    with pytest.raises(DataError, match="line 2"):
        next(parts)
