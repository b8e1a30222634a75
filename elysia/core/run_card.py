"""The run card, `run_card.json`: what a later stage needs to know about the weights it lies beside.

It holds the base model and its fingerprint, the prompt template as text, stop words, system prompt,
datasets, config hash, versions and metrics. Chat, merge and export take the template from it, so that
training and chatting cannot disagree.
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
    """Where weights come from and how to prompt them.

    `base_weights` is the fingerprint of the base's weights (`models.load.fingerprint`), `template`
    a `PromptTemplate.to_dict()`, `datasets` a list of dict(path, format, rows, sha256). `created`
    is in ISO 8601, UTC. Keys unknown to this version are held in `extra` and written back.
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
            raise RunCardError("core.run_card_stage", stage=repr(self.stage), stages=STAGES)
        if self.method not in METHODS:
            raise RunCardError("core.run_card_method", method=repr(self.method), methods=METHODS)

    @classmethod
    def read(cls, folder: str | Path, name: str = FILE) -> RunCard | None:
        """The card in `folder`, under `name` (a GGUF file has a name of its own for it); None without one.

        Raises RunCardError, naming file and key, when it is damaged.
        """
        path = Path(folder) / name
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise RunCardError("core.file_unreadable", path=path, reason=str(error)) from error
        try:
            values = json.loads(text)
        except ValueError as error:
            raise RunCardError("core.run_card_damaged", path=path, reason=str(error)) from error
        return cls.from_dict(values, where=str(path))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "A run card") -> RunCard:
        """A card from plain JSON values. Raises RunCardError, naming `where` and the wrong key."""
        if not isinstance(values, Mapping):
            raise RunCardError("core.run_card_not_object", where=where, kind=type(values).__name__)
        known = {name: kind for name, kind in _FIELD_TYPES.items() if name in values}
        for key in ("stage", "base_model"):
            if key not in values:
                raise RunCardError("core.run_card_lacks_key", where=where, key=key)
        for key, kind in known.items():
            if not isinstance(values[key], kind):
                actual = type(values[key]).__name__
                raise RunCardError("core.run_card_key_type", where=where, key=key, kind=actual)
        extra = {key: value for key, value in values.items() if key not in _FIELD_TYPES}
        try:
            return cls(**{key: values[key] for key in known}, extra=extra)
        except RunCardError as error:
            raise RunCardError("core.at", where=where, problem=error) from None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the unknown keys."""
        values = asdict(self)
        extra = values.pop("extra")
        return {**values, **extra}

    def write(self, folder: str | Path) -> Path:
        """Write the card into `folder` atomically; returns its path."""
        path = Path(folder) / FILE
        text = json.dumps(self.to_dict(), ensure_ascii=False, indent=2)
        write_atomic(path, text + "\n")
        return path

    def updated(self, **changes: Any) -> RunCard:
        """A copy with `changes`; `metrics` are added to the card's own."""
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
