"""`--cfg-options key=value ...`: values as Python literals, else as text. Standard library only."""

from __future__ import annotations

import ast
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from elysia.core.errors import UsageError

HELP = (
    "settings over those of the config: key=value, nested as a.b=value; values are Python literals "
    "(3e-4, None, [a,b]), else text; a,b without spaces is a list; quote twice to keep text: "
    "\"SYSTEM='a,b'\""
)


def add_cfg_options(parser: ArgumentParser) -> None:
    """The flag --cfg-options, which may be given more than once."""
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", default=[], metavar="K=V", help=HELP
    )


def add_hub(parser: ArgumentParser, help: str = "where names lead") -> None:
    """The flag --hub."""
    parser.add_argument("--hub", choices=["huggingface", "modelscope"], default=None, help=help)


def resolve_hub(args: Namespace, adapter: Path) -> str:
    """--hub, else the hub that the adapter's base was trained from, else Hugging Face."""
    from elysia.core.run_card import RunCard

    card = RunCard.read(adapter)
    trained = card.extra.get("training", {}).get("hub") if card else None
    return args.hub or trained or "huggingface"


def parse_cfg_options(pairs: Iterable[str]) -> dict[str, Any]:
    """`["lr=1e-4", "a.b=[x,y]"]` as a flat dict with dotted keys; raises UsageError.

    >>> parse_cfg_options(["lr=1e-4", "name=tiny", "a.b=[x,2]", "betas=0.9,0.99", "on=true"])
    {'lr': 0.0001, 'name': 'tiny', 'a.b': ['x', 2], 'betas': (0.9, 0.99), 'on': True}
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise UsageError(
                f"--cfg-options: '{pair}' is not key=value. "
                "(What follows --cfg-options is read as options; put the config in front of it.)"
            )
        options[key.strip()] = parse_value(value)
    return options


def parse_value(text: str) -> Any:
    """One value: a Python literal where it is one, else a list of words, else the text itself."""
    plain = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in plain:
        return plain[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    inner = text[1:-1] if text[:1] + text[-1:] in ("[]", "()") else text
    bracketed = inner is not text
    if not any(mark in inner for mark in "[](){}"):
        if bracketed:
            items = [parse_value(item.strip()) for item in inner.split(",") if item.strip()]
            return items if text[0] == "[" else tuple(items)
        if "," in inner and not any(c.isspace() for c in inner) and "://" not in inner:
            return [parse_value(item) for item in inner.split(",") if item]
    return text
