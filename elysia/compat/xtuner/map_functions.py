"""A map function of the user's own, by the name `FILE.py:NAME`, as a dataset format.

The file may be a config of XTuner's: XTuner need not be installed. Imports that the function uses
are carried out when it is loaded, names of XTuner's being ours. Knows nothing of datasets.
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
    """The function `FILE.py:NAME` as a dataset format. ConfigError when there is none, or when it
    uses something that cannot be imported."""
    function, name = _load_file_function(format)
    return to_format(function, name)


def load_pair_function(format: str) -> PreferenceFormat:
    """`load_map_function` for preference pairs: what the function returns, put over the row, has
    `prompt`, `chosen` and `rejected`, as the format `preference` has."""
    function, name = _load_file_function(format)
    return lambda row: preference(_apply_function(function, row, name))


def _load_file_function(format: str) -> tuple[MapFunction, str]:
    """The function, and how to speak of it."""
    file, _, name = format.rpartition(":")
    if not Path(file).is_file():
        raise ConfigError(f"There is no file {file} to take the map function {name} from.")
    config = loader.load_config_file(Path(file))
    known = {f.__name__: f for f in loader.collect_functions(loader.config_to_tree(config))}
    if name not in known:
        raise ConfigError(f"{file} defines no function called {name} on its first level.")
    resolve_imports(known[name])
    return known[name], f"{name} of {file}"


def resolve_imports(function: FunctionType) -> None:
    """Carry out the imports that a function of a lazily read file uses."""
    seen: set[int] = set()
    waiting = [function]
    while waiting:
        some = waiting.pop()
        if id(some) in seen:
            continue
        seen.add(id(some))
        names = some.__globals__
        for name in _code_names(some.__code__):
            value = names.get(name)
            if isinstance(value, FunctionType) and value.__globals__ is names:
                waiting.append(value)
            symbol = loader.to_plain(value)
            if isinstance(symbol, ConfigSymbol) and not isinstance(value, str):
                names[name] = _import_symbol(value, symbol, some.__name__)


def _code_names(code: CodeType) -> set[str]:
    inner = (c for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*map(_code_names, inner))


def _import_symbol(lazy: Any, symbol: ConfigSymbol, function: str) -> Any:
    if symbol.path.split(".")[0] == "xtuner":
        if symbol.name in MAP_FUNCTIONS and find_symbol_error(symbol) is None:
            return to_map_function(FORMATS[MAP_FUNCTIONS[symbol.name]])
        raise ConfigError(
            f"The map function {function} uses {symbol}, which has no counterpart here "
            f"({symbol.place}). Its map functions do."
        )
    try:
        return lazy.build()
    except Exception as error:  # another package's import may raise anything
        raise ConfigError(
            f"The map function {function} uses {symbol}, which cannot be imported "
            f"({type(error).__name__}: {error})."
        ) from error


def to_map_function(format: Format) -> MapFunction:
    """A dataset format as XTuner's map functions are called: a row to `{"conversation": […]}`."""

    def mapped(row: Mapping[str, Any]) -> dict[str, Any]:
        return {"conversation": turns_of(format(row))}

    return mapped


def turns_of(messages: list[Message]) -> list[dict[str, Any]]:
    """Messages as XTuner's turns.

    >>> parse_turns([Message("user", "a"), Message("assistant", "b")])
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


def to_format(function: MapFunction, name: str) -> Format:
    """A map function as a dataset format. As in XTuner, what it returns is put over the row, which
    then has `conversation`; an empty conversation leaves the row out."""

    def convert(row: Mapping[str, Any]) -> list[Message]:
        whole = _apply_function(function, row, name, "with 'conversation'")
        return [] if whole.get("conversation") == [] else conversation_format(whole)

    return convert


def _apply_function(
    function: MapFunction,
    row: Mapping[str, Any],
    name: str,
    wanted: str = "with 'prompt', 'chosen' and 'rejected'",
) -> dict[str, Any]:
    """The row with what the function returns put over it."""
    try:
        made = function(dict(row))
    except DataError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise DataError(
            f"the map function {name} raised {type(error).__name__}: {error}."
        ) from error
    if made is not None and not isinstance(made, Mapping):
        raise DataError(
            f"the map function {name} returned {type(made).__name__}; it must return a dict {wanted}."
        )
    return {**row, **(made or {})}


def is_importable(path: str) -> bool:
    """Whether a dotted name leads to something that can be imported."""
    module, _, name = path.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), name)
    except Exception:
        return False
