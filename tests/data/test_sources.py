import json
import sys

import pytest

from elysia.core.errors import DataError
from elysia.data.formats.conversion import iter_sample_groups
from elysia.data.sources import build_converter, find_files, is_remote

ROW = {"input": "a", "output": "b"}


def load_source(source):
    conversion = build_converter(source)
    return [unit[0] for file in find_files(source) for unit in iter_sample_groups(file, conversion)]


@pytest.fixture
def folder(tmp_path):
    """Three splits, one of them also in another subset, and a file that is no data."""
    for name in ("data/train-0.jsonl", "data/train-1.jsonl", "data/test-0.jsonl", "zh/train.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(ROW | {"output": name}) + "\n")
    (tmp_path / "README.md").write_text("x")
    return tmp_path


def names(source, folder):
    return [str(file.relative_to(folder)) for file in find_files({"path": str(folder), **source})]


def test_a_folder_is_narrowed_by_split_subset_and_files(folder):
    assert len(names({}, folder)) == 4
    assert names({"split": "test"}, folder) == ["data/test-0.jsonl"]
    assert names({"split": "train", "subset": "zh"}, folder) == ["zh/train.jsonl"]
    chosen = {"files": ["data/train-1*", "data/test*"]}
    assert names(chosen, folder) == ["data/train-1.jsonl", "data/test-0.jsonl"]
    with pytest.raises(DataError, match="fits split='validation'"):
        names({"split": "validation"}, folder)


def test_texts_of_a_folder_are_data_where_there_is_no_other(folder, tmp_path_factory):
    (folder / "LICENSE.txt").write_text("x")
    assert len(names({}, folder)) == 4
    assert names({"files": "*.txt"}, folder) == ["LICENSE.txt"]
    books = tmp_path_factory.mktemp("books")
    (books / "one.txt").write_text("Once.\nTwice.\n")
    samples = load_source({"path": str(books), "format": "pretrain"})
    assert [s.messages[0].text for s in samples] == ["Once.", "Twice."]


def test_a_dataset_of_the_hub_is_read_from_what_was_downloaded(
    folder, tmp_path_factory, monkeypatch
):
    from huggingface_hub import constants

    cache = tmp_path_factory.mktemp("hub")
    repository = cache / "datasets--owner--rows"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / ("0" * 40)).symlink_to(folder)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(cache))
    assert is_remote("owner/rows") and not is_remote("rows.json") and not is_remote("./owner/rows")
    samples = load_source({"path": "owner/rows", "format": "default", "split": "test"})
    assert [s.messages[1].text for s in samples] == ["data/test-0.jsonl"]


def test_a_dataset_that_is_nowhere_is_told_with_its_hub(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=r"owner/none is not on this machine.*set its path"):
        load_source({"path": "owner/none", "format": "default"})
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(DataError, match="from modelscope"):
        load_source({"path": "owner/none", "format": "default", "hub": "modelscope"})


def test_columns_are_renamed_and_a_function_reads_rows(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"q": "a", "a": "b"}]))
    renamed = {"path": str(path), "format": "default", "columns": {"q": "input", "a": "output"}}
    assert load_source(renamed)[0].messages[1].text == "b"
    with pytest.raises(DataError, match="row 1: the key 'input' is missing"):
        load_source({"path": str(path), "format": "default"})
    with pytest.raises(DataError, match="Did you mean 'moss_sft'"):
        load_source({"path": str(path), "format": "mos_sft"})


def test_parquet_without_its_package_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="pip install pyarrow"):
        load_source({"path": str(path), "format": "default"})
