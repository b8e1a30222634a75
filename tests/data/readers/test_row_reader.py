"""Dataset files: good ones in three kinds, and a sentence with file and row for every bad one."""

from __future__ import annotations

import json
import logging
import tracemalloc

import pytest

from elysia.core.errors import DataError
from elysia.data.formats.conversion import load_conversations
from elysia.data.formats.registry import FORMATS
from elysia.data.readers.row_reader import read_rows

ROWS = [{"input": "你好", "output": "嗨"}, {"input": "晚安\u2028", "output": "好梦"}]


def as_json(rows=ROWS):
    return json.dumps(rows, ensure_ascii=False, indent=1)


def as_lines(rows=ROWS):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", as_json()),
        ("a.JSON", as_json()),
        ("a.jsonl", as_lines()),
        ("blank.jsonl", "\n" + as_lines().replace("\n", "\r\n\n")),
        ("a.csv", "input,output\n你好,嗨\n\n晚安\u2028,好梦\n"),
        ("quoted.csv", 'output,input\r\n"嗨",你好\r\n"好梦","晚安\u2028"\r\n'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name, text, encoding):
    path = write(tmp_path, name, text, encoding)
    rows = list(read_rows(path))
    assert [row.value for row in rows] == ROWS
    assert [row.number for row in rows] == [1, 2]
    assert {row.file for row in rows} == {str(path)}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("a.jsonl", as_json(), "JSON array, not lines"), ("a.json", as_lines(), "JSON lines")],
)
def test_json_under_the_wrong_ending_is_read_with_a_warning(tmp_path, caplog, name, text, message):
    path = write(tmp_path, name, text)
    assert [row.value for row in read_rows(path)] == ROWS
    assert message in caplog.text and str(path) in caplog.text


def test_right_files_are_read_without_a_word(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    assert len(load_conversations(write(tmp_path, "a.json", as_json()), "default")) == 2
    assert not caplog.text


BAD = [
    ("a.json", "", "the file is empty"),
    ("a.json", " \n", "the file is empty"),
    ("a.json", "[]", "holds no rows"),
    ("a.jsonl", "\n\n", "holds no rows"),
    ("a.csv", "input,output\n", "holds no rows"),
    ("a.json", '[{"a": 1},\n {"a" 2}]', "line 2, column 7: not JSON"),
    ("a.json", '[{"a": 1},\n {"a":', "ends in the middle of its JSON"),
    ("a.json", '[{"a": "cut he', "ends in the middle of its JSON"),
    ("a.json", '{"data": [{"a": 1}]}', "are its rows under 'data'"),
    ("a.json", '"text"', "holds a text"),
    ("a.json", '[{"a": 1}, [2]]', "row 2: a row must be an object"),
    ("a.json", "[null]", "this is null"),
    ("a.json", "[true]", "this is a boolean"),
    ("a.json", "[3]", "this is a number"),
    ("a.jsonl", '{"a": 1}\n{"a": }\n', "line 2, column 7: not JSON"),
    ("a.jsonl", '{"a": 1}\n7\n', "row 2: a row must be an object"),
    ("a.csv", "a,a\n1,2\n", "must name each column once"),
    ("a.csv", "a,b\n1,2\n1,2,3\n", "row 2 \\(ends at line 3\\): 3 cells under 2"),
    ("a.csv", 'a,b\n"1,2\n', "not CSV"),
    ("a.md", "hello", "ends in .json, .jsonl, .csv, .parquet, .txt, not in '.md'"),
    (
        "a.json",
        '[{"a": "你好吗"}]'.encode("gbk"),
        "byte 9 of the file is not UTF-8. It reads as GBK",
    ),
    ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "line 2: byte 17 of the file is not UTF-8. Save"),
    ("a.csv", "a\n你好吗\n".encode("gbk"), "line 2: byte 3 of the file is not UTF-8"),
    ("a.json", "[]".encode("utf-16"), "UTF-16"),
]


@pytest.mark.parametrize(("name", "text", "sentence"), BAD)
def test_a_bad_file_is_refused_with_its_name_and_place(tmp_path, name, text, sentence):
    path = write(tmp_path, name, text)
    with pytest.raises(DataError, match=sentence) as error:
        list(read_rows(path))
    assert str(path) in str(error.value)


def test_a_missing_file_names_the_nearest_one(tmp_path):
    write(tmp_path, "elysia.json", "[]")
    with pytest.raises(
        DataError, match=r"no dataset file .*elysa.json\. Did you mean 'elysia.json'"
    ):
        list(read_rows(tmp_path / "elysa.json"))
    with pytest.raises(DataError, match="no dataset file"):
        list(read_rows(tmp_path / "nowhere" / "a.json"))


def test_a_folder_is_not_a_dataset_file(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        list(read_rows(tmp_path))


def test_long_cells_are_read(tmp_path):
    path = write(tmp_path, "a.csv", "text\n" + "长" * 200_000 + "\n")
    assert len(next(read_rows(path)).value["text"]) == 200_000


def test_lines_are_streamed(tmp_path):
    path = write(tmp_path, "a.jsonl", as_lines([{"text": "x" * 1000}] * 5000))
    tracemalloc.start()
    assert sum(1 for _ in read_rows(path)) == 5000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 5


@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_is_streamed(tmp_path, indent):
    path = write(tmp_path, "a.json", json.dumps([{"text": "x" * 1000}] * 5000, indent=indent))
    tracemalloc.start()
    assert sum(1 for _ in read_rows(path)) == 5000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 2  # a block, not the file and its rows


@pytest.mark.parametrize("block", [1, 2, 3, 7, 50])
def test_blocks_may_end_anywhere_in_an_array(tmp_path, monkeypatch, block):
    monkeypatch.setattr("elysia.data.readers.json_array.CHUNK", block)
    rows = [*ROWS, {"number": -12.5e3, "deep": [{"a": [True, None]}], "quoted": '\\"] , [{\n'}]
    for indent in (None, 2):
        path = write(tmp_path, "a.json", json.dumps(rows, indent=indent) + "\n ")
        assert [row.value for row in read_rows(path)] == rows
    for number, (name, text, sentence) in enumerate(BAD):
        if name == "a.json":
            with pytest.raises(DataError, match=sentence):
                list(read_rows(write(tmp_path, f"{number}.json", text)))
    with pytest.raises(DataError, match="Extra data"):
        list(read_rows(write(tmp_path, "b.json", '[{"a": 1}] {"b": 2}')))


def test_conversations_know_their_file_and_row(tmp_path):
    path = write(tmp_path, "a.jsonl", as_lines())
    samples = load_conversations(path, "default")
    assert [(s.file, s.row, s.messages[-1].text) for s in samples] == [
        (str(path), 1, "嗨"),
        (str(path), 2, "好梦"),
    ]


def test_a_bad_row_is_refused_with_file_row_and_key(tmp_path):
    path = write(tmp_path, "a.json", as_json([*ROWS, {"input": "a", "output": None}]))
    with pytest.raises(DataError, match=r"a\.json, row 3: 'output' is null"):
        load_conversations(path, "default")


def test_another_format_is_named(tmp_path):
    rows = [{"instruction": "a", "input": "", "output": "b"}]
    path = write(tmp_path, "a.json", as_json(rows))
    with pytest.raises(DataError) as error:
        load_conversations(path, "xtuner")
    assert "row 1: the key 'conversation' is missing" in str(error.value)
    assert str(error.value).endswith("This looks like alpaca: set dataset_format='alpaca'.")


def test_rows_that_another_format_would_read_better_are_warned_of(tmp_path, caplog):
    rows = [{"instruction": "a", "input": "", "output": "b"}]
    load_conversations(write(tmp_path, "a.json", as_json(rows)), "default")
    assert "look like the format 'alpaca'" in caplog.text


def test_an_unknown_format_names_the_nearest(tmp_path):
    with pytest.raises(DataError, match="Did you mean 'alpaca'"):
        load_conversations(write(tmp_path, "a.json", as_json()), "alpacca")


def test_left_out_rows_are_counted_and_a_file_of_them_is_refused(tmp_path, caplog):
    empty = {"instruction": "a", "input": "", "output": "<nooutput>"}
    path = write(tmp_path, "a.json", as_json([empty, {**empty, "output": "b"}, empty]))
    assert [s.row for s in load_conversations(path, "alpaca")] == [2]
    assert "2 rows hold no reply" in caplog.text
    with pytest.raises(DataError, match="no row holds a reply"):
        load_conversations(write(tmp_path, "b.json", as_json([empty])), "alpaca")


@pytest.mark.parametrize(
    ("file", "format", "count"),
    [
        ("persona/emollm_aiwei.json", "xtuner", 1600),
        ("persona/emollm_tiangou.json", "xtuner", 1301),
        ("persona/emollm_self_cognition.json", "alpaca", 85),
        ("persona/emollm_ruozhiba.jsonl", "xtuner", 240),
        ("instruct/lf_alpaca_zh_demo.json", "alpaca", 1000),
        ("instruct/lf_v1_sft_demo.jsonl", "openai", 500),
    ],
)
def test_real_files_are_read(shared_data, file, format, count):
    samples = load_conversations(shared_data / file, format)
    assert len(samples) == count
    assert all(s.messages[-1].role == "assistant" for s in samples)


def test_the_real_array_under_jsonl_is_warned_of(shared_data, caplog):
    load_conversations(shared_data / "persona/emollm_ruozhiba.jsonl", "xtuner")
    assert "emollm_ruozhiba.jsonl holds a JSON array" in caplog.text


def test_the_real_rows_with_lost_characters_are_refused(shared_data):
    rows = [row.value for row in read_rows(shared_data / "instruct/lf_dpo_zh_demo.json")]
    talks = [{"conversations": [*row["conversations"], row["chosen"]]} for row in rows]
    damaged = [talk for talk in talks if "\ufffd" in str(talk)]
    assert damaged
    for talk in damaged:
        with pytest.raises(DataError, match=r"conversations\[\d+\].value' holds U\+FFFD"):
            FORMATS["sharegpt"](talk)


def test_preference_pairs_are_called_so(shared_data):
    with pytest.raises(
        DataError, match=r"row 1: .* preference pairs .*objective='dpo'.*preference_sharegpt"
    ):
        load_conversations(shared_data / "instruct/lf_dpo_zh_demo.json", "sharegpt")


def test_the_real_csv_is_read(shared_data):
    rows = list(read_rows(shared_data / "persona/spc_test_en.csv"))
    assert len(rows) == 968
    assert list(rows[0].value)[-1] == "Best Generated Conversation"


def test_every_line_of_a_text_file_is_a_row_and_empty_ones_are_none(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("从前有座山。\n\n  Once upon a time. \n", encoding="utf-8")
    samples = load_conversations(path, "pretrain")
    assert [(s.messages[0].text, s.row) for s in samples] == [
        ("从前有座山。", 1),
        ("Once upon a time.", 2),
    ]


@pytest.mark.parametrize(
    ("text", "message"), [("", "the file is empty"), (" \n\n", "holds no rows")]
)
def test_a_text_file_of_nothing_is_a_sentence(tmp_path, text, message):
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_conversations(path, "pretrain")


def test_plain_text_under_another_format_names_the_right_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("从前有座山。")
    with pytest.raises(DataError, match="set dataset_format='pretrain'"):
        load_conversations(path, "xtuner")
