"""A stream of text becomes sentences, each as soon as it is whole.

Sentences end at 。！？!?… and at line ends, an English full stop counts before a blank; the very
first piece may end at a comma, so that she starts early. Code, *actions* and （动作） are kept in one
piece, for `text/strip.py` to see them whole. Knows nothing of voices.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

MAX_SENTENCE_CHARS = 200  # characters; a longer stretch is cut at its last comma or blank
MIN_CLAUSE_LETTERS = 4  # letters; "嗯，" alone is no clause
MAX_PAIR_CHARS = 120  # an opened parenthesis that stays open longer is prose

_ENDS = set("。！？!?…\n；;")
_CLAUSE_ENDS = set("，,、：:")
_CLOSERS = set("。！？!?…”’」』）)》】~～*_.\"'")
_SHORT_FORMS = re.compile(r"(?:\b(?:mr|mrs|ms|dr|prof|st|no|vs|e\.g|i\.e|etc)|\b[A-Z])$", re.I)
_FENCES = ("```", "~~~")


class StreamingSentenceSplitter:
    """Feed pieces of text with `push`, take whole sentences; `rest` gives what is left at the end."""

    def __init__(self, *, early_clause: bool = True) -> None:
        self._text = ""
        self._from = 0  # everything before is decided to be no end
        self._early = early_clause

    def push(self, piece: str) -> list[str]:
        """The sentences that `piece` completed, in order."""
        found = []
        for start in range(
            0, len(piece), 2 * MAX_SENTENCE_CHARS
        ):  # what is looked through stays short
            self._text += piece[start : start + 2 * MAX_SENTENCE_CHARS]
            while (end := self._end()) is not None:
                sentence, self._text, self._from = self._text[:end], self._text[end:], 0
                if any(char.isalnum() for char in sentence):
                    self._early = False
                    found.append(sentence.strip())
        return found

    def flush(self) -> list[str]:
        """What is left when no more text comes."""
        found = self.push("\n\n") if self._text else []
        left, self._text, self._from = self._text, "", 0
        return [*found, left.strip()] if any(char.isalnum() for char in left) else found

    def _end(self) -> int | None:
        """Where the first whole sentence ends; None until more text comes."""
        fence = self._fence()
        if fence == 0:
            return self._skip_code()
        text = self._text[:fence]
        at = min(self._from, len(text))
        while at < len(text):
            char = text[at]
            if self._ends_at(at):
                stop = at + 1
                while stop < len(text) and text[stop] in _CLOSERS:
                    stop += 1
                if stop == len(self._text) and char != "\n":
                    break  # a closing mark may still come
                if not self._inside_pair(stop) or char == "\n":
                    return stop
            elif char in ",." and at + 1 == len(self._text):
                break  # 3,000 or 3.5 may still come
            at += 1
        self._from = at
        return fence if fence is not None else self._too_long()

    def _ends_at(self, at: int) -> bool:
        text, char = self._text, self._text[at]
        after = text[at + 1 : at + 2]
        if char in _ENDS:
            return True
        if char == ".":
            return after in ("\n", " ") and bool(after) and not _SHORT_FORMS.search(text[:at][-6:])
        if not self._early or char not in _CLAUSE_ENDS or (char in ",:：" and not after):
            return False
        letters = sum(c.isalnum() for c in text[:at])
        return letters >= MIN_CLAUSE_LETTERS and not (char in ",:：" and after.isdigit())

    def _inside_pair(self, stop: int) -> bool:
        """Whether a stage direction is open at `stop`, and has not been open for too long."""
        text = self._text[:stop]
        for opener, closer in ("（）", "【】", "()"):
            start = text.rfind(opener)
            if start > text.rfind(closer) and stop - start <= MAX_PAIR_CHARS:
                return True
        stars = text.replace("**", "")
        return stars.count("*") % 2 == 1 and stop - text.rfind("*") <= MAX_PAIR_CHARS

    def _fence(self) -> int | None:
        """Where a code block begins; 0 when nothing but blanks stands before it."""
        starts = [at for fence in _FENCES if (at := self._text.find(fence)) >= 0]
        if not starts:
            return None
        return min(starts) if self._text[: min(starts)].strip() else 0

    def _skip_code(self) -> int | None:
        """Drop a code block. Of an open one only its last marks are kept, in case it closes."""
        self._text = self._text.lstrip()
        close = self._text.find(self._text[:3], 3)
        if close < 0:
            self._text = self._text[:3] + self._text[3:][-2:]
            return None
        self._text = "\n" + self._text[close + 3 :]
        return 1

    def _too_long(self) -> int | None:
        if len(self._text) <= MAX_SENTENCE_CHARS:
            return None
        cuts = [
            at
            for at in range(MAX_SENTENCE_CHARS // 2, MAX_SENTENCE_CHARS)
            if self._text[at] in _CLAUSE_ENDS
        ]
        blanks = [
            at
            for at in range(MAX_SENTENCE_CHARS // 2, MAX_SENTENCE_CHARS)
            if self._text[at].isspace()
        ]
        return (cuts or blanks or [MAX_SENTENCE_CHARS - 1])[-1] + 1


def split_sentences(text: str) -> list[str]:
    """The sentences of a whole text.

    >>> split_sentences("你好，我是爱莉。It costs 3.5 dollars, Mr. Li. 真的？！")
    ['你好，我是爱莉。', 'It costs 3.5 dollars, Mr. Li.', '真的？！']
    """
    return list(iter_sentences([text], early_clause=False))


def iter_sentences(pieces: Iterable[str], *, early_clause: bool = True) -> Iterator[str]:
    """The sentences of a stream, each as soon as it is whole.

    >>> list(iter_sentences(["嗯，我知道了，我", "们走。去", "哪"]))
    ['嗯，我知道了，', '我们走。', '去哪']
    """
    sentences = StreamingSentenceSplitter(early_clause=early_clause)
    for piece in pieces:
        yield from sentences.push(piece)
    yield from sentences.flush()
