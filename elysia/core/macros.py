"""Macros in a card's texts: {{char}}, {{user}}, {{random:a,b}} and the others of V3, in any case.

Specification: https://github.com/kwaroran/character-card-spec-v3 , "Curly Braced Syntaxes". The result of
a macro is never expanded again: a user named {{char}} keeps that name.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

# Of three braces in a row the inner two belong to the macro.
BRACES = re.compile(r"(\{\{(?!\{)|\}\})")
MAX_NESTED = 20
TAGS = re.compile(r"<(char|bot|user)>", re.I)


@dataclass
class MacroExpander:
    """The values of the macros in one conversation.

    {{random}} and {{roll}} draw from `chance`. {{pick}} depends on `seed`, its place and its options
    alone, so that its choice stays the same throughout a conversation.
    """

    char: str
    user: str = "你"
    chance: random.Random = field(default_factory=random.Random)
    seed: str = ""
    original: str | None = None  # the default system prompt; None leaves {{original}} as it is

    def fill(self, text: str) -> str:
        """`text` with every known macro replaced; unknown ones stay as they are.

        >>> MacroExpander("Mira", "Tom").fill("{{CHAR}} and <user>: {{reverse:abc}}{{// aside}} {{moon}}")
        'Mira and Tom: cba {{moon}}'
        """
        return _replace_macros(text, self._expand, lambda tag: self._get_name(tag) or "")

    def _get_name(self, name: str) -> str | None:
        return {"char": self.char, "bot": self.char, "user": self.user}.get(name)

    def _expand(self, name: str, rest: str | None, place: int) -> str | None:
        """What `{{name:rest}}` becomes as the `place`-th macro of the text; None when it is unknown."""
        if rest is None:
            return self.original if name == "original" else self._get_name(name)
        if name in ("random", "pick"):
            options = _split_options(rest)
            if name == "random":
                return self.chance.choice(options)
            key = f"{self.seed}\0{place}\0{rest}".encode()
            return options[int.from_bytes(hashlib.sha256(key).digest()[:8]) % len(options)]
        if name == "roll":
            sides = re.fullmatch(r":?\s*d?0*([1-9]\d{0,8})\s*", rest, re.I)
            return str(self.chance.randint(1, int(sides[1]))) if sides else None
        return _expand_hidden(name, rest, "") if name != "reverse" else rest[::-1]


def expand_for_scan(text: str, recursive: bool = False) -> str:
    """`text` as lorebook keys are searched in it: without comments, and with hidden keys only where
    the text of one entry is scanned for the keys of others (`recursive`).
    """

    def expand(name: str, rest: str | None, place: int) -> str | None:
        if rest is None:
            return None
        return _expand_hidden(name, rest, rest if recursive else "")

    return _replace_macros(text, expand, lambda tag: f"<{tag}>")


def _expand_hidden(name: str, rest: str, hidden_key: str) -> str | None:
    return {"//": "", "comment": "", "hidden_key": hidden_key}.get(name)


def _split_options(rest: str) -> list[str]:
    """Split at commas, or at '::' where programs wrote that; `\\,` is a comma."""
    rest = rest.removeprefix(":")
    split = "::" if "::" in rest and not re.search(r"(?<!\\),", rest) else r"(?<!\\),"
    return [option.replace("\\,", ",") for option in re.split(split, rest)]


def _replace_macros(
    text: str, expand: Callable[[str, str | None, int], str | None], tag: Callable[[str], str]
) -> str:
    """One pass over `text`, innermost macros first, in time linear in its length."""
    open_parts: list[list[str]] = [[]]
    place = 0
    for part in BRACES.split(text):
        if part == "{{" and len(open_parts) <= MAX_NESTED:
            open_parts.append([])
        elif part == "}}" and len(open_parts) > 1:
            inner = "".join(open_parts.pop())
            expansion = expand(*_split_macro(inner), place)
            place += 1
            open_parts[-1].append("{{" + inner + "}}" if expansion is None else expansion)
        else:
            open_parts[-1].append(TAGS.sub(lambda m: tag(m[1].lower()), part))
    return "{{".join("".join(parts) for parts in open_parts)


def _split_macro(inner: str) -> tuple[str, str | None]:
    """`random:a,b` is ("random", "a,b"); `char` is ("char", None); `// x` is ("//", " x")."""
    if inner.lstrip().startswith("//"):
        return "//", inner.lstrip()[2:]
    name, colon, rest = inner.partition(":")
    return name.strip().lower(), rest if colon else None
