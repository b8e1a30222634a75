"""Loads a config file of XTuner's without XTuner: imported names become symbols, the rest is real.

MMEngine parses such a file lazily: it imports nothing but the standard library, and functions that the
file defines are real functions. Its lazy objects become plain `ConfigSymbol`s here.
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
from elysia.core.i18n import Text

# Configs that MMEngine has dumped spell symbols as text: a dotted name in one of these packages.
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
    """A name that the config imports: its dotted path, and the file and line of the import."""

    path: str
    location: str = ""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    def __str__(self) -> str:
        return self.path


def load_config_file(path: Path) -> Any:
    """MMEngine's Config of a file. ConfigError for whatever the file raises."""
    from mmengine.config import Config

    try:
        with _recognize_standard_library():
            return Config.fromfile(str(path))
    except SyntaxError as error:
        raise ConfigError(
            "compat.not_python", path=path, line=error.lineno, reason=error.msg
        ) from error
    except FileNotFoundError as error:
        missing = error.filename or str(error)
        raise ConfigError("compat.base_missing", path=path, base=missing) from error
    except Exception as error:  # a config is a program: whatever it raises is the user's to read
        # MMEngine's lazy objects raise without a word when they are called.
        reason = str(error) or Text("compat.import_used_while_reading")
        raise ConfigError(
            "compat.does_not_run", path=path, kind=type(error).__name__, reason=reason
        ) from error


@contextmanager
def _recognize_standard_library() -> Iterator[None]:
    """Inside, MMEngine knows the standard library by name. It goes by the interpreter's folder, which is
    wrong in a virtual environment: there `re.compile(…)` in a config would fail."""
    modules: list[Any] = [import_module(f"mmengine.config.{name}") for name in ("config", "utils")]
    originals = [module._is_builtin_module for module in modules]
    for module in modules:
        module._is_builtin_module = _is_standard
    try:
        yield
    finally:
        for module, function in zip(modules, originals, strict=True):
            module._is_builtin_module = function


def _is_standard(name: str) -> bool:
    return name.split(".")[0] in sys.stdlib_module_names


def config_to_tree(config: Any) -> dict[str, Any]:
    """The config as plain dicts, lists and values, with `ConfigSymbol`s where it names imports."""
    # Read past ConfigDict's own access, which would build the lazy objects.
    content = object.__getattribute__(config, "_cfg_dict")
    tree: dict[str, Any] = to_plain(content)
    return tree


def to_plain(value: Any) -> Any:
    """A value of a config, with lazy objects as symbols, in dicts and lists too."""
    from mmengine.config.lazy import LazyAttr, LazyObject

    if isinstance(value, LazyAttr | LazyObject):
        return ConfigSymbol(_dotted_path(value), _import_location(value))
    if isinstance(value, dict):  # a ConfigDict's own access would build the lazy objects
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
    if not isinstance(module, str):  # MMEngine joins `import a.b` and `import a.c` in one list
        module = module[0].split(".")[0]
    return f"{module}.{value._imported}" if value._imported else module


def _import_location(value: Any) -> str:
    from mmengine.config.lazy import LazyAttr

    while isinstance(value, LazyAttr):
        value = value.source
    return value.location or ""


def merge_options(tree: dict[str, Any], options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`tree` with dotted options put in, as MMEngine does it; `where` names the file in errors."""
    if not options:
        return tree
    from mmengine.config import Config

    config = Config(tree)
    try:
        config.merge_from_dict(dict(options))
    except (TypeError, KeyError) as error:
        raise ConfigError("compat.options_do_not_fit", path=where, reason=error) from error
    return config_to_tree(config)


def is_xtuner_config(tree: Mapping[str, Any]) -> bool:
    """Whether a tree builds its own objects, as XTuner's configs do, and does not hold flat settings."""
    built = isinstance(tree.get("model"), Mapping) and "pretrained_model_name_or_path" in tree
    return {"model", "train_dataloader"} <= set(tree) or (
        built and ("train_dataset" in tree or "training_args" in tree)
    )


def collect_functions(value: Any) -> list[FunctionType]:
    """Every function that the user's file defines and a tree holds, in order."""
    if isinstance(value, FunctionType):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list | tuple):
        return []
    return [function for item in items for function in collect_functions(item)]
