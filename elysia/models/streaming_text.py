"""From token ids to text that may be shown: whole characters only, and never a stop text.

Two small machines that every local engine needs. They know nothing of models or of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = (
    "\N{REPLACEMENT CHARACTER}"  # what decoders put for bytes that are no (whole) character
)


class StreamingDetokenizer:
    """Ids in one by one, text out as soon as it is certain.

    Decodes only a short window, so a reply of n tokens costs O(n). The window keeps the last
    settled tokens in front: SentencePiece drops a leading space, and a byte that follows bytes
    changes them.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._settled = 0  # ids before this one have been shown and ended on a whole character
        self._shown = 0  # characters of the window's text that have been shown

    def push(self, token: int) -> str:
        """The text that `token` makes certain, perhaps none."""
        self._ids.append(token)
        text = self._decode(self._ids)
        whole = text.rstrip(REPLACEMENT)
        new = whole[self._shown :]
        self._shown = max(self._shown, len(whole))
        if len(whole) == len(text):
            self._ids = self._ids[self._settled :]
            self._settled = len(self._ids)
            self._shown = len(self._decode(self._ids))
        return new

    def rest(self) -> str:
        """What is still held when no more tokens come, without the bytes of an unfinished
        character.
        """
        text = self._decode(self._ids).rstrip(REPLACEMENT)
        new, self._ids, self._settled, self._shown = text[self._shown :], [], 0, 0
        return new


class StopTextFilter:
    """Lets text pass until one of `stops` appears; holds back whatever may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The part of all text so far that can be shown now; nothing after a stop was found."""
        if self.stopped:
            return ""
        self._held += text
        places = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if places:
            self.stopped = True
            shown, self._held = self._held[: min(places)], ""
            return shown
        keep = max((count_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def rest(self) -> str:
        """What was held back for a stop text that did not come."""
        shown, self._held = self._held, ""
        return shown


def count_overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`.

    >>> count_overlap("hello<|im", "<|im_end|>"), count_overlap("hello", "<|im_end|>")
    (4, 0)
    """
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
