"""Every sentence and word that people see, in English and Chinese: looked up by code, filled with parameters.

The table lies in `locales/<group>.toml`; the code `data.row_not_object` is the entry `[row_not_object]`
of `data.toml`, with one format string per language:

    [row_not_object]
    en = "{path}, line {line}: a row must be a JSON object."
    zh = "{path} 第 {line} 行：每一行应是一个 JSON 对象。"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "zh")
LOCALES = Path(__file__).parent / "locales"

_CODE = re.compile(r"[a-z]\w*\.[a-z]\w*")
_SEPARATORS = {"en": ", ", "zh": "、"}


@dataclass(frozen=True)
class Text:
    """Something to tell a person, before a language is chosen.

    >>> str(Text("core.did_you_mean", {"name": "lr"}))
    " Did you mean 'lr'?"
    """

    code: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def render(self, language: str = "en") -> str:
        return render(self.code, self.params, language)

    def __str__(self) -> str:
        return self.render()


def render(code: str, params: Mapping[str, Any] | None = None, language: str = "en") -> str:
    """The sentence of `code` in `language` ("en" or "zh"), its placeholders filled from `params`.

    A parameter that can be rendered itself (a `Text`, an error) is rendered in the same language, and a
    list is joined by that language's comma. A string that is no code is returned unchanged: the words
    of another program, or a message that an older version stored.

    Raises `KeyError` for a code that is not in the table, or a placeholder without its parameter.
    """
    if not _CODE.fullmatch(code):
        return code
    template = load_table()[code][language if language in LANGUAGES else "en"]
    # Without parameters the template is text as it stands, and may hold braces.
    return template.format(**_rendered(params, language)) if params else template


@cache
def load_table() -> dict[str, dict[str, str]]:
    """The whole table: {code: {language: format string}}."""
    table: dict[str, dict[str, str]] = {}
    for path in sorted(LOCALES.glob("*.toml")):
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
        table |= {f"{path.stem}.{key}": entry for key, entry in entries.items()}
    return table


def _rendered(params: Mapping[str, Any], language: str) -> dict[str, Any]:
    return {name: _render_value(value, language) for name, value in params.items()}


def _render_value(value: Any, language: str) -> Any:
    if hasattr(value, "render"):
        return value.render(language)
    if isinstance(value, (list, tuple)):
        separator = _SEPARATORS.get(language, ", ")
        return separator.join(str(_render_value(item, language)) for item in value)
    return value
