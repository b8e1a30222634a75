"""docs/settings.md from the settings class: `python scripts/settings_doc.py > docs/settings.md`.

Names, types, defaults, ranges and meanings are those of `elysia.train.config.settings.Settings`; a comment on a
line of its own opens a group there.
"""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from elysia.train.config.schema import describe_type
from elysia.train.config.settings import Settings

INTRO = """\
# Settings

Written by `python scripts/settings_doc.py > docs/settings.md`; do not edit.

A config file sets these names and nothing else. `_base_ = ['./other.py']` inherits, and a child's
value is the one that trains; `--cfg-options name=value` on the command line comes last. A name that
is not listed here is refused with the nearest one, a value of the wrong type with the type it should be.
Two have no default: `pretrained_model_name_or_path` and `data_path` must be set.

Lengths are in tokens. A *step* is one optimizer step: `accumulative_counts` micro-batches of
`batch_size` rows on every device. `xtuner check-custom-dataset CONFIG` reads all data of a config
before anything is trained; the expanded MMEngine config of a run lies in its work dir.
"""

LIMITS = {"ge": "At least", "gt": "Above", "le": "At most", "lt": "Below"}


def find_groups() -> dict[str, str]:
    """The first setting of each group -> the group's name."""
    pattern = re.compile(r"^    # (.+)\n    (\w+):", re.M)
    return {name: group for group, name in pattern.findall(inspect.getsource(Settings))}


def format_type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value!r}`" for value in get_args(annotation))
    return f"`{describe_type(annotation)}`".replace("|", "\\|")


def format_default(setting: FieldInfo) -> str:
    if setting.is_required():
        return ""
    return f"`{setting.get_default(call_default_factory=True)!r}`"


def format_limits(setting: FieldInfo) -> str:
    """The range as a sentence, or nothing."""
    limits = [
        f"{words} {getattr(limit, key):g}"
        for limit in setting.metadata
        for key, words in LIMITS.items()
        if hasattr(limit, key)
    ]
    text = ", ".join(limits)
    return text[:1] + text[1:].lower() + "." if text else ""


def build_page() -> str:
    """docs/settings.md."""
    parts, groups = [INTRO], find_groups()
    for name, setting in Settings.model_fields.items():
        if name in groups:
            parts.append(f"\n## {groups[name]}\n\n| name | type | default | |\n|---|---|---|---|\n")
        meaning = " ".join((setting.description or "").split())
        notes = " ".join(filter(None, [meaning, format_limits(setting)]))
        default = format_default(setting)
        parts.append(f"| `{name}` | {format_type(setting.annotation)} | {default} | {notes} |\n")
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(build_page())
