"""The base of settings classes: types and ranges checked by pydantic, refused as a `ConfigError` that names
the setting.
"""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from elysia.core.errors import ConfigError, nearest
from elysia.core.i18n import Text

# pydantic's name of a range error -> (our code, the key of its limit).
_RANGE_ERRORS = {
    "greater_than_equal": ("train.setting_too_small", "ge"),
    "greater_than": ("train.setting_not_above", "gt"),
    "less_than_equal": ("train.setting_too_large", "le"),
    "less_than": ("train.setting_not_below", "lt"),
}


class SettingsModel(BaseModel):
    """Immutable, checked settings. A field is one setting: its type, its range (`Field(0, ge=0)`) and, as the
    string below it, its meaning, from which the reference page is written.

    Values are widened only where nothing is lost: int to float, list to tuple and back, and text to float
    ("1e-4" stays text in MMEngine's option parser).
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )
    reference_page: ClassVar[str] = "docs/settings.md"
    # Settings that came after the first release: at their default they mean what their absence meant, and
    # must not change the hash by which a run of an older version knows its config.
    later_settings: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, **values: Any) -> None:
        self.refuse_unknown(values)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise self._translate(error, values) from None

    @classmethod
    def build(cls, values: Mapping[str, Any], where: str) -> Self:
        """Settings from plain values; every `ConfigError` names `where` they come from."""
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError("train.in_config", where=where, error=error) from None

    @classmethod
    def refuse_unknown(cls, names: Iterable[str]) -> None:
        """`ConfigError` for the first of `names` that is no setting, with the nearest one."""
        for name in names:
            if name not in cls.model_fields:
                hint = nearest(name, cls.model_fields)
                raise ConfigError(
                    "train.unknown_setting", name=name, hint=hint, page=cls.reference_page
                )

    def replace(self, **changes: Any) -> Self:
        """A checked copy with some values changed."""
        return type(self)(
            **{**{name: getattr(self, name) for name in type(self).model_fields}, **changes}
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        plain: dict[str, Any] = json.loads(json.dumps(self.model_dump()))
        return plain

    def sha256(self) -> str:
        """Identifies the values, whatever files they came from and whichever version wrote them."""
        values = {
            name: value
            for name, value in self.to_dict().items()
            if name not in self.later_settings
            or getattr(self, name) != type(self).model_fields[name].default
        }
        text = json.dumps(values, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @field_validator("*", mode="before")
    @classmethod
    def _widen(cls, value: Any, info: Any) -> Any:
        annotation = cls.model_fields[info.field_name].annotation
        if annotation is float and isinstance(value, str):
            return _parse_float(value)
        if isinstance(value, list) and get_origin(annotation) is tuple:
            return tuple(value)
        arms = _get_arms(annotation)
        if isinstance(value, tuple) and any(get_origin(arm) is list for arm in arms):
            return list(value)
        return value

    @classmethod
    def _translate(cls, error: ValidationError, values: Mapping[str, Any]) -> ConfigError:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        if first["type"] == "missing" and len(first["loc"]) == 1:
            return ConfigError("train.setting_missing", where=cls.__name__, name=name)
        value = values[name]
        if first["type"] in _RANGE_ERRORS:
            code, key = _RANGE_ERRORS[first["type"]]
            return ConfigError(code, name=name, value=value, limit=f"{first['ctx'][key]:g}")
        annotation = cls.model_fields[name].annotation
        expected: str | Text = describe_type(annotation)
        if get_origin(annotation) is Literal:
            expected = Text("train.one_of", {"choices": list(map(repr, get_args(annotation)))})
        return ConfigError(
            "train.setting_type",
            name=name,
            expected=expected,
            value=repr(value),
            kind=type(value).__name__,
        )


def describe_type(annotation: Any) -> str:
    """A type as the reference page and an error write it.

    >>> describe_type(float), describe_type(str | list[str]), describe_type(dict[str, Any])
    ('float', 'str | list[str]', 'dict[str, Any]')
    """
    plain = isinstance(annotation, type) and not get_args(annotation)
    return annotation.__name__ if plain else str(annotation).replace("typing.", "")


def _get_arms(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; any other type alone."""
    is_union = get_origin(annotation) in (types.UnionType, Union)
    return get_args(annotation) if is_union else (annotation,)


def _parse_float(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
