"""Cuts a stream of text into sentences, each as soon as it is complete.

A sentence ends at 。！？!?… and at a line end; an English full stop counts only before a blank. The
first piece may already end at a comma, so that speech starts early. Code blocks, *actions* and （动作）
are never cut, so that `frontend.strip_markup` sees them whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

MAX_SENTENCE_CHARS = 200  # a longer stretch is cut at its last comma or blank
MIN_CLAUSE_LETTERS = 4  # "嗯，" alone is no clause
MAX_PAIR_CHARS = 120  # a parenthesis that stays open longer is prose, not a stage direction

_ENDS = set("。！？!?…\n；;")
_CLAUSE_ENDS = set("，,、：:")
_CLOSERS = set("。！？!?…”’」』）)》】~～*_.\"'")
_SHORT_FORMS = re.compile(r"(?:\b(?:mr|mrs|ms|dr|prof|st|no|vs|e\.g|i\.e|etc)|\b[A-Z])$", re.I)
_FENCES = ("```", "~~~")


class StreamingSentenceSplitter:
    """Feed text with `push` and take complete sentences; `flush` gives the rest at the end.

    `early_clause` lets the first piece end at a comma.
    """

    def __init__(self, *, early_clause: bool = True) -> None:
        self._text = ""
        self._checked = 0  # no sentence ends before this index
        self._early = early_clause

    def push(self, piece: str) -> list[str]:
        """The sentences that `piece` completes, in order."""
        sentences = []
        step = (
            2 * MAX_SENTENCE_CHARS
        )  # keeps what is scanned again short, however long the piece is
        for start in range(0, len(piece), step):
            self._text += piece[start : start + step]
            while (end := self._find_end()) is not None:
                sentence, self._text, self._checked = self._text[:end], self._text[end:], 0
                if any(char.isalnum() for char in sentence):
                    self._early = False
                    sentences.append(sentence.strip())
        return sentences

    def flush(self) -> list[str]:
        """The rest, when no more text comes."""
        sentences = self.push("\n\n") if self._text else []
        rest, self._text, self._checked = self._text, "", 0
        return [*sentences, rest.strip()] if any(char.isalnum() for char in rest) else sentences

    def _find_end(self) -> int | None:
        """Index behind the first complete sentence; None until more text comes."""
        fence = self._find_fence()
        if fence == 0:
            return self._skip_code()
        text = self._text[:fence]
        at = min(self._checked, len(text))
        while at < len(text):
            char = text[at]
            if self._ends_at(at):
                stop = at + 1
                while stop < len(text) and text[stop] in _CLOSERS:
                    stop += 1
                if stop == len(self._text) and char != "\n":
                    break  # a closing mark may still come
                if not self._is_inside_pair(stop) or char == "\n":
                    return stop
            elif char in ",." and at + 1 == len(self._text):
                break  # it may become 3,000 or 3.5
            at += 1
        self._checked = at
        return fence if fence is not None else self._cut_overlong()

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

    def _is_inside_pair(self, stop: int) -> bool:
        """Whether a stage direction is open at `stop`, and has not been open for too long."""
        text = self._text[:stop]
        for opener, closer in ("（）", "【】", "()"):
            start = text.rfind(opener)
            if start > text.rfind(closer) and stop - start <= MAX_PAIR_CHARS:
                return True
        stars = text.replace("**", "")
        return stars.count("*") % 2 == 1 and stop - text.rfind("*") <= MAX_PAIR_CHARS

    def _find_fence(self) -> int | None:
        """Index of the first code block; 0 when only blanks precede it."""
        starts = [at for fence in _FENCES if (at := self._text.find(fence)) >= 0]
        if not starts:
            return None
        return min(starts) if self._text[: min(starts)].strip() else 0

    def _skip_code(self) -> int | None:
        """Drop a code block. Of one that is still open only the last marks are kept, in case it closes."""
        self._text = self._text.lstrip()
        close = self._text.find(self._text[:3], 3)
        if close < 0:
            self._text = self._text[:3] + self._text[3:][-2:]
            return None
        self._text = "\n" + self._text[close + 3 :]
        return 1

    def _cut_overlong(self) -> int | None:
        if len(self._text) <= MAX_SENTENCE_CHARS:
            return None
        window = range(MAX_SENTENCE_CHARS // 2, MAX_SENTENCE_CHARS)
        clauses = [at for at in window if self._text[at] in _CLAUSE_ENDS]
        blanks = [at for at in window if self._text[at].isspace()]
        return (clauses or blanks or [MAX_SENTENCE_CHARS - 1])[-1] + 1


def split_sentences(text: str) -> list[str]:
    """The sentences of a complete text.

    >>> split_sentences("你好，我是爱莉。It costs 3.5 dollars, Mr. Li. 真的？！")
    ['你好，我是爱莉。', 'It costs 3.5 dollars, Mr. Li.', '真的？！']
    """
    return list(iter_sentences([text], early_clause=False))


def iter_sentences(pieces: Iterable[str], *, early_clause: bool = True) -> Iterator[str]:
    """The sentences of a stream, each as soon as it is complete.

    >>> list(iter_sentences(["嗯，我知道了，我", "们走。去", "哪"]))
    ['嗯，我知道了，', '我们走。', '去哪']
    """
    splitter = StreamingSentenceSplitter(early_clause=early_clause)
    for piece in pieces:
        yield from splitter.push(piece)
    yield from splitter.flush()
