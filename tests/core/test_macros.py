"""Every macro of the V3 specification."""

import random

import pytest

from elysia.core.macros import MacroExpander, expand_for_scan


def filled(text, **more):
    return MacroExpander("Mira", "Tom", random.Random(1), **more).fill(text)


@pytest.mark.parametrize(
    ("text", "expansion"),
    [
        ("{{char}} {{CHAR}} {{ Char }}", "Mira Mira Mira"),
        ("{{user}} {{USER}}", "Tom Tom"),
        ("<BOT> <bot> <char> <USER> <user>", "Mira Mira Mira Tom Tom"),
        ("a{{// hidden, {{char}} }}b", "ab"),
        ("a{{hidden_key:moon}}b", "ab"),
        ("a{{Comment: seen inline}}b", "ab"),
        ("{{reverse:Hello}}", "olleH"),
        ("{{reverse:{{char}}}}", "ariM"),
        ("{{random:one}}", "one"),
        (r"{{random:one\,two}}", "one,two"),
        ("{{pick::same}}", "same"),
        ("{{roll:1}} {{roll:d1}} {{ROLL:D1}}", "1 1 1"),
        ("{{roll:0}} {{roll:x}}", "{{roll:0}} {{roll:x}}"),
        ("{{moon}} {{moon:1}} {char}", "{{moon}} {{moon:1}} {char}"),
        ("{{{char}}}", "{Mira}"),
        ("{{char", "{{char"),
        ("char}}", "char}}"),
        ("{{original}}", "{{original}}"),
        ("", ""),
    ],
)
def test_a_macro_becomes_what_the_specification_says(text, expansion):
    assert filled(text) == expansion


def test_original_is_filled_where_there_is_one():
    assert filled("{{Original}}!", original="Be kind.") == "Be kind.!"


def test_random_and_roll_draw_from_the_source_that_is_handed_in():
    text = "{{random:a,b,c,d}}{{roll:d6}}{{random:a,b,c,d}}{{roll:20}}"
    once, again = (MacroExpander("a", chance=random.Random(7)).fill(text) for _ in range(2))
    assert once == again
    macros = MacroExpander("a", chance=random.Random(7))
    assert {macros.fill("{{random:Hello,Hi,Hey}}") for _ in range(60)} == {"Hello", "Hi", "Hey"}
    assert {macros.fill("{{roll:d6}}") for _ in range(200)} == set("123456")


def test_pick_stays_while_the_seed_does_and_no_draw_moves_it():
    text = "{{pick:a,b,c,d,e,f}}"
    assert len({filled(text, seed="x") for _ in range(5)}) == 1
    assert len({filled(text, seed=str(n)) for n in range(40)}) == 6
    macros = MacroExpander("a", chance=random.Random(1), seed="x")
    before = macros.fill(text)
    macros.fill("{{random:a,b}}")
    assert macros.fill(text) == before


def test_what_a_macro_becomes_is_not_read_again():
    assert MacroExpander("{{user}}", "{{char}}").fill("{{char}}{{user}}") == "{{user}}{{char}}"


def test_keys_are_looked_for_without_comments_and_hidden_keys_wake_other_entries_only():
    text = "sea{{// gull}}{{comment: crab}}{{hidden_key:pearl}} {{char}} <USER>"
    assert expand_for_scan(text) == "sea {{char}} <user>"
    assert expand_for_scan(text, recursive=True) == "seapearl {{char}} <user>"


@pytest.mark.timeout(60)  # quadratic time would take hours
def test_a_million_braces_are_no_trouble():
    assert filled("{{" * 300_000 + "}}" * 300_000).startswith("{{")
