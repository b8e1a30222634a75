"""From token ids to text that may be shown: whole characters only, no stop text, and thoughts apart.

`StreamingDetokenizer`, `ReasoningFilter` and `StopTextFilter` are the steps. `ReplyFilter` joins the last
two for engines that get text, `ReplyDecoder` all three for those that get ids. None imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # decoders put it for bytes that are no (whole) character

# The marks around thoughts, as models write them at the beginning of a reply.
THOUGHT_MARKS = {
    "<think>": "</think>",  # DeepSeek-R1, Qwen3, GLM-4.5, SmolLM3 and most others
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",  # EXAONE
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",  # Seed-OSS
    "<mm:think>": "</mm:think>",  # MiniMax-M3
    "[THINK]": "[/THINK]",  # Magistral, Ministral 3
    "\u25c1think\u25b7": "\u25c1/think\u25b7",  # Kimi-VL: triangles for brackets
    "<|begin_of_thought|>": "<|end_of_thought|>",  # Sky-T1, OpenThinker
    "<|START_THINKING|>": "<|END_THINKING|>",  # Command A, Command R7B
    "<|inner_prefix|>": "<|inner_suffix|>",  # Apertus
    "<|channel>thought": "<channel|>",  # Gemma 4
    "<|channel|>analysis<|message|>": "<|end|>",  # gpt-oss
}
# Marks around the reply itself, "" for one without an end. They are left out, whether or not a thought
# was there, for they are no words of a reply.
REPLY_MARKS = {
    "<|start|>assistant": "",  # gpt-oss begins a message after its thoughts
    "<|channel|>final<|message|>": "",
    "<|begin_of_solution|>": "<|end_of_solution|>",
    "<|START_RESPONSE|>": "<|END_RESPONSE|>",
}
# Tokens of these marks that tokenizers may have as control tokens, which decoding would leave out.
MARK_TOKENS = (
    "<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|channel>", "<channel|>",
    *(mark for pair in THOUGHT_MARKS.items() for mark in pair if "channel" not in mark),
    *(mark for pair in REPLY_MARKS.items() for mark in pair if mark and "assistant" not in mark),
)  # fmt: skip
PROMPT_TAIL = 8  # tokens at the end of a prompt among which a thought's opening mark is looked for


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


class ReplyPiece(NamedTuple):
    """A piece of a reply: what may be shown, and what the model thought before it."""

    text: str = ""
    reasoning: str = ""


class ReasoningFilter:
    """Separates thoughts from a reply that comes in pieces.

    Only marks at the beginning of a reply, behind white space alone, hold thoughts; later ones, in prose
    or in a code block, are text. White space around a thought belongs to neither. A thought that is never
    closed goes on to the end of the reply. A prompt whose end, `prompt_end`, opens a thought has the reply
    begin inside it.

    >>> thoughts = ReasoningFilter()
    >>> thoughts.push("<thi"), thoughts.push("nk>Hm.</think>"), thoughts.push("Hello, <think>er!")
    (ReplyPiece(text='', reasoning=''), ReplyPiece(text='', reasoning='Hm.'), \
ReplyPiece(text='Hello, <think>er!', reasoning=''))
    """

    def __init__(self, prompt_end: str = "") -> None:
        self._held = ""
        self._close = ""  # of the thought, or of the reply's own marks; "" for none
        self._thinking = False
        self._at_start = True  # where a mark may come
        self._has_mark = self._is_thought_begun = False
        if mark := find_open_thought(prompt_end):
            self._begin_thought(THOUGHT_MARKS[mark])

    @property
    def thinking(self) -> bool:
        """Whether what comes next is a thought."""
        return self._thinking

    @property
    def expects_mark(self) -> bool:
        """Whether a mark that came now would not be text."""
        return self._thinking or self._at_start or bool(self._close)

    def push(self, text: str) -> ReplyPiece:
        """What is certain after `text`."""
        self._held += text
        shown, thought = "", ""
        is_changed = True
        while is_changed:
            state = (self._thinking, self._at_start, self._close, len(self._held))
            if self._thinking:
                thought += self._take_thought()
            elif self._at_start:
                self._take_mark()
            else:
                shown += self._take_text()
            is_changed = state != (self._thinking, self._at_start, self._close, len(self._held))
        return ReplyPiece(shown, thought)

    def rest(self) -> ReplyPiece:
        """What was held back, when the reply ends here."""
        held, self._held = self._held, ""
        if self._thinking:
            return ReplyPiece("", held.rstrip())
        return ReplyPiece(held.lstrip() if self._at_start and self._has_mark else held)

    def _begin_thought(self, close: str) -> None:
        self._thinking, self._close, self._at_start = True, close, False
        self._has_mark, self._is_thought_begun = True, False

    def _take_mark(self) -> None:
        """Take a mark from the beginning; or decide that there is none; or wait for more."""
        body = self._held.lstrip()
        for mark, close in (THOUGHT_MARKS | REPLY_MARKS).items():
            if body.startswith(mark):
                self._held = body[len(mark) :]
                if mark in THOUGHT_MARKS:
                    self._begin_thought(close)
                else:
                    self._has_mark, self._close = True, close
                return
        if body and not any(mark.startswith(body) for mark in (*THOUGHT_MARKS, *REPLY_MARKS)):
            self._at_start = False
            self._held = body if self._has_mark else self._held

    def _take_thought(self) -> str:
        if not self._is_thought_begun:
            self._held = self._held.lstrip()
            mark = next(mark for mark, close in THOUGHT_MARKS.items() if close == self._close)
            if self._held.startswith(mark):  # the model repeats what the prompt has opened
                self._held = self._held[len(mark) :].lstrip()
            elif mark.startswith(self._held):
                return ""
            self._is_thought_begun = bool(self._held)
        thought, close, behind = self._held.partition(self._close)
        if close:
            self._held, self._thinking, self._at_start, self._close = behind, False, True, ""
            return thought.rstrip()
        return self._take_certain()

    def _take_text(self) -> str:
        if not self._close:
            text, self._held = self._held, ""
            return text
        text, close, behind = self._held.partition(self._close)
        if close:
            self._held, self._close = behind.lstrip(), ""
            return text.rstrip()
        return self._take_certain()

    def _take_certain(self) -> str:
        """What cannot belong to the closing mark, nor to the white space in front of it."""
        held = count_overlap(self._held, self._close)
        certain = self._held[: len(self._held) - held].rstrip()
        self._held = self._held[len(certain) :]
        return certain


def find_open_thought(prompt: str) -> str:
    """The mark with which `prompt` ends by opening a thought; "" for most prompts.

    >>> find_open_thought("<|im_start|>assistant\\n<think>\\n")
    '<think>'
    """
    end = prompt.rstrip()
    return next((mark for mark in THOUGHT_MARKS if end.endswith(mark)), "")


def separate_thoughts(reply: str) -> ReplyPiece:
    """A whole reply's text and thoughts. One that is a thought alone, without an end, is taken for text."""
    filter_ = ReasoningFilter()
    piece, rest = filter_.push(reply), filter_.rest()
    text, reasoning = piece.text + rest.text, piece.reasoning + rest.reasoning
    return ReplyPiece(text, reasoning) if text else ReplyPiece(reply)


class ReplyFilter:
    """Pieces of text of one reply become what may be shown and what was thought.

    The texts of `stop` end the reply, not the thought before it. With `raw` the text is a continuation of
    plain text, or of a grammar, in which there are no thoughts.
    """

    def __init__(self, stop: Sequence[str], prompt_end: str = "", *, raw: bool = False) -> None:
        self._stops = StopTextFilter(stop)
        self._thoughts = None if raw else ReasoningFilter(prompt_end)

    @property
    def stopped(self) -> bool:
        """Whether a stop text has come."""
        return self._stops.stopped

    @property
    def thinking(self) -> bool:
        """Whether what comes next is a thought."""
        return self._thoughts is not None and self._thoughts.thinking

    @property
    def expects_mark(self) -> bool:
        """Whether a control token that marks thoughts means something now."""
        return self._thoughts is not None and self._thoughts.expects_mark

    def push(self, text: str) -> ReplyPiece:
        """What is certain after `text`."""
        if self._thoughts is None:
            return ReplyPiece(self._stops.push(text))
        piece = self._thoughts.push(text)
        return ReplyPiece(self._stops.push(piece.text), piece.reasoning)

    def rest(self) -> ReplyPiece:
        """What was held back, when the reply ends here."""
        piece = self._thoughts.rest() if self._thoughts else ReplyPiece()
        return ReplyPiece(self._stops.push(piece.text) + self._stops.rest(), piece.reasoning)


class ReplyDecoder:
    """Turns the tokens of one reply into text that may be shown, and knows when the reply is finished.

    `stop_ids` end it, as `find_stop_ids` lists them, and so do the texts of `stop`. `prompt` are the ids
    before the reply, which may have opened a thought; None for plain text, in which there are none.
    """

    def __init__(
        self,
        tokenizer: Any,
        stop: Sequence[str],
        stop_ids: frozenset[int],
        prompt: Sequence[int] | None = (),
    ) -> None:
        self._stop_ids = stop_ids
        tail = list(prompt or ())[-PROMPT_TAIL:]
        end = str(tokenizer.decode(tail, skip_special_tokens=False)) if tail else ""
        self._filter = ReplyFilter(stop, end, raw=prompt is None)
        self._marks = find_mark_tokens(tokenizer) if prompt is not None else {}
        self._detokenizer = StreamingDetokenizer(
            lambda ids: str(
                tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            )
        )
        self.tokens = 0
        self.reasoning_tokens = 0
        self.finished = False

    def push(self, token: int) -> ReplyPiece:
        """What is certain after `token`."""
        self.tokens += 1
        if token in self._stop_ids:
            self.finished = True
            return self.rest()
        was_thinking = self._filter.thinking
        text = self._detokenizer.push(token)
        if token in self._marks and self._filter.expects_mark:
            text += self._detokenizer.rest() + self._marks[token]
        piece = self._filter.push(text)
        self.reasoning_tokens += was_thinking or self._filter.thinking
        self.finished = self._filter.stopped
        return piece

    def rest(self) -> ReplyPiece:
        """What is still held, when the reply ends here."""
        piece, last = self._filter.push(self._detokenizer.rest()), self._filter.rest()
        return ReplyPiece(piece.text + last.text, piece.reasoning + last.reasoning)


def find_mark_tokens(tokenizer: Any) -> dict[int, str]:
    """The control tokens of `tokenizer` that mark thoughts, by id; decoding leaves them out."""
    special = set(tokenizer.all_special_ids)
    ids = {tokenizer.convert_tokens_to_ids(text): text for text in MARK_TOKENS}
    return {
        token: text
        for token, text in ids.items()
        if token in special and tokenizer.convert_ids_to_tokens(token) == text
    }


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
