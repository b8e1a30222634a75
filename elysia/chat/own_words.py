"""Only her own words: a reply that begins with her name and a colon loses them.

Models that were shown a talk with names write their own before a reply. Knows nothing of engines.
"""

from __future__ import annotations

from collections.abc import Sequence


class OwnWords:
    """Takes a reply's pieces, gives what may be shown."""

    def __init__(self, names: Sequence[str]) -> None:
        self._prefixes = [f"{name}{mark}" for name in names for mark in ("：", ":")]
        self._held: str | None = ""  # None: the beginning is decided

    def push(self, piece: str) -> str:
        """More of the reply.

        >>> words = OwnWords(["爱莉"])
        >>> words.push("爱"), words.push("莉：你"), words.push("好")
        ('', '你', '好')
        """
        if self._held is None:
            return piece
        self._held += piece
        begun = self._held.lstrip()
        if not begun or any(one.startswith(begun) and one != begun for one in self._prefixes):
            return ""
        for prefix in self._prefixes:
            if begun.startswith(prefix):
                begun = begun[len(prefix) :].lstrip()
                if not begun:
                    return ""
                break
        self._held = None
        return begun

    def rest(self) -> str:
        """What was held back when the reply ended."""
        held, self._held = self._held, None
        if held is None or held.lstrip() in self._prefixes:
            return ""
        return held
