"""Others' words on a page: nothing in them is loaded, run or taken for the page's own."""

from __future__ import annotations

import re
import string

import pytest

from elysia.web.safe_markdown import escape_markdown, sanitize_reply


@pytest.mark.parametrize(
    "text",
    [
        "![x](http://a/b.png)",
        "![x][ref]\n\n[ref]: http://a/b.png",
        "```\n![x](u)\n```",
        "1. a\n\n   ```\n![x](http://a)\n   ```",
        "`![`x](u)",
        ":::a\n```\n:::\n![x](u)",
        "$$\n```\n$$\n![x](u)",
    ],
)
def test_no_image_survives_wherever_it_hides(text):
    assert "![" not in sanitize_reply(text)


def test_formulas_and_directives_are_shown_as_written():
    assert sanitize_reply("$5 and $6") == r"\$5 and \$6"
    assert sanitize_reply(":red[x] :material/home: :smile:").count("\\:") >= 3
    assert sanitize_reply("12:30 :) a: b") == "12:30 :) a: b"


def test_code_keeps_its_signs_and_lines_keep_their_ends():
    assert sanitize_reply("```py\nx = '$1'\n```") == "```py\nx = '$1'\n```"
    assert sanitize_reply("use `$HOME`") == "use `$HOME`"
    assert sanitize_reply("a\nb\n\nc") == "a  \nb\n\nc"


def test_a_label_has_no_mark_that_means_anything():
    text = escape_markdown(string.punctuation + "\n![a](b) :red[c]")
    unescaped = re.sub(r"\\.", "", text)
    assert not set(unescaped) & set("\\`*_{}[]()#+-.!|~<>$:&")
    assert escape_markdown("x" * 50, 10) == "x" * 9 + "…"
