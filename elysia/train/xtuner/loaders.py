"""What `load_dataset(…)` and its like mean in a config of XTuner's: a source. No file is opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elysia.data.sources import is_remote
from elysia.train.xtuner.report import Part, Report

Source = dict[str, Any]


def loaded(dataset: Any, where: str, split: str | None, report: Report) -> Source:
    """The source that `load_dataset(…)` or a hub's own loader means."""
    part = Part(dataset, where, report)
    kind = part.kind("load_dataset", "MsDataset.load", "OmDataset.load_dataset")
    path = part.take("path") or part.take("dataset_name")
    namespace = part.take("namespace")
    path = f"{namespace}/{path}" if namespace else path
    split = part.take("split", split)
    files, folder = part.take("data_files"), part.take("data_dir")
    subset = part.take("name") or part.take("subset_name")
    part.ignore("ignore_verifications", "num_proc", "trust_remote_code", "cache_dir", "token",
                "use_auth_token", "keep_in_memory", "verification_mode")  # fmt: skip
    if part.take("streaming"):
        report.change("streaming", "streaming: the dataset is read whole before the run")
    part.done()
    if isinstance(files, Mapping):
        files = files.get(split) if split else [f for some in files.values() for f in _list(some)]
        if files is None:
            report.refuse(f"{where}.data_files has no split {split!r}")
    if path in ("json", "csv", "parquet"):
        chosen = _list(files)
        need_files(chosen, report)
        return {"path": chosen if len(chosen) != 1 else chosen[0]}
    source: Source = {"path": path or ""}
    if not path:
        report.refuse(f"{where} names no path")
    if split and split != "all":
        source["split"] = split
    if subset:
        source["subset"] = subset
    if files or folder:
        source["files"] = [*_list(files)] or [f"{folder.strip('/')}/*"]
    _remote(str(path), kind, source, report)
    return source


def loaded_lines(dataset: Any, where: str, report: Report) -> Source:
    """The source that XTuner's `load_jsonl_dataset` means: files of JSON lines, or a folder of them."""
    part = Part(dataset, where, report)
    part.kind("load_jsonl_dataset")
    files, folder, ending = (part.take(key) for key in ("data_files", "data_dir", "suffix"))
    part.done()
    if bool(files) == bool(folder):
        report.refuse(f"{where} must name either data_files or data_dir")
        return {"path": ""}
    if folder:
        need_files([folder], report)
        return {"path": folder} | ({"files": [f"*{ending}"]} if ending else {})
    chosen = _list(files)
    need_files(chosen, report)
    return {"path": chosen if len(chosen) != 1 else chosen[0]}


def _remote(path: str, kind: str, source: Source, report: Report) -> None:
    if kind == "MsDataset.load":
        source["hub"] = "modelscope"
    elif kind == "OmDataset.load_dataset":
        source["hub"] = "openmind"
    if is_remote(path):
        hub = {"modelscope": "ModelScope", "openmind": "openMind"}.get(
            source.get("hub", ""), "the Hugging Face Hub"
        )
        report.need(f"the dataset {path} of {hub}")
    elif not Path(path).exists():
        report.need(f"the dataset {path}, which is not there")


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def need_files(files: list[str], report: Report) -> None:
    """Name the files that are not there."""
    if not files:
        report.refuse("a dataset of files names none")
    for file in files:
        if not Path(file).expanduser().exists():
            report.need(f"the dataset {file}, which is not there")
