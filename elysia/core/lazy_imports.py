"""Packages that import what they offer on first use, so that importing the package itself stays fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def build_getattr(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A module-level `__getattr__` (PEP 562) for `package`.

    `modules` maps each name that the package offers to the module inside the package that defines it.

    >>> build_getattr("elysia.core", {"get_template": "templates"})("get_template").__name__
    'get_template'
    """

    def __getattr__(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return __getattr__
