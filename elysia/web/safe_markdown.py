"""Untrusted text on a page: replies as markdown that loads nothing, everything else as plain text.

A page never takes HTML from a card, a document or a reply. What is left is what markdown itself can do:
remote images, formulas and Streamlit's directives, which are made harmless here.
"""

from __future__ import annotations

import re

JOINER = "\N{WORD JOINER}"
_CODE = re.compile(r"(^```.*?(?:^```|\Z)|`[^`\n]+`)", re.M | re.S)
_MARKS = re.compile(r"([\\`*_{}\[\]()#+\-.!|~<>$:&^=])")


def sanitize_reply(text: str) -> str:
    """A reply as markdown: emphasis, lists, code, links; no images, formulas or directives.

    >>> sanitize_reply("*hi* ![x](http://x/y.png) for $5 and $6") == (
    ...     "*hi* !\\N{WORD JOINER}[x](http://x/y.png) for \\\\$5 and \\\\$6")
    True
    """
    # In code, too: what is code to us may be none to the page's own markdown parser.
    text = text.replace("![", f"!{JOINER}[")
    parts = _CODE.split(text)
    parts[::2] = [_sanitize_prose(part) for part in parts[::2]]
    return "".join(parts)


def _sanitize_prose(text: str) -> str:
    text = text.replace("$", "\\$")
    text = re.sub(r":(?=\w+(?:[-/]\w+)*[\[:])|:(?=::)", r"\\:", text)
    return re.sub(r"(?<!\n)\n(?!\n)", "  \n", text)  # a line break is one, as in a chat


def escape_markdown(text: str, most: int = 2000) -> str:
    """A text for labels and captions, which read markdown: shown as it is written, on one line.

    >>> escape_markdown("<b>*Bob*</b>")
    '\\\\<b\\\\>\\\\*Bob\\\\*\\\\</b\\\\>'
    """
    text = " ".join(text.split())
    return _MARKS.sub(r"\\\1", text if len(text) <= most else text[: most - 1] + "…")
