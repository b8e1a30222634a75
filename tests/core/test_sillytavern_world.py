"""World files and lorebooks, one into the other."""

import pytest

from elysia.core.errors import PersonaError
from elysia.core.lorebook import parse_lorebook
from elysia.core.sillytavern_world import (
    convert_lorebook_to_world,
    convert_world_to_lorebook,
    is_world,
)

WORLD = {
    "entries": {
        "3": {"uid": 3, "key": ["sea"], "keysecondary": ["gull"], "content": "salt", "comment": "Sea", "order": 5, "disable": True,
              "position": 4, "depth": 2, "role": 1, "selective": True, "selectiveLogic": 2, "probability": 50, "useProbability": True,
              "group": "waters", "sticky": 3, "constant": False, "scanDepth": 7, "caseSensitive": True, "strange": {"x": [1]}},
        "9": {"uid": 9, "key": ["hill"], "content": "steep", "order": 1, "disable": False, "position": 1, "preventRecursion": True},
    },
    "originalData": {"kept": True},
}  # fmt: skip


def test_a_world_comes_back_with_every_field():
    book = convert_world_to_lorebook(WORLD)
    assert is_world(WORLD) and not is_world(book)
    again, lost = convert_lorebook_to_world(book["data"])
    assert not lost and again == WORLD
    assert book["spec"] == "lorebook_v3"


def test_a_world_means_the_same_as_a_lorebook():
    for item, other in zip(
        parse_lorebook(WORLD).entries,
        parse_lorebook(convert_world_to_lorebook(WORLD)).entries,
        strict=True,
    ):
        assert vars(item) == vars(other)


def test_what_a_world_cannot_say_is_told():
    entry = {"keys": ["a"], "content": "x", "enabled": True, "priority": 3, "use_regex": True}
    converted, lost = convert_lorebook_to_world({"token_budget": 5, "entries": [entry]})
    assert len(lost) == 3 and converted["entries"]["0"]["key"] == ["a"]


def test_an_entry_that_is_none_gets_a_sentence():
    with pytest.raises(PersonaError, match="'0'"):
        convert_world_to_lorebook({"entries": {"0": 5}})
