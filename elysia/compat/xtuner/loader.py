"""Loads a config file of XTuner's without XTuner: imported names become symbols, the rest is real.

MMEngine parses such a file lazily: nothing is imported but the standard library, and functions that
the file defines are real functions. Here its lazy objects become `ConfigSymbol`s, plain values by which
judge.py goes. Knows nothing of what a symbol means.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

from elysia.core.errors import ConfigError

# Dumped configs spell symbols as text; text that begins so, in these packages, is a symbol.
SYMBOL_PREFIXES = (
    "xtuner.",
    "mmengine.",
    "torch.",
    "transformers.",
    "peft.",
    "datasets.",
    "bitsandbytes.",
)


@dataclass(frozen=True)
class ConfigSymbol:
    """A name that the config imports: `path` is dotted, `place` the file and line of the import."""

    path: str
    place: str = ""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    def __str__(self) -> str:
        return self.path


def load_config_file(path: Path) -> Any:
    """MMEngine's Config of a file; ConfigError in a sentence for whatever it raises."""
    from mmengine.config import Config

    try:
        with _recognize_standard_library():
            return Config.fromfile(str(path))
    except SyntaxError as error:
        raise ConfigError(
            f"{path}, line {error.lineno}: this is not Python ({error.msg})."
        ) from error
    except FileNotFoundError as error:
        missing = error.filename or str(error)
        raise ConfigError(f"{path}: its _base_ {missing} does not exist.") from error
    except Exception as error:  # a config is a program: whatever it raises is the user's to read
        what = str(error) or (
            "a name it imports is called or computed with while the config is read, which no "
            "config can do"
        )
        raise ConfigError(f"{path} does not run: {type(error).__name__}: {what}") from error


@contextmanager
def _recognize_standard_library() -> Iterator[None]:
    """MMEngine tells the standard library by its place under the interpreter, which is wrong in a
    virtual environment: there `re.compile(…)` in a config would fail."""
    modules: list[Any] = [import_module(f"mmengine.config.{name}") for name in ("config", "utils")]
    theirs = [module._is_builtin_module for module in modules]
    for module in modules:
        module._is_builtin_module = _is_standard
    try:
        yield
    finally:
        for module, function in zip(modules, theirs, strict=True):
            module._is_builtin_module = function


def _is_standard(name: str) -> bool:
    return name.split(".")[0] in sys.stdlib_module_names


def config_to_tree(config: Any) -> dict[str, Any]:
    """The config as plain dicts, lists and values, with `ConfigSymbol`s where it names imports."""
    inner = object.__getattribute__(config, "_cfg_dict")
    tree: dict[str, Any] = to_plain(inner)
    return tree


def to_plain(value: Any) -> Any:
    from mmengine.config.lazy import LazyAttr, LazyObject

    if isinstance(value, LazyAttr | LazyObject):
        return ConfigSymbol(_dotted_path(value), _import_location(value))
    if isinstance(value, dict):  # a ConfigDict would build what it is asked for
        return {key: to_plain(dict.__getitem__(value, key)) for key in dict.keys(value)}
    if isinstance(value, list | tuple):
        return type(value)(to_plain(item) for item in value)
    if isinstance(value, str) and value.startswith(SYMBOL_PREFIXES) and _is_dotted_name(value):
        return ConfigSymbol(value)
    return value


def _is_dotted_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _dotted_path(value: Any) -> str:
    from mmengine.config.lazy import LazyAttr

    if isinstance(value, LazyAttr):
        return f"{_dotted_path(value.source)}.{value.name}"
    module = value._module
    if not isinstance(module, str):  # `import a.b` and `import a.c` are known as `a`
        module = module[0].split(".")[0]
    return f"{module}.{value._imported}" if value._imported else module


def _import_location(value: Any) -> str:
    from mmengine.config.lazy import LazyAttr

    while isinstance(value, LazyAttr):
        value = value.source
    return value.location or ""


def merge_options(tree: dict[str, Any], options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`tree` with dotted options put in, as MMEngine merges them."""
    if not options:
        return tree
    from mmengine.config import Config

    config = Config(tree)
    try:
        config.merge_from_dict(dict(options))
    except (TypeError, KeyError) as error:
        raise ConfigError(f"--cfg-options do not fit {where}: {error}") from error
    return config_to_tree(config)


def is_xtuner_config(tree: Mapping[str, Any]) -> bool:
    """Whether a tree is a config of XTuner's, which builds its objects itself, and not flat
    settings."""
    built = isinstance(tree.get("model"), Mapping) and "pretrained_model_name_or_path" in tree
    return {"model", "train_dataloader"} <= set(tree) or (
        built and ("train_dataset" in tree or "training_args" in tree)
    )


def collect_functions(value: Any) -> list[FunctionType]:
    """Every function of the user's own in a tree, in order."""
    if isinstance(value, FunctionType):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if _is_list(value) else ()
    return [function for item in inner for function in collect_functions(item)]


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)
