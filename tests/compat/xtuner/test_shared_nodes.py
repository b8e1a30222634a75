"""What `load_dataset(…)` and the loaders of other hubs mean: a source, and what is needed first."""

import pytest

from elysia.compat.xtuner.loader import ConfigSymbol
from elysia.compat.xtuner.report import ConversionReport
from elysia.compat.xtuner.shared_nodes import read_load_dataset

LOAD = ConfigSymbol("datasets.load_dataset")


def read(split=None, type=LOAD, **keys):
    report = ConversionReport()
    return read_load_dataset({"type": type, **keys}, "d", split, report), report


def test_files_are_a_source_and_one_that_is_absent_is_needed(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    here = str(tmp_path / "a.json")
    source, report = read(path="json", data_files=here)
    assert source == {"path": here} and not report.needs and not report.reasons
    source, report = read(path="csv", data_files=[here, "gone.csv"])
    assert source == {"path": [here, "gone.csv"]}
    assert report.needs == ["the dataset gone.csv, which is not there"]


def test_files_by_split_are_those_of_the_split_or_all():
    files = {"train": ["t.json"], "test": "e.json"}
    assert read("test", path="json", data_files=files)[0] == {"path": "e.json"}
    assert read(path="json", data_files=files)[0] == {"path": ["t.json", "e.json"]}
    assert "has no split 'dev'" in read("dev", path="json", data_files=files)[1].reasons[0]


@pytest.mark.parametrize(
    "keys, source, need",
    [
        ({"path": "owner/rows", "name": "en"}, {"path": "owner/rows", "split": "train", "subset": "en"},
         "the dataset owner/rows of the Hugging Face Hub"),
        ({"path": "./rows", "data_files": "a/*.json"}, {"path": "./rows", "split": "train", "files": ["a/*.json"]},
         "the dataset ./rows, which is not there"),
        ({"path": "owner/rows", "data_dir": "/en/"}, {"path": "owner/rows", "split": "train", "files": ["en/*"]},
         "the dataset owner/rows of the Hugging Face Hub"),
        ({"type": ConfigSymbol("modelscope.msdatasets.MsDataset.load"), "dataset_name": "rows", "namespace": "owner"},
         {"path": "owner/rows", "split": "train", "hub": "modelscope"}, "the dataset owner/rows of ModelScope"),
        ({"type": ConfigSymbol("openmind.OmDataset.load_dataset"), "path": "owner/rows"},
         {"path": "owner/rows", "split": "train", "hub": "openmind"}, "the dataset owner/rows of openMind"),
    ],
)  # fmt: skip
def test_a_dataset_of_a_hub_or_a_folder(keys, source, need):
    converted, report = read("train", **keys)
    assert converted == source
    assert report.needs == [need] and not report.reasons


def test_streaming_is_a_named_change_and_all_splits_are_no_split():
    source, report = read("all", path="owner/rows", streaming=True)
    assert "split" not in source and "streaming" in report.changes


@pytest.mark.parametrize(
    "keys, reason",
    [
        ({"path": "json"}, "a dataset of files names none"),
        ({}, "d names no path"),
        ({"path": "owner/rows", "revision": "v2"}, "revision"),
        ({"path": "owner/rows", "type": ConfigSymbol("torch.load")}, "torch.load"),
    ],
)
def test_what_is_not_read_is_a_reason(keys, reason):
    assert reason in "; ".join(read(**keys)[1].reasons)
