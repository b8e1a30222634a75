"""The run card: what a later stage must know of an earlier one, beside the weights.

Every folder of weights carries `run_card.json`: the base and its fingerprint, the prompt template
as text, stop words, system prompt, datasets, config hash, versions and metrics. Chat, merge and
export read the template from there, so training and chatting cannot disagree. Knows nothing of
weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from elysia.core.errors import RunCardError
from elysia.core.files import write_atomic

FILE = "run_card.json"
STAGES = ("train", "adapter", "merged", "base", "quantized")
METHODS = ("full", "lora", "qlora")


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class RunCard:
    """Where weights come from and how to talk to them.

    `base_weights` is the fingerprint of the base's weights (`models.load.fingerprint`), `template`
    a `PromptTemplate.to_dict()`, `datasets` a list of dict(path, format, rows, sha256). `created`
    is in ISO 8601, UTC. Keys that this version does not know are kept in `extra` and written back.
    """

    stage: str
    base_model: str
    base_weights: dict[str, Any] = field(default_factory=dict)
    template: dict[str, Any] = field(default_factory=dict)
    stop_words: list[str] = field(default_factory=list)
    system: str = ""
    persona: str | None = None
    method: str = "qlora"
    datasets: list[dict[str, Any]] = field(default_factory=list)
    config_sha256: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=_utc_now)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise RunCardError(
                f"A run card's stage is {self.stage!r}, none of {', '.join(STAGES)}."
            )
        if self.method not in METHODS:
            raise RunCardError(
                f"A run card's method is {self.method!r}, none of {', '.join(METHODS)}."
            )

    @classmethod
    def read(cls, folder: str | Path, name: str = FILE) -> RunCard | None:
        """The card of a folder (of a file in it, under that file's `name`), or None without one.

        Raises RunCardError, naming file and key, when it is there and cannot be trusted.
        """
        path = Path(folder) / name
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise RunCardError(f"{path} cannot be read: {error}.") from error
        try:
            values = json.loads(text)
        except ValueError as error:
            raise RunCardError(
                f"{path} is damaged: {error}. Convert or train again, or put the original back."
            ) from error
        return cls.from_dict(values, where=str(path))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "A run card") -> RunCard:
        """A card from plain values; RunCardError names `where` and the key at fault."""
        if not isinstance(values, Mapping):
            raise RunCardError(f"{where} holds a {type(values).__name__} instead of an object.")
        known = {name: kind for name, kind in _FIELD_TYPES.items() if name in values}
        for key in ("stage", "base_model"):
            if key not in values:
                raise RunCardError(f"{where} lacks the key '{key}'.")
        for key, kind in known.items():
            if not isinstance(values[key], kind):
                found = type(values[key]).__name__
                raise RunCardError(f"{where}: the key '{key}' is of type {found}.")
        extra = {key: value for key, value in values.items() if key not in _FIELD_TYPES}
        try:
            return cls(**{key: values[key] for key in known}, extra=extra)
        except RunCardError as error:
            raise RunCardError(f"{where}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, unknown keys included."""
        values = asdict(self)
        extra = values.pop("extra")
        return {**values, **extra}

    def write(self, folder: str | Path) -> Path:
        """Write the card into `folder`, atomically; the path it went to."""
        path = Path(folder) / FILE
        text = json.dumps(self.to_dict(), ensure_ascii=False, indent=2)
        write_atomic(path, text + "\n")
        return path

    def updated(self, **changes: Any) -> RunCard:
        """A copy with `changes`; `metrics` are added to those it has."""
        if "metrics" in changes:
            changes["metrics"] = {**self.metrics, **changes["metrics"]}
        return replace(self, **changes)


_OBJECT_FIELDS = {"base_weights", "template", "versions", "metrics"}
_LIST_FIELDS = {"stop_words", "datasets"}
_FIELD_TYPES: dict[str, type | tuple[type, ...]] = {
    f.name: dict if f.name in _OBJECT_FIELDS else list if f.name in _LIST_FIELDS else str
    for f in fields(RunCard)
    if f.name != "extra"
}
_FIELD_TYPES["persona"] = (str, type(None))
