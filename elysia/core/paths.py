"""Where things lie: configs, data and voices that ship with the project, and what commands write.

In a checkout the bundled folders are beside the package, in an installed copy inside it.
"""

from __future__ import annotations

import os
from pathlib import Path

from elysia.core.errors import ConfigError, nearest

PACKAGE = Path(__file__).resolve().parents[1]
WORK_DIRS = Path("work_dirs")  # what commands write, below the current folder
CHAT_DATABASE = "work_dirs/chat/elysia.db"


def get_root() -> Path:
    """The folder that holds the bundled `configs/`, `data/` and `tts/`."""
    checkout = PACKAGE.parent
    return checkout if (checkout / "configs").is_dir() else PACKAGE


def get_configs_folder() -> Path:
    """The bundled configs of trainings and voices, and the character cards."""
    return get_root() / "configs"


def get_data_folder() -> Path:
    """The bundled datasets and question lists."""
    return get_root() / "data"


def get_voices_folder() -> Path:
    """The voice files: ELYSIA_VOICES, else `./tts/voices` where it exists, else the bundled ones."""
    if folder := os.environ.get("ELYSIA_VOICES"):
        return Path(folder)
    local = Path("tts/voices")
    return local if local.is_dir() else get_root() / "tts" / "voices"


def list_bundled_configs() -> dict[str, Path]:
    """{name: file} of every bundled training config.

    Files below `_base_` are parts of configs, and those below `voice` are for `voice train`.
    """
    folder = get_configs_folder()
    return {
        path.stem: path
        for path in sorted(folder.rglob("*.py"))
        if not {"_base_", "voice"} & set(path.relative_to(folder).parts)
    }


def find_config(name: str) -> Path:
    """The config file at the path `name`, or the bundled one of that name.

    Raises ConfigError, with the nearest name, when there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = list_bundled_configs()
    if path.stem in known and path.parent in (Path("."), Path("configs")):
        return known[path.stem]
    raise ConfigError("core.no_such_config", name=name, hint=nearest(path.stem, known))


def resolve_bundled(path: str) -> str:
    """`path` when it exists, else the bundled file of that name (`data/…`, `configs/…`) if there is one."""
    bundled = get_root() / path
    return str(bundled) if not Path(path).exists() and bundled.exists() else path


def resolve_all_bundled(paths: str | list[str]) -> str | list[str]:
    """`resolve_bundled` for the path of a dataset source, which may be a list."""
    return resolve_bundled(paths) if isinstance(paths, str) else list(map(resolve_bundled, paths))
