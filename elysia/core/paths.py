"""Where configs are: a path of the user's, or a bundled one by name. Standard library only, so that
`list-cfg` answers at once."""

from __future__ import annotations

from pathlib import Path

from elysia.core.errors import ConfigError, nearest


def get_configs_folder() -> Path:
    """The bundled `configs/`: beside the package in a checkout, inside it when installed."""
    beside = Path(__file__).resolve().parents[2] / "configs"
    return beside if beside.is_dir() else Path(__file__).resolve().parents[1] / "configs"


def list_bundled_configs() -> dict[str, Path]:
    """Name to file of every bundled config; files under `_base_` are parts, those under `voice`
    configs of `voice train`."""
    folder = get_configs_folder()
    return {
        path.stem: path
        for path in sorted(folder.rglob("*.py"))
        if not {"_base_", "voice"} & set(path.relative_to(folder).parts)
    }


def find_config(name: str) -> Path:
    """The file that `name` means; ConfigError naming the nearest bundled config otherwise."""
    path = Path(name)
    if path.is_file():
        return path
    known = list_bundled_configs()
    if path.stem in known and path.parent in (Path("."), Path("configs")):
        return known[path.stem]
    raise ConfigError(
        f"There is no config at {name}, and none bundled by that name.{nearest(path.stem, known)} "
        "`xtuner list-cfg` lists them."
    )


def resolve_bundled(path: str) -> str:
    """A path as given when it exists, else beside the bundled configs (`data/…`, `configs/…`)."""
    beside = get_configs_folder().parent / path
    return str(beside) if not Path(path).exists() and beside.exists() else path


def resolve_all_bundled(paths: str | list[str]) -> str | list[str]:
    """`resolve_bundled` for the path of a source, which may be several."""
    return (
        resolve_bundled(paths)
        if isinstance(paths, str)
        else [resolve_bundled(path) for path in paths]
    )
