"""One source of rows: which files it means, on this machine or on a hub, and how their rows are read.

A source is a dict: `path` (a file, a folder, a list of them, or a hub's dataset `owner/name`),
`format` (a name, of pairs too, or a function from a row to messages), and what narrows it down: `split`,
`subset`, `files`, `columns`, `bot_name`, `min_length`, `hub`. Knows nothing of templates or tokens.
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
from elysia.data.formats.conversion import RowConverter
from elysia.data.formats.preference_pairs import PreferenceFormat
from elysia.data.formats.registry import Format

ENDINGS = (".json", ".jsonl", ".csv", ".parquet", ".txt", ".bin")
_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Words in the names of files and folders by which hubs tell splits apart.
_SPLITS = {"train": ("train", "training"), "test": ("test", "testing", "eval", "evaluation"),
           "validation": ("validation", "valid", "val", "dev")}  # fmt: skip


def build_converter(
    source: Mapping[str, Any],
    pairs: bool = False,
    function: Format | PreferenceFormat | None = None,
) -> RowConverter:
    """How a source's rows are read; `function`, when given, stands for the source's format."""
    return RowConverter(
        function or source["format"],
        pairs,
        source.get("columns"),
        source.get("bot_name") or "",
        source.get("min_length") or 0,
    )


def find_files(source: Mapping[str, Any]) -> list[Path]:
    """The files of a source, in order; DataError when there are none."""
    paths = source["path"]
    wanted = [paths] if isinstance(paths, str) else list(paths)
    return [file for path in wanted for file in _files(path, source)]


def is_remote(path: str) -> bool:
    """Whether a path means a hub's dataset: it is no file here and looks like `owner/name`."""
    plain = not path.startswith(".") and Path(path).suffix not in ENDINGS
    return plain and not Path(path).exists() and bool(_REPO_ID.fullmatch(path))


def _files(path: str, source: Mapping[str, Any]) -> list[Path]:
    place = Path(path).expanduser()
    if place.is_file() or not (place.is_dir() or is_remote(path)):
        return [place]  # whoever reads it says what is wrong with it
    folder = place if place.is_dir() else download_dataset(path, source.get("hub") or "huggingface")
    found = _select_files(folder, source)
    if not found:
        near = ", ".join(f"{key}={source[key]!r}" for key in ("subset", "split", "files")
                         if source.get(key))  # fmt: skip
        raise DataError(
            f"{path}: no file that can be read ({', '.join(ENDINGS)})"
            + (f" fits {near}." if near else " is in it.")
        )
    return found


def _select_files(folder: Path, source: Mapping[str, Any]) -> list[Path]:
    """Files under `folder`, by name, that fit `subset`, `files` and `split`."""
    inside = sorted(
        Path(root, name).relative_to(folder)
        for root, _, names in os.walk(folder, followlinks=True)
        for name in names
        if not any(part.startswith(".") for part in Path(root).relative_to(folder).parts)
    )
    files = [file for file in inside if file.suffix in ENDINGS]
    patterns = source.get("files")
    if patterns:
        patterns = [patterns] if isinstance(patterns, str) else list(patterns)
        return [
            folder / f for p in patterns for f in files if fnmatch.fnmatch(f.as_posix(), p)
        ]  # in the order asked for
    # Beside other data a text is a licence or a readme.
    files = [f for f in files if f.suffix != ".txt"] or files
    subset = source.get("subset")
    if subset:
        files = [f for f in files if Path(subset) in f.parents or subset in f.stem] or []
    files = [f for f in files if f.name not in ("dataset_info.json", "dataset_infos.json")]
    return [folder / f for f in _select_split(files, source.get("split") or "")]


def _select_split(files: Sequence[Path], split: str) -> list[Path]:
    """The files whose names say `split`; all of them when no name says any."""
    kinds = {file: _guess_split(file) for file in files}
    if not split or not any(kinds.values()):
        return list(files)
    wanted = next((kind for kind, words in _SPLITS.items() if split in words), split)
    return [file for file in files if kinds[file] == wanted]


def _guess_split(file: Path) -> str | None:
    words = re.split(r"[^a-z]+", file.as_posix().lower())
    return next((kind for kind, marks in _SPLITS.items() if set(words) & set(marks)), None)


def download_dataset(name: str, hub: str = "huggingface") -> Path:
    """The folder of a hub's dataset, downloaded once; DataError when it cannot be had."""
    if hub == "modelscope":
        return _from_modelscope(name)
    if hub != "huggingface":
        raise DataError(
            _not_available(name, hub, "datasets are fetched from huggingface and modelscope")
        )
    from huggingface_hub import snapshot_download

    wanted = [f"*{ending}" for ending in ENDINGS]
    options: dict[str, Any] = {"repo_type": "dataset", "allow_patterns": wanted}
    try:
        return Path(snapshot_download(name, local_files_only=True, **options))
    except Exception:
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            raise DataError(_not_available(name, hub, "HF_HUB_OFFLINE is set")) from None
    try:
        return Path(snapshot_download(name, **options))
    # Whatever the client, the network or the disk raises means that the dataset is not here.
    except Exception as error:
        raise DataError(_not_available(name, hub, _first_line(error))) from error


def _from_modelscope(name: str) -> Path:
    try:
        modelscope = importlib.import_module("modelscope")
    except ImportError:
        raise DataError(
            _not_available(name, "modelscope", "its package is missing: pip install modelscope")
        ) from None
    try:
        return Path(modelscope.dataset_snapshot_download(name))
    except Exception as error:
        raise DataError(_not_available(name, "modelscope", _first_line(error))) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _not_available(name: str, hub: str, reason: str) -> str:
    return (
        f"The dataset {name} is not on this machine and could not be fetched from {hub} "
        f"({reason}). Download it where there is a network and set its path."
    )


def compute_repeats(sources: Sequence[Mapping[str, Any]], rows: Sequence[int]) -> list[float]:
    """How often each source is seen: 2 is every row twice, 0.5 a half of them once.

    Sources without a weight say so by `repeat`. The first source with a weight is seen by its
    `repeat`, and each further one as many rows as its weight is to the first's. DataError for a
    weight that is not above 0, or that stands beside a `repeat` of its own.

    >>> compute_repeats([{"path": "her", "weight": 0.8}, {"path": "general", "weight": 0.2}], [400, 1000])
    [1, 0.1]
    """
    found: list[float] = [source.get("repeat", 1) for source in sources]
    first = -1
    for place, source in enumerate(sources):
        weight = source.get("weight")
        if weight is None:
            continue
        if not isinstance(weight, int | float) or isinstance(weight, bool) or weight <= 0:
            raise DataError(
                f"data_path: weight of {source['path']} must be above 0, not {weight!r}."
            )
        if first < 0:
            first = place
            continue
        if found[place] != 1:
            raise DataError(
                f"data_path: {source['path']} has a weight and a repeat; only the first source with "
                "a weight may have both."
            )
        seen = found[first] * rows[first] * weight / sources[first]["weight"]
        found[place] = seen / max(rows[place], 1)
    return found
