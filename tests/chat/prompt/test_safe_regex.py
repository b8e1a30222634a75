"""Patterns of strangers end, whatever they are."""

import pytest

from elysia.chat.prompt.safe_regex import TimeLimitedRegex


@pytest.mark.parametrize(
    ("pattern", "text", "case_sensitive", "expected"),
    [
        ("se+a", "the Seea", False, True),
        ("se+a", "the Seea", True, False),
        (r"\bsea\b", "seaside", False, False),
        ("/SEA/i", "sea", True, True),
        ("/a.b/s", "a\nb", True, True),
        ("海(边|上)", "我们去海边吧", False, True),
        ("/sea/q", "sea", False, None),
        ("(", "(", False, None),
        ("a" * 1001, "a", False, None),
    ],
)
def test_a_pattern_is_searched_and_an_invalid_one_is_none(pattern, text, case_sensitive, expected):
    assert TimeLimitedRegex().search(pattern, text, case_sensitive) is expected


@pytest.mark.timeout(120)  # unbounded it would be years
@pytest.mark.parametrize(
    "pattern", [r"(a+)+$", r"(a|a)*$", r"(.*a){20}$", r"(a*)*b", r"(?:a?){60}a{60}$"]
)
def test_a_catastrophic_pattern_is_stopped_and_not_tried_again(pattern):
    patterns = TimeLimitedRegex()
    text = "a" * 5_000 + "!"
    for _ in range(20):
        patterns.new_turn()
        assert not patterns.search(pattern, text, False)


def test_many_slow_patterns_share_one_time_limit():
    patterns = TimeLimitedRegex(limit=0.02, turn_limit=0.05)
    text = "a" * 5_000 + "!"
    hits = [patterns.search(rf"(a+)+{n}$", text, False) for n in range(2_000)]
    assert not any(hits) and patterns.search("a", text, False) is None
    patterns.new_turn()
    assert patterns.search("a", text, False) is True
