"""A source of training rows: the files it names, here or on a hub, how they are read and how often seen.

A source is a mapping: `path` (a file, a folder, a list of them, or a hub's dataset `owner/name`),
`format` (a name, also of a preference format, or a function from a row to messages); what narrows it
down: `split`, `subset`, `files`, `columns`, `bot_name`, `min_length`, `hub`; and its share of an
epoch: `repeat` or `weight`.
"""

from __future__ import annotations

import fnmatch
import importlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elysia.core.errors import DataError
from elysia.core.i18n import Text
from elysia.data.formats.conversion import RowConverter
from elysia.data.formats.preference_pairs import PreferenceFormat
from elysia.data.formats.registry import Format

ENDINGS = (".json", ".jsonl", ".csv", ".parquet", ".txt", ".bin")
_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Words in the names of files and folders by which hubs distinguish splits.
_SPLITS = {"train": ("train", "training"), "test": ("test", "testing", "eval", "evaluation"),
           "validation": ("validation", "valid", "val", "dev")}  # fmt: skip


def build_converter(
    source: Mapping[str, Any],
    pairs: bool = False,
    function: Format | PreferenceFormat | None = None,
) -> RowConverter:
    """How a source's rows are converted; `function`, when given, replaces the source's format."""
    return RowConverter(
        function or source["format"],
        pairs,
        source.get("columns"),
        source.get("bot_name") or "",
        source.get("min_length") or 0,
    )


def find_files(source: Mapping[str, Any]) -> list[Path]:
    """The files of a source, in order; DataError when there are none."""
    path = source["path"]
    paths = [path] if isinstance(path, str) else list(path)
    return [file for path in paths for file in _files_at(path, source)]


def is_remote(path: str) -> bool:
    """Whether a path is a hub's dataset: no file here has it, and it looks like `owner/name`."""
    plain = not path.startswith(".") and Path(path).suffix not in ENDINGS
    return plain and not Path(path).exists() and bool(_REPO_ID.fullmatch(path))


def compute_repeats(sources: Sequence[Mapping[str, Any]], rows: Sequence[int]) -> list[float]:
    """How often each source is seen per epoch: 2 is every row twice, 0.5 half of them once.

    A source without a `weight` is seen `repeat` times. So is the first source with a weight; each
    further one gives as many rows as its weight is to that of the first. `rows`: the number of rows
    of each source. DataError for a weight that is not above 0, or that has a `repeat` beside it.

    >>> compute_repeats([{"path": "a", "weight": 0.8}, {"path": "b", "weight": 0.2}], [400, 1000])
    [1, 0.1]
    """
    repeats: list[float] = [source.get("repeat", 1) for source in sources]
    first = -1
    for place, source in enumerate(sources):
        weight = source.get("weight")
        if weight is None:
            continue
        if not isinstance(weight, int | float) or isinstance(weight, bool) or weight <= 0:
            raise DataError("data.weight_not_positive", path=source["path"], weight=repr(weight))
        if first < 0:
            first = place
            continue
        if repeats[place] != 1:
            raise DataError("data.weight_and_repeat", path=source["path"])
        count = repeats[first] * rows[first] * weight / sources[first]["weight"]
        repeats[place] = count / max(rows[place], 1)
    return repeats


def _files_at(path: str, source: Mapping[str, Any]) -> list[Path]:
    place = Path(path).expanduser()
    if place.is_file() or not (place.is_dir() or is_remote(path)):
        return [place]  # if it does not exist, its reader says so
    folder = place if place.is_dir() else download_dataset(path, source.get("hub") or "huggingface")
    files = _select_files(folder, source)
    if not files:
        given = ", ".join(f"{key}={source[key]!r}" for key in ("subset", "split", "files")
                          if source.get(key))  # fmt: skip
        code = "data.no_matching_file" if given else "data.no_file_in_folder"
        raise DataError(
            code, path=path, endings=list(ENDINGS), **({"given": given} if given else {})
        )
    return files


def _select_files(folder: Path, source: Mapping[str, Any]) -> list[Path]:
    """The files under `folder`, by name, that match `subset`, `files` and `split`."""
    names = sorted(
        Path(root, name).relative_to(folder)
        for root, _, inside in os.walk(folder, followlinks=True)
        for name in inside
        if not any(part.startswith(".") for part in Path(root).relative_to(folder).parts)
    )
    files = [file for file in names if file.suffix in ENDINGS]
    patterns = source.get("files")
    if patterns:
        patterns = [patterns] if isinstance(patterns, str) else list(patterns)
        # In the order of the patterns, which is the user's.
        return [folder / f for p in patterns for f in files if fnmatch.fnmatch(f.as_posix(), p)]
    # Beside other data, a text file is a licence or a readme.
    files = [f for f in files if f.suffix != ".txt"] or files
    subset = source.get("subset")
    if subset:
        files = [f for f in files if Path(subset) in f.parents or subset in f.stem]
    files = [f for f in files if f.name not in ("dataset_info.json", "dataset_infos.json")]
    return [folder / f for f in _select_split(files, source.get("split") or "")]


def _select_split(files: Sequence[Path], split: str) -> list[Path]:
    """The files whose names contain `split`; all of them when no name contains any split."""
    kinds = {file: _guess_split(file) for file in files}
    if not split or not any(kinds.values()):
        return list(files)
    kind = next((kind for kind, words in _SPLITS.items() if split in words), split)
    return [file for file in files if kinds[file] == kind]


def _guess_split(file: Path) -> str | None:
    words = re.split(r"[^a-z]+", file.as_posix().lower())
    return next((kind for kind, marks in _SPLITS.items() if set(words) & set(marks)), None)


def download_dataset(name: str, hub: str = "huggingface") -> Path:
    """The folder of a hub's dataset, downloaded once; DataError when it is not available."""
    if hub == "modelscope":
        return _download_from_modelscope(name)
    if hub != "huggingface":
        raise _not_available(name, hub, Text("data.unknown_hub"))
    from huggingface_hub import snapshot_download

    patterns = [f"*{ending}" for ending in ENDINGS]
    options: dict[str, Any] = {"repo_type": "dataset", "allow_patterns": patterns}
    try:
        return Path(snapshot_download(name, local_files_only=True, **options))
    except Exception:
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            raise _not_available(name, hub, Text("data.hub_offline")) from None
    try:
        return Path(snapshot_download(name, **options))
    # Whatever the client, the network or the disk raises, it means that the dataset is not here.
    except Exception as error:
        raise _not_available(name, hub, _first_line(error)) from error


def _download_from_modelscope(name: str) -> Path:
    try:
        modelscope = importlib.import_module("modelscope")
    except ImportError:
        raise _not_available(name, "modelscope", Text("data.modelscope_missing")) from None
    try:
        return Path(modelscope.dataset_snapshot_download(name))
    except Exception as error:
        raise _not_available(name, "modelscope", _first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _not_available(name: str, hub: str, reason: Text | str) -> DataError:
    return DataError("data.dataset_not_available", name=name, hub=hub, reason=reason)
