"""Others' words on a page: nothing in them is loaded, run or taken for the page's own."""

from __future__ import annotations

import re
import string

import pytest

from elysia.web import plain_page
from elysia.web.text import plain, reply_markdown
from elysia.web.words import WORDS


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
    assert "![" not in reply_markdown(text)


def test_formulas_and_directives_are_shown_as_written():
    assert reply_markdown("$5 and $6") == r"\$5 and \$6"
    assert reply_markdown(":red[x] :material/home: :smile:").count("\\:") >= 3
    assert reply_markdown("12:30 :) a: b") == "12:30 :) a: b"


def test_code_keeps_its_signs_and_lines_keep_their_ends():
    assert reply_markdown("```py\nx = '$1'\n```") == "```py\nx = '$1'\n```"
    assert reply_markdown("use `$HOME`") == "use `$HOME`"
    assert reply_markdown("a\nb\n\nc") == "a  \nb\n\nc"


def test_a_label_has_no_mark_that_means_anything():
    text = plain(string.punctuation + "\n![a](b) :red[c]")
    unescaped = re.sub(r"\\.", "", text)
    assert not set(unescaped) & set("\\`*_{}[]()#+-.!|~<>$:&")
    assert plain("x" * 50, 10) == "x" * 9 + "…"


def test_the_pages_before_the_page_escape_what_they_are_told():
    page = plain_page.fault("en", "<script>alert(1)</script> & more")
    assert "<script" not in page and "&lt;script&gt;" in page
    for language in ("zh", "en"):
        assert "<script" not in plain_page.login(language, "wrong") + plain_page.waking(language)


def test_both_languages_have_the_same_words_with_the_same_places():
    for key, said in WORDS.items():
        places = [sorted(re.findall(r"{(\w+)", text)) for text in said]
        assert places[0] == places[1], key
        assert all(text.strip() for text in said), key
    assert set(plain_page.WORDS["zh"]) == set(plain_page.WORDS["en"])
