"""From token ids to text that may be shown: whole characters only, and never a stop text.

`StreamingDetokenizer` and `StopTextFilter` are what every local engine needs; `ReplyDecoder` joins
them for one reply. None of them imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # decoders put it for bytes that are no (whole) character


class StreamingDetokenizer:
    """Takes ids one by one and returns text as soon as it is certain.

    It decodes only a short window, so a reply of n tokens costs O(n). The window starts with the last
    tokens that are final, because what follows depends on them: SentencePiece drops a space at the
    very beginning, and a byte can complete the bytes before it.
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
        """What is still held when no more tokens come, without the bytes of an unfinished character."""
        text = self._decode(self._ids).rstrip(REPLACEMENT)
        new, self._ids, self._settled, self._shown = text[self._shown :], [], 0, 0
        return new


class StopTextFilter:
    """Passes text on until one of `stops` appears, and holds back whatever may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The part of all text so far that can be shown now; nothing once a stop text has appeared."""
        if self.stopped:
            return ""
        self._held += text
        places = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if places:
            self.stopped = True
            shown, self._held = self._held[: min(places)], ""
            return shown
        held = max((count_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - held
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def rest(self) -> str:
        """What was held back for a stop text that did not come."""
        shown, self._held = self._held, ""
        return shown


class ReplyDecoder:
    """Turns the tokens of one reply into text that may be shown, and knows when the reply is finished.

    `stop_ids` end it, as `find_stop_ids` lists them, and so do the texts of `stop`.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str], stop_ids: frozenset[int]) -> None:
        self._stop_ids = stop_ids
        self._stops = StopTextFilter(stop)
        self._detokenizer = StreamingDetokenizer(
            lambda ids: str(
                tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            )
        )
        self.tokens = 0
        self.finished = False

    def push(self, token: int) -> str:
        """Text that may be shown now."""
        self.tokens += 1
        if token in self._stop_ids:
            self.finished = True
            return self.rest()
        text = self._stops.push(self._detokenizer.push(token))
        self.finished = self._stops.stopped
        return text

    def rest(self) -> str:
        """Text still held, when the reply ends here."""
        return self._stops.push(self._detokenizer.rest()) + self._stops.rest()


def find_stop_ids(model: Any, tokenizer: Any, stop: Sequence[str]) -> frozenset[int]:
    """The end tokens of model and tokenizer, and those texts of `stop` that are a single token.

    A control token has no text, so that only its id can end a reply.
    """
    config = getattr(model, "generation_config", None)
    ends = getattr(config, "eos_token_id", None)
    ids = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    for text in stop:
        token = tokenizer.convert_tokens_to_ids(text)
        if token is not None and tokenizer.convert_ids_to_tokens(token) == text:
            ids.add(token)
    return frozenset(ids - {None})


def count_overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`.

    >>> count_overlap("hello<|im", "<|im_end|>"), count_overlap("hello", "<|im_end|>")
    (4, 0)
    """
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
