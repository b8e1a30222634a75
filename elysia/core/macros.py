"""Macros of a card: {{char}}, {{user}}, {{random:a,b}} and the rest of V3's, without regard to case.

https://github.com/kwaroran/character-card-spec-v3 , "Curly Braced Syntaxes". What a macro becomes is
never read for macros again: a user named {{char}} stays that. Knows nothing of cards.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

# Of three braces the inner two are the macro's.
BRACES = re.compile(r"(\{\{(?!\{)|\}\})")
MAX_NESTED = 20
TAGS = re.compile(r"<(char|bot|user)>", re.I)


@dataclass
class MacroExpander:
    """What macros become. `chance` is drawn from by {{random}} and {{roll}}; {{pick}} depends on
    `seed` and its own words alone, so it stays as it is while a conversation keeps its seed.
    """

    char: str
    user: str = "你"
    chance: random.Random = field(default_factory=random.Random)
    seed: str = ""
    original: str | None = None  # None leaves {{original}} as it is

    def fill(self, text: str) -> str:
        """`text` with every known macro replaced; unknown ones stay as they are.

        >>> MacroExpander("Mira", "Tom").fill("{{CHAR}} and <user>: {{reverse:abc}}{{// aside}} {{moon}}")
        'Mira and Tom: cba {{moon}}'
        """
        return _replace_macros(text, self._becomes, lambda tag: self._named(tag) or "")

    def _named(self, name: str) -> str | None:
        return {"char": self.char, "bot": self.char, "user": self.user}.get(name)

    def _becomes(self, name: str, rest: str | None, place: int) -> str | None:
        if rest is None:
            return self.original if name == "original" else self._named(name)
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
    """`text` as lorebook keys look at it: no comments; hidden keys only where one entry's content
    is scanned for others.
    """

    def becomes(name: str, rest: str | None, place: int) -> str | None:
        return (
            _expand_hidden(name, rest, rest or "" if recursive else "")
            if rest is not None
            else None
        )

    return _replace_macros(text, becomes, lambda tag: f"<{tag}>")


def _expand_hidden(name: str, rest: str, hidden_key: str) -> str | None:
    return {"//": "", "comment": "", "hidden_key": hidden_key}.get(name)


def _split_options(rest: str) -> list[str]:
    """Split at commas, or at '::' where programs wrote that; `\\,` is a comma."""
    rest = rest.removeprefix(":")
    split = "::" if "::" in rest and not re.search(r"(?<!\\),", rest) else r"(?<!\\),"
    return [option.replace("\\,", ",") for option in re.split(split, rest)]


def _replace_macros(
    text: str, becomes: Callable[[str, str | None, int], str | None], tag: Callable[[str], str]
) -> str:
    """One pass over `text`, innermost macros first, in time that grows with its length."""
    open_parts: list[list[str]] = [[]]
    place = 0
    for part in BRACES.split(text):
        if part == "{{" and len(open_parts) <= MAX_NESTED:
            open_parts.append([])
        elif part == "}}" and len(open_parts) > 1:
            inner = "".join(open_parts.pop())
            made = becomes(*_split_macro(inner), place)
            place += 1
            open_parts[-1].append("{{" + inner + "}}" if made is None else made)
        else:
            open_parts[-1].append(TAGS.sub(lambda found: tag(found[1].lower()), part))
    return "{{".join("".join(parts) for parts in open_parts)


def _split_macro(inner: str) -> tuple[str, str | None]:
    """`random:a,b` is ("random", "a,b"); `char` is ("char", None); `// x` is ("//", " x")."""
    if inner.lstrip().startswith("//"):
        return "//", inner.lstrip()[2:]
    name, colon, rest = inner.partition(":")
    return name.strip().lower(), rest if colon else None
