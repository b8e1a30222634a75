"""Lorebook activation, against each line of the specification."""

import random
import re

import pytest

from elysia.core.errors import PersonaError
from elysia.core.lorebook import MAX_ENTRIES, parse_lorebook, split_decorators
from elysia.core.lorebook_activation import ScanContext, activate_entries
from elysia.core.macros import MacroExpander
from elysia.core.messages import Message


def entry(*keys, content="lore", **more):
    return {
        "keys": list(keys),
        "content": content,
        "extensions": {},
        "enabled": True,
        "insertion_order": 0,
        **more,
    }


def chat(*texts):
    """Messages by turns, the character first."""
    return [
        Message("user" if number % 2 else "assistant", text) for number, text in enumerate(texts)
    ]


def search(pattern, text, case_sensitive):
    try:
        return re.search(pattern, text, 0 if case_sensitive else re.I) is not None
    except re.error:
        return None


def chosen(entries, *texts, book=None, count=len, scene=None, **more):
    lore = activate_entries(
        parse_lorebook({"extensions": {}, "entries": entries, **(book or {})}),
        ScanContext(chat(*texts), **(scene or {})),
        count,
        search=search,
        **more,
    )
    return [item.text for item in lore.inserted]


MATCHES = [
    (entry("sea"), ["the sea"], True),
    (entry("sea", "lake"), ["a lake"], True),
    (entry("sea"), ["a hill"], False),
    (entry("SEA"), ["the sea"], True),
    (entry("SEA", case_sensitive=True), ["the sea"], False),
    (entry("Sea", case_sensitive=True), ["the Sea"], True),
    (entry("爱莉"), ["爱莉你好，Eden在吗"], True),
    (entry("Eden"), ["爱莉你好，Eden在吗"], True),
    (entry(""), ["anything"], False),
    (entry(), ["anything"], False),
    (entry("sea", enabled=False), ["the sea"], False),
    (entry("x", constant=True), [], True),
    (entry("x", constant=True, enabled=False), ["x"], False),
    (entry("x", constant=True, use_regex=True), ["y"], False),
    (entry("sea", selective=True, secondary_keys=["gull"]), ["the sea"], False),
    (entry("sea", selective=True, secondary_keys=["gull"]), ["sea, gull"], True),
    (entry("sea", selective=True, secondary_keys=["gull"]), ["a gull", "the sea"], True),
    (entry("sea", selective=True, secondary_keys="gull, crab"), ["sea, crab"], True),
    (entry("sea", selective=True, secondary_keys=[]), ["sea"], True),
    (entry("sea", selective=False, secondary_keys=["gull"]), ["sea"], True),
    (entry("se+a", use_regex=True), ["seeea"], True),
    (entry("se+a"), ["seeea"], False),
    (entry("SE+A", use_regex=True, case_sensitive=True), ["seea"], False),
    (entry("(", use_regex=True), ["("], False),
    (entry("sea", "(", use_regex=True), ["sea"], False),
    (entry("sea", use_regex=True, selective=True, secondary_keys=["no"]), ["sea"], True),
    (entry("sea", content=""), ["sea"], False),
    (entry("sea", content="@@depth 1\n\n"), ["sea"], False),
    (entry("{{char}}"), ["Mira came"], True),
    (entry("sea"), ["{{// the sea}}"], False),
    (entry("sea"), ["{{hidden_key:sea}}"], False),
    (entry("x", content="@@activate\nlore"), [], True),
    (entry("x", content="@@activate\nlore", enabled=False), ["x"], False),
    (entry("x", content="@@dont_activate\nlore", constant=True), ["x"], False),
    (entry("x", content="@@dont_activate\n@@activate\nlore"), [], True),
    (entry("x", content="@@activate_only_after 2\nlore"), ["x", "x"], False),
    (entry("x", content="@@activate_only_after 2\nlore"), ["x", "x", "x"], True),
    (entry("x", content="@@activate_only_every 2\nlore"), ["x", "x", "x"], True),
    (entry("x", content="@@activate_only_every 2\nlore"), ["x"], False),
    (entry("x", content="@@activate_only_every 0\nlore"), ["x"], True),
    (entry("x", content="@@additional_keys y,z\nlore"), ["x"], False),
    (entry("x", content="@@additional_keys y,z\nlore"), ["x z"], True),
    (entry("x", content="@@additional_keys y\nlore", constant=True), ["x"], False),
    (entry("x", content="@@additional_keys y\nlore", use_regex=True), ["y"], True),
    (entry("x", content="@@additional_keys (\nlore", use_regex=True), ["x"], False),
    (entry("x", content="@@exclude_keys y\nlore"), ["x y"], False),
    (entry("x", content="@@exclude_keys y\nlore"), ["x"], True),
    (entry("x", content="@@exclude_keys y\nlore", use_regex=True), ["x y"], True),
    (entry("x", content="@@scan_depth 1\nlore"), ["x", "other"], False),
    (entry("x", content="@@scan_depth 2\nlore"), ["x", "other"], True),
    (entry("x", content="@@unheard_of 1\n@@@dont_activate\nlore"), ["x"], False),
    (entry("x", content="@@depth 1\n@@@dont_activate\nlore"), ["x"], True),
    (entry("x", content="@@depth no\n@@@no_one\n@@@dont_activate\nlore"), ["x"], False),
]  # fmt: skip


@pytest.mark.parametrize(("document", "texts", "matches"), MATCHES)
def test_an_entry_matches_as_specified(document, texts, matches):
    assert bool(chosen([document], *texts, fill=MacroExpander("Mira", "Tom").fill)) is matches


@pytest.mark.parametrize(
    ("depth", "matches"), [(0, False), (1, False), (2, False), (3, True), (9, True)]
)
def test_only_the_last_messages_are_scanned(depth, matches):
    assert bool(chosen([entry("sea")], "sea", "b", "c", book={"scan_depth": depth})) is matches


def test_lower_insertion_orders_go_first_and_an_entry_is_inserted_once():
    entries = [entry("a", "b", content=str(order), insertion_order=order) for order in (5, -1, 2.5)]
    assert chosen(entries, "a b a", "a b") == ["-1", "2.5", "5"]


def test_over_budget_the_lowest_priority_goes_else_the_lowest_insertion_order():
    entries = [
        entry("a", content="aaaa", priority=9, insertion_order=1),
        entry("a", content="bbbb", priority=1, insertion_order=3),
        entry("a", content="cccc", priority=5, insertion_order=2),
    ]
    assert chosen(entries, "a", book={"token_budget": 8}) == ["aaaa", "cccc"]
    for document in entries:
        del document["priority"]
    assert chosen(entries, "a", book={"token_budget": 8}) == ["cccc", "bbbb"]
    assert chosen(entries, "a", book={"token_budget": 0}) == []
    assert chosen(entries, "a", book={"token_budget": 2}, count=lambda text: 1) == ["cccc", "bbbb"]


def test_what_was_dropped_and_why_each_matched_is_told():
    book = parse_lorebook(
        {
            "entries": [entry("a", content="aaaa", insertion_order=2), entry("b", content="bb")],
            "token_budget": 4,
        }
    )
    lore = activate_entries(book, ScanContext(chat("a b")), len)
    assert [(item.why, item.tokens) for item in lore.inserted] == [("a", 4)]
    assert [(item.why, item.tokens) for item in lore.dropped] == [("b", 2)]


def test_entries_wake_entries_only_where_the_book_says_so_and_beyond_the_scan_depth():
    entries = [
        entry("c", content="end"),
        entry("b", content="to c"),
        entry("a", content="to {{hidden_key:b}}"),
    ]
    macros = MacroExpander("Mira").fill
    assert chosen(entries, "a", fill=macros) == ["to"]
    book = {"recursive_scanning": True, "scan_depth": 1}
    assert chosen(entries, "a", book=book, fill=macros) == ["end", "to c", "to"]
    entries[0]["extensions"] = {"exclude_recursion": True}
    assert chosen(entries, "a", book=book, fill=macros) == ["to c", "to"]
    entries[1]["extensions"] = {"prevent_recursion": True}
    entries[0]["extensions"] = {}
    assert chosen(entries, "a", book=book, fill=macros) == ["to c", "to"]


def test_decorators_that_look_back_and_around():
    keep = entry("x", content="@@keep_activate_after_match\nlore", id=7)
    dont = entry("x", content="@@dont_activate_after_match\nlore", id="seven")
    assert chosen([keep], "y") == [] and chosen([keep], "y", scene={"matched_before": {"7"}})
    assert chosen([dont], "x") and chosen([dont], "x", scene={"matched_before": {"seven"}}) == []
    first = entry("x", content="@@is_greeting 1\nlore")
    assert [bool(chosen([first], "x", scene={"greeting": n})) for n in (None, 0, 1)] == [
        True,
        False,
        True,
    ]
    small = entry("x", content="@@ignore_on_max_context\nlore")
    assert chosen([small], "x") and chosen([small], "x", scene={"full": True}) == []
    icon = entry("x", content="@@is_user_icon hat\nlore")
    assert chosen([icon], "x", scene={"user_icon": "hat"}) and not chosen(
        [icon], "x", scene={"user_icon": "cap"}
    )


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (entry("x", position="after_char"), ("after_char", "system")),
        (entry("x", position="after_char_defs"), ("after_char", "system")),
        (entry("x"), ("before_char", "system")),
        (entry("x", content="@@depth 3\n@@role user\nlore"), ("depth", 3, "user")),
        (entry("x", content="@@depth 3\n@@position personality\nlore"), ("personality", "system")),
        (entry("x", content="@@position nowhere\n@@depth -2\nlore"), ("depth", 0, "system")),
        (entry("x", content="@@role king\nlore"), ("before_char", "system")),
        (entry("x", extensions={"position": 4, "depth": 2, "role": 2}), ("depth", 2, "assistant")),
    ],
)
def test_an_entry_goes_where_it_says(document, place):
    lore = activate_entries(parse_lorebook({"entries": [document]}), ScanContext(chat("x")), len)
    (item,) = lore.inserted
    assert item.text == "lore"
    assert (item.place, item.role) == (place[0], place[-1])
    assert item.place != "depth" or item.depth == place[1]


def test_the_first_of_two_decorators_holds_and_text_without_any_is_untouched():
    assert split_decorators("@@depth 1\n@@depth 2\n\n\nThe sea.\n@@ no\n") == (
        {"depth": 1},
        "The sea.\n@@ no",
    )
    assert split_decorators("\n The sea.") == ({}, "\n The sea.")
    assert split_decorators("@@unheard 1\nThe sea.") == ({}, "The sea.")


def world(**more):
    fields = {
        "uid": 3,
        "key": ["sea"],
        "keysecondary": [],
        "content": "salt",
        "order": 5,
        "disable": False,
        "position": 0,
    }
    return {"entries": {"3": fields | more}}


def test_a_world_file_of_sillytavern_means_what_it_means_there():
    def insert(*texts, context=None, **more):
        book = parse_lorebook(world(**more))
        lore = activate_entries(
            book, ScanContext(chat(*texts), context=context), len, chance=random.Random(1)
        )
        return [(item.place, item.depth) for item in lore.inserted]

    assert insert("the sea") == [("before_char", 4)]
    assert insert("the sea", "b") and not insert("the sea", "b", "c")  # two messages
    assert insert("the sea", "b", "c", scanDepth=3)
    assert not insert("the sea", disable=True)
    assert insert(constant=True)
    assert insert("the sea", context=16) and not insert("the sea", context=15)  # a quarter for lore
    assert insert("the sea", position=1) == [("after_char", 4)]
    assert insert("the sea", position=4, depth=2) == [("depth", 2)]
    assert not insert("the SEA", caseSensitive=True)
    assert not insert("seaside", matchWholeWords=True) and insert("the sea.", matchWholeWords=True)
    assert insert("在海边", key=["海"], matchWholeWords=True)
    assert not insert("the sea", probability=0, useProbability=True)
    assert insert("the sea", probability=0, useProbability=False)
    more = {"selective": True, "keysecondary": ["gull", "crab"]}
    logic = {
        text: [bool(insert(text, selectiveLogic=n, **more)) for n in range(4)]
        for text in ("sea", "sea gull", "sea gull crab")
    }
    assert logic == {
        "sea": [False, True, True, False],
        "sea gull": [True, True, False, False],
        "sea gull crab": [True, False, False, True],
    }


def test_a_stand_alone_lorebook_is_read():
    book = parse_lorebook(
        {"spec": "lorebook_v3", "data": {"name": "Sea", "entries": [entry("sea", id="a")]}}
    )
    assert (book.name, book.entries[0].id) == ("Sea", "a")


@pytest.mark.parametrize(
    "document", [None, [], {}, {"entries": 5}, {"entries": [{}] * (MAX_ENTRIES + 1)}]
)
def test_what_is_no_lorebook_gets_a_sentence(document):
    with pytest.raises(PersonaError, match="my file"):
        parse_lorebook(document, "my file")


def test_fields_of_a_wrong_kind_count_as_absent():
    odd = {
        "keys": [5, None, "sea"],
        "content": 7,
        "insertion_order": "first",
        "priority": True,
        "extensions": [],
    }
    odd2 = entry(
        "sea",
        insertion_order=float("inf"),
        extensions={"role": 1e300, "selectiveLogic": 99, "position": 1e300},
    )
    assert chosen(
        [odd, odd2, None, "x"], "sea", book={"scan_depth": "two", "token_budget": -1}
    ) == ["lore"]


def test_without_a_search_a_regex_never_matches():
    book = parse_lorebook({"entries": [entry(".", use_regex=True)]})
    assert not activate_entries(book, ScanContext(chat("x")), len).inserted


@pytest.mark.timeout(60)
def test_a_book_at_every_bound_is_scanned_in_time():
    entries = [
        entry(*(f"k{n}x{m}" for m in range(20)), content=f"k{n + 1}x3 " * 40)
        for n in range(MAX_ENTRIES // 10)
    ]
    assert len(chosen(entries, "k0x0", book={"recursive_scanning": True})) == 10
