"""Plain values of a config as the types that a dataclass of settings names. Knows no settings."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from elysia.core.errors import ConfigError, nearest


def typed(kind: type, values: Mapping[str, Any], where: str, all_of_them: str) -> dict[str, Any]:
    """`values` with the types of `kind`'s fields; ConfigError for an unknown name or a wrong type.

    `where` is named in every complaint; `all_of_them` is a sentence that says where names are listed.
    """
    hints = typing.get_type_hints(kind)
    clean: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            raise ConfigError(
                f"{where}: there is no setting named '{name}'.{nearest(name, hints)} {all_of_them}"
            )
        clean[name] = _converted(value, hints[name], f"{where}: {name}")
    return clean


def _converted(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type that `hint` names, widened only where nothing is lost."""
    if isinstance(value, str) and hint is float and _is_number(value):
        value = float(value)  # MMEngine's option parser leaves '1e-4' a string
    if _fits(value, hint):
        if hint is float:
            return float(value)
        return tuple(value) if get_origin(hint) is tuple else value
    raise ConfigError(
        f"{where} should be {_spelled(hint)}, not {value!r} ({type(value).__name__})."
    )


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, choice) for choice in inner)
    if origin is list:
        return isinstance(value, list | tuple) and all(_fits(v, inner[0]) for v in value)
    if origin is tuple:
        return (
            isinstance(value, list | tuple)
            and len(value) == len(inner)
            and all(map(_fits, value, inner))
        )
    if origin is dict:
        return isinstance(value, Mapping)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _spelled(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    return str(getattr(hint, "__name__", hint)) if not get_args(hint) else str(hint)
