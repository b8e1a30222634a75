"""Dataset formats: functions from a row to a conversation, to a preference pair, or to tokens, by name."""

from elysia.data.formats.conversion import (
    RowConverter,
    iter_sample_groups,
    load_chosen_conversations,
    load_conversations,
)
from elysia.data.formats.preference_pairs import (
    PREFERENCES,
    PreferenceFormat,
    detect_pair_format,
)
from elysia.data.formats.pretokenized import PRETOKENIZED
from elysia.data.formats.registry import FORMATS, Format, detect_format

__all__ = [
    "FORMATS",
    "PREFERENCES",
    "PRETOKENIZED",
    "Format",
    "PreferenceFormat",
    "RowConverter",
    "detect_format",
    "detect_pair_format",
    "iter_sample_groups",
    "load_chosen_conversations",
    "load_conversations",
]
