"""Read a JSON array value by value, so that memory does not grow with the file.

Also says at which line each value begins and which text it was written as; ijson, which is as fast,
knows neither, and turns half of a surrogate pair into "?" without a word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

CHUNK = 1 << 18  # characters that are read at a time
LONGEST_VALUE = 1 << 26  # characters; a longer value counts as one that never ends
_SEPARATOR = re.compile(r"[ \t\n\r,]*")


class ArrayItem(NamedTuple):
    """A value, its text in the file, and the line (from 1) on which it begins."""

    value: Any
    text: str
    line: int


class JsonArrayError(Exception):
    """The array cannot be read on. `line` is where, `cause` what the decoder says about it;
    `truncated` whether the text ends in the middle of a value."""

    def __init__(self, line: int, cause: Exception, truncated: bool = False) -> None:
        super().__init__(line, cause, truncated)
        self.line, self.cause, self.truncated = line, cause, truncated


def iter_json_array(stream: TextIO, *, strict: bool = True) -> Iterator[ArrayItem]:
    """The values of the array that `stream` holds, in order.

    Without `strict`, missing and doubled commas, and text after the array, are passed over.
    JsonArrayError at the place from which on nothing can be read.
    """
    decode, window = json.JSONDecoder().raw_decode, _StreamWindow(stream)
    window.skip_separators()
    window.skip(window.at + 1)  # "["
    first = True
    while window.skip_separators():
        if strict and window.commas != (not first):
            raise JsonArrayError(window.line, ValueError("comma"))
        first = False
        try:
            value, end = decode(window.text, window.at)
            if end == len(window.text) and window.read_more():
                continue  # a number may go on in the next chunk
        except json.JSONDecodeError as error:
            if window.read_more():
                continue
            line = window.line + window.text.count("\n", window.at, error.pos)
            # The decoder reports an escape that was cut in two at its beginning.
            at_end = error.pos >= len(window.text.rstrip()) - 6
            truncated = at_end or error.msg.startswith("Unterminated string")
            raise JsonArrayError(line, error, truncated) from None
        except (RecursionError, ValueError) as error:  # nested too deeply, a number too long
            raise JsonArrayError(window.line, error) from None
        yield ArrayItem(value, window.text[window.at : end], window.line)
        window.skip(end)
        window.commas = 0
    if strict and (window.commas or window.text[window.at + 1 :].strip() or stream.read().strip()):
        raise JsonArrayError(window.line, ValueError("text after the array"))


class _StreamWindow:
    """The part of a stream around the value that is being read, and the line of that value."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.text, self.at, self.line, self.commas = stream, "", 0, 1, 0

    def skip(self, end: int) -> None:
        """Go on to `end`."""
        self.line += self.text.count("\n", self.at, end)
        self.at = end
        if end > CHUNK:
            self.text, self.at = self.text[end:], 0

    def read_more(self) -> bool:
        """Read on, at least as much as there is, so that a long value costs linear time; False at
        the end of the stream."""
        rest = len(self.text) - self.at
        if rest > LONGEST_VALUE:
            return False
        more = self.stream.read(max(CHUNK, rest))
        if more:
            self.text, self.at = self.text[self.at :] + more, 0
        return bool(more)

    def skip_separators(self) -> bool:
        """Go on past spaces and commas, and count the commas; False at the end of the array."""
        while True:
            match = _SEPARATOR.match(self.text, self.at)
            end = match.end() if match else self.at
            self.commas += self.text.count(",", self.at, end)
            self.skip(end)
            if self.at < len(self.text) or not self.read_more():
                return self.text[self.at : self.at + 1] != "]"
