"""The service's sentences on a Chinese page: those it says, and all that a user can bring about."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from elysia.web.i18n import CHINESE, in_language

CHAT = Path(__file__).parents[2] / "elysia" / "chat"
# What only a developer's or an administrator's call brings about, and lines of damaged files.
TECHNICAL = ("There is no setting", "The card has the greetings", "Line ")


def spoken(module: str) -> set[str]:
    """Every string of a module, `{}` for its values."""
    found = set()
    for node in ast.walk(ast.parse((CHAT / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = [one.value if isinstance(one, ast.Constant) else "{}" for one in node.values]
            found.add("".join(parts))
    return found


def raised(module: str) -> set[str]:
    """The sentences that a module raises."""
    found = set()
    for node in ast.walk(ast.parse((CHAT / f"{module}.py").read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
            continue
        said = node.exc.args[0]
        if isinstance(said, ast.Constant):
            found.add(said.value)
        elif isinstance(said, ast.JoinedStr):
            parts = [one.value if isinstance(one, ast.Constant) else "{}" for one in said.values]
            found.add("".join(parts))
    return found


def test_every_sentence_of_the_table_is_said_somewhere():
    said = set().union(*(spoken(file.stem) for file in CHAT.glob("*.py")))
    assert set(CHINESE) <= said
    for english, chinese in CHINESE.items():
        assert english.count("{}") == chinese.count("{}")


@pytest.mark.parametrize(
    "module", ["service", "rounds", "store", "cast", "prompt", "talk_settings", "transcript"]
)
def test_what_a_user_may_be_told_stands_in_the_table(module):
    told = {one for one in raised(module) if not one.startswith(TECHNICAL)}
    assert told <= set(CHINESE)


def test_values_stay_and_what_is_not_known_stays_as_it_is():
    fault = "The reply failed by a mistake of ours: ValueError: a {strange} one\nof two lines."
    assert in_language(fault, "en") == fault
    assert in_language(fault, "zh") == (
        "回答失败了，是程序的错误：ValueError: a {strange} one\nof two lines。"
    )
    assert in_language("The disk is full.", "zh") == "The disk is full."
