"""A map function of the user's own, named `FILE.py:NAME`, as a dataset format.

The file may be a config of XTuner's, which need not be installed: imports that the function uses are
carried out when it is loaded, and XTuner's own map functions stand for the formats of this project.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from elysia.compat.xtuner import loader
from elysia.compat.xtuner.loader import ConfigSymbol
from elysia.compat.xtuner.symbols import MAP_FUNCTIONS, find_symbol_error
from elysia.core.errors import ConfigError, DataError
from elysia.core.messages import Message
from elysia.data.formats.preference_pairs import PreferenceFormat, preference
from elysia.data.formats.registry import FORMATS, Format
from elysia.data.formats.registry import xtuner as conversation_format

MapFunction = Callable[[dict[str, Any]], Any]


def is_function_path(format: str) -> bool:
    """Whether a dataset format is the name of a function, `FILE.py:NAME`."""
    file, colon, name = format.rpartition(":")
    return bool(colon) and file.endswith(".py") and name.isidentifier()


def load_map_function(format: str) -> Format:
    """The function `FILE.py:NAME` as a dataset format: what it returns is put over the row, which then
    has `conversation`. ConfigError when there is no such function, or when it uses something that cannot
    be imported."""
    function, path = _load_file_function(format)

    def convert(row: Mapping[str, Any]) -> list[Message]:
        mapped = _apply_function(function, row, path, ["'conversation'"])
        # As in XTuner, an empty conversation leaves the row out.
        return [] if mapped.get("conversation") == [] else conversation_format(mapped)

    return convert


def load_pair_function(format: str) -> PreferenceFormat:
    """`load_map_function` for preference pairs: what the function returns, put over the row, has
    `prompt`, `chosen` and `rejected`, as the format `preference` has."""
    function, path = _load_file_function(format)
    keys = ["'prompt'", "'chosen'", "'rejected'"]
    return lambda row: preference(_apply_function(function, row, path, keys))


def _load_file_function(format: str) -> tuple[FunctionType, str]:
    """The function and its file."""
    path, _, name = format.rpartition(":")
    if not Path(path).is_file():
        raise ConfigError("compat.map_file_missing", path=path, name=name)
    config = loader.load_config_file(Path(path))
    functions = {f.__name__: f for f in loader.collect_functions(loader.config_to_tree(config))}
    if name not in functions:
        raise ConfigError("compat.map_function_missing", path=path, name=name)
    resolve_imports(functions[name])
    return functions[name], path


def resolve_imports(function: FunctionType) -> None:
    """Carry out the imports that a function of a lazily loaded file uses, and those of the functions it
    calls. ConfigError for a name that cannot be imported."""
    visited: set[int] = set()
    pending = [function]
    while pending:
        current = pending.pop()
        if id(current) in visited:
            continue
        visited.add(id(current))
        scope = current.__globals__
        for name in _collect_names(current.__code__):
            value = scope.get(name)
            if isinstance(value, FunctionType) and value.__globals__ is scope:
                pending.append(value)
            symbol = loader.to_plain(value)
            if isinstance(symbol, ConfigSymbol) and not isinstance(value, str):
                scope[name] = _import_symbol(value, symbol, current.__name__)


def _collect_names(code: CodeType) -> set[str]:
    """The global names of a function's code, of functions inside it too."""
    inner = (c for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*map(_collect_names, inner))


def _import_symbol(lazy: Any, symbol: ConfigSymbol, function: str) -> Any:
    """What a lazy object stands for; `function` uses it."""
    if symbol.path.split(".")[0] == "xtuner":
        if symbol.name in MAP_FUNCTIONS and find_symbol_error(symbol) is None:
            return to_map_function(FORMATS[MAP_FUNCTIONS[symbol.name]])
        raise ConfigError(
            "compat.map_function_xtuner_name", name=function, symbol=symbol, place=symbol.location
        )
    try:
        return lazy.build()
    except Exception as error:  # another package's import may raise anything
        raise ConfigError(
            "compat.map_function_import_failed",
            name=function,
            symbol=symbol,
            kind=type(error).__name__,
            reason=error,
        ) from error


def to_map_function(format: Format) -> MapFunction:
    """A dataset format as XTuner's map functions are called: a row to `{"conversation": […]}`."""

    def map_row(row: Mapping[str, Any]) -> dict[str, Any]:
        return {"conversation": build_turns(format(row))}

    return map_row


def build_turns(messages: list[Message]) -> list[dict[str, Any]]:
    """Messages as XTuner's turns.

    >>> build_turns([Message("user", "a"), Message("assistant", "b")])
    [{'input': 'a', 'output': 'b'}]
    """
    turns: list[dict[str, Any]] = []
    turn: dict[str, Any] = {"input": ""}
    for message in messages:
        if message.role == "assistant":
            turn["output"] = message.text
            if not message.learned:
                turn["output_with_loss"] = False
            turns.append(turn)
            turn = {"input": ""}
        else:
            key = "system" if message.role == "system" else "input"
            turn[key] = f"{turn[key]}\n{message.text}" if turn.get(key) else message.text
    return turns


def _apply_function(
    function: FunctionType, row: Mapping[str, Any], path: str, keys: list[str]
) -> dict[str, Any]:
    """The row with what the function returns put over it; `keys` are those it should have."""
    name = function.__name__
    try:
        result = function(dict(row))
    except DataError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise DataError(
            "compat.map_function_raised",
            name=name,
            path=path,
            kind=type(error).__name__,
            reason=error,
        ) from error
    if result is not None and not isinstance(result, Mapping):
        kind = type(result).__name__
        raise DataError(
            "compat.map_function_bad_result", name=name, path=path, kind=kind, keys=keys
        )
    return {**row, **(result or {})}


def is_importable(path: str) -> bool:
    """Whether a dotted name leads to something that can be imported."""
    module, _, name = path.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), name)
    except Exception:  # importing runs the package's code, which may raise anything
        return False
