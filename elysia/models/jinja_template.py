"""`JinjaTemplate`: a model's own chat template, with what training and chat need to know of it.

Which part of a text is learned is found by rendering: the prompt before a reply, and the talk through it.
What a template cannot do (a system role, two messages of one role in a row, a greeting) is tried once, and
the messages are changed as the makers of such templates advise.

What people wrote must not become a control token. Whatever looks like one in a message is rendered with a
mark after each of its characters; the marks are removed, and their places are the content spans of the
pieces. So a typed `<|im_end|>` is neither taken for the template's own nor encoded as its token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from elysia.core.errors import TemplateError
from elysia.core.messages import Conversation, Message
from elysia.core.templates import TextPiece, is_document, render_document
from elysia.models.jinja_sandbox import render_jinja
from elysia.models.streaming_text import THOUGHT_MARKS, find_open_thought, separate_thoughts

_MARK = "\U000f1a5e"  # a private-use character; one that people typed is removed first
# What tokenizers call their control tokens, and what may become one beside a template's markup.
_CONTROL = re.compile(
    r"<\|[^<>\n]{1,64}\|>|<｜[^<>\n]{1,64}｜>|<[^\s<>]{1,64}>|\[/?[A-Za-z_][A-Za-z0-9_]*\]"
    r"|<[^\s<>]{0,64}\Z"
)
# Templates look for these in a message, and tokenizers have them as ordinary tokens.
_ORDINARY = re.compile(r"</?(?:think|thinking|tool_call|tool_response|tools)>")
# Templates know three efforts, OpenAI's API more.
_EFFORTS = {"none": "low", "minimal": "low", "xhigh": "high"}
_REPLY, _NEXT, _FIRST, _SYSTEM = "Zqreplyzq", "Zqnextzq", "Zqfirstzq", "Zqsystemzq"


@dataclass(frozen=True)
class JinjaTemplate:
    """A chat template in Jinja, under transformers' contract.

    `bos_token`, `eos_token`: the texts that the template may insert. `stop_words`: further texts that end
    a reply. `thinking`: whether the template is asked for a reply that thinks first, where it takes
    `enable_thinking` or `thinking`; None is no. `reasoning_effort`: how long, where it takes that; "" is as
    the template says.
    """

    name: str
    source: str
    bos_token: str = ""
    eos_token: str = ""
    stop_words: tuple[str, ...] = ()
    thinking: bool | None = None
    reasoning_effort: str = ""

    @property
    def takes_thinking(self) -> bool:
        """Whether the template can be asked for a reply with or without thoughts."""
        return bool(re.search(r"\b(?:enable_)?thinking\b", self.source))

    @property
    def end(self) -> str:
        """The text that ends a reply; "" for a template without one."""
        return _probe(self).end

    def get_stop_words(self) -> tuple[str, ...]:
        """The texts that end a reply: the template's end, the end-of-sequence token, further ones."""
        words = (self.end, self.eos_token, *self.stop_words)
        return tuple(dict.fromkeys(word for word in words if word))

    def check(self) -> None:
        """Render a talk of two messages. Raises TemplateError for a template that cannot be used."""
        _probe(self)

    def with_thinking(self, thinking: bool | None, effort: str | None = None) -> JinjaTemplate:
        """The same template, asked for thoughts or not, and with what effort; None changes nothing.

        Where a template knows only whether to think, the effort "none" is no, and any other is yes.
        """
        if effort and "reasoning_effort" in self.source:
            return replace(
                self,
                reasoning_effort=_EFFORTS.get(effort, effort),
                thinking=self.thinking if thinking is None else thinking,
            )
        if effort and thinking is None:
            thinking = effort != "none"
        return self if thinking is None else replace(self, thinking=thinking)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for a run card; `from_dict` reads them."""
        return {
            "name": self.name,
            "jinja": self.source,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "stop_words": list(self.stop_words),
            "thinking": self.thinking,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> JinjaTemplate:
        """The template that `to_dict` wrote. Raises TemplateError for a missing or wrong field."""
        texts = {"name": "own", "jinja": "", "bos_token": "", "eos_token": ""}
        known = [*texts, "stop_words", "thinking"]
        for key in values:
            if key not in known:
                raise TemplateError("core.template_unknown_field", key=key, hint="")
        for key, default in texts.items():
            texts[key] = values.get(key, default)
            if not isinstance(texts[key], str):
                raise TemplateError("core.template_field_not_text", key=key)
        if not texts["jinja"].strip():
            raise TemplateError("core.template_needs_field", key="jinja")
        words = values.get("stop_words", ())
        if isinstance(words, str) or not all(isinstance(word, str) for word in words):
            raise TemplateError("core.template_stop_words")
        thinking = values.get("thinking")
        if thinking not in (None, True, False):
            raise TemplateError("models.template_thinking", value=repr(thinking))
        source = texts.pop("jinja")
        return cls(**texts, source=source, stop_words=tuple(words), thinking=thinking)

    def render_text(self, messages: Conversation, *, generate: bool = True) -> str:
        """The text of `messages` as they are, as transformers' `apply_chat_template` gives it."""
        return _render(self, messages, generate)

    def render_prompt(self, conversation: Conversation) -> list[TextPiece]:
        """The chat prompt as one piece. Raises TemplateError when the last message is a reply."""
        if conversation and conversation[-1].role == "assistant":
            raise TemplateError("core.nothing_to_answer")
        return [_to_piece(self._render_prompt(conversation), False)]

    def render_training(self, conversation: Conversation) -> list[list[TextPiece]]:
        """The training samples of a conversation: one, or one a reply where the template writes earlier
        messages in another way once there are later ones. Thoughts in the replies are left out unless
        `thinking` is set."""
        if is_document(conversation):
            return [render_document(conversation[0])]
        if not self.thinking:
            conversation = [_leave_out_thoughts(message) for message in conversation]
        for message in conversation:
            if message.role != "assistant" and message.learned:
                raise TemplateError("core.role_cannot_be_learned", role=message.role)
        ends = [i for i, message in enumerate(conversation) if message.role == "assistant"]
        if not ends:
            return [[_to_piece(self._render_prompt(conversation), False)]]
        regions = [(*self._find_reply(conversation, i), conversation[i].learned) for i in ends]
        whole = "".join(regions[-1][:2])
        if all(whole.startswith(prompt + reply) for prompt, reply, _ in regions):
            return [_cut_pieces(whole, regions)]
        return [
            [_to_piece(prompt, False), _to_piece(reply, True)]
            for number, (prompt, reply, learned) in enumerate(regions, start=1)
            # The last one stays even where it is not learned: a sample for each talk.
            if learned or (number == len(regions) and not any(r[2] for r in regions))
        ]

    def _render_prompt(self, conversation: Conversation) -> str:
        probe = _probe(self)
        messages = _adapt_messages(_protect(conversation), probe, is_prompt=True)
        return _render(self, messages, True) + probe.generation_prompt

    def _find_reply(self, conversation: Conversation, index: int) -> tuple[str, str]:
        """The prompt before the reply at `index`, and the reply through its end; both with marks."""
        probe = _probe(self)
        prompt = self._render_prompt(conversation[:index])
        talk = _adapt_messages(_protect(conversation[: index + 1]), probe, is_prompt=False)
        text = _render(self, talk, False)
        if not text.startswith(prompt):
            # The prompt has more (an empty thought) than the talk: the reply follows it as it is.
            return prompt, _close_thought(prompt, talk[-1].text.strip()) + probe.end
        reply = text[len(prompt) :]
        at = reply.find(probe.end) if probe.end else -1
        return prompt, reply + probe.end if at < 0 else reply[: at + len(probe.end)]


def _leave_out_thoughts(message: Message) -> Message:
    text = separate_thoughts(message.text).text if message.role == "assistant" else message.text
    return message if text == message.text else replace(message, text=text)


def _close_thought(prompt: str, reply: str) -> str:
    """The reply behind a prompt that may have opened a thought: that is closed before the reply begins.

    Else a model such as DeepSeek-R1 would learn to reply inside its thought.
    """
    mark = find_open_thought(prompt)
    if not mark:
        return reply
    if reply.startswith(mark):
        return reply[len(mark) :].lstrip("\n")
    return f"\n{THOUGHT_MARKS[mark]}\n\n{reply}"


@dataclass(frozen=True)
class _TemplateAbilities:
    """What a template can do, as a trial showed, and the text that ends a reply."""

    end: str = ""
    system: bool = True
    late_system: bool = True
    repeated_users: bool = True
    reply_first: bool = True
    needs_user: bool = False
    generation_prompt: str = ""  # what the template does not write itself


def _render(template: JinjaTemplate, messages: Iterable[Message], generate: bool) -> str:
    thinking = bool(template.thinking)
    values: dict[str, Any] = {
        "messages": [{"role": m.role, "content": m.text} for m in messages],
        "tools": None,
        "documents": None,
        "add_generation_prompt": generate,
        "bos_token": template.bos_token,
        "eos_token": template.eos_token,
        "enable_thinking": thinking,
        "thinking": thinking,
    }
    if template.reasoning_effort:
        values["reasoning_effort"] = template.reasoning_effort
    try:
        return render_jinja(template.name, template.source, values)
    except TemplateError as error:
        if error.code != "models.jinja_fails":
            raise
        # Some templates for tools run over them without a look at whether there are any.
        return render_jinja(template.name, template.source, values | {"tools": [], "documents": []})


def _holds_texts(template: JinjaTemplate, *messages: Message) -> bool:
    """Whether the template renders `messages`, each of them once and in their order."""
    try:
        text = _render(template, messages, False)
    except TemplateError:
        return False
    at = 0
    for message in messages:
        at = text.find(message.text, at) + 1
        if not at:
            return False
    return True


@lru_cache(maxsize=256)
def _probe(template: JinjaTemplate) -> _TemplateAbilities:
    """What a template can do. Raises TemplateError for one that does not render the simplest talk."""
    system, first = Message("system", _SYSTEM), Message("user", _FIRST)
    reply, following = Message("assistant", _REPLY), Message("user", _NEXT)
    prompt = _render(template, [first], True)
    if _FIRST not in prompt:
        raise TemplateError("models.jinja_loses_message", name=template.name)
    talk = _render(template, [first, reply, following], False)
    closed = _render(template, [first, reply], False)
    if _REPLY not in closed:
        raise TemplateError("models.jinja_loses_message", name=template.name)
    is_whole = _REPLY in talk and _NEXT in talk
    after = talk.split(_REPLY, 1)[1].split(_NEXT, 1)[0] if is_whole else ""
    header = ""
    if prompt == _render(template, [first], False) and closed.startswith(prompt):
        gap = closed[len(prompt) :].split(_REPLY, 1)[0]
        header = gap if _CONTROL.search(_ORDINARY.sub("", gap)) else ""
    return _TemplateAbilities(
        end=_find_end(template, closed.split(_REPLY, 1)[1])
        or _find_end(template, after)
        or template.eos_token,
        system=_holds_texts(template, system, first),
        late_system=_holds_texts(template, first, reply, system, following),
        repeated_users=_holds_texts(template, first, following),
        reply_first=_holds_texts(template, reply) and _holds_texts(template, reply, following),
        needs_user=not _holds_texts(template, system),
        generation_prompt=header,
    )


def _find_end(template: JinjaTemplate, text: str) -> str:
    """The first control token in what follows a reply."""
    places = [(m.start(), -len(m[0]), m[0]) for m in [_CONTROL.search(text)] if m]
    if template.eos_token and template.eos_token in text:
        eos = template.eos_token
        places.append((text.index(eos), -len(eos), eos))
    return min(places)[2] if places else ""


def _protect(messages: Conversation) -> list[Message]:
    """Messages in which every character of what looks like a control token is followed by a mark."""
    return [Message(m.role, _mark_lookalikes(m.text), learn=m.learn) for m in messages]


def _mark_lookalikes(text: str) -> str:
    text = text.replace(_MARK, "")
    if "<" not in text and "[" not in text:
        return text

    def mark(match: re.Match[str]) -> str:
        token = match[0]
        return token if _ORDINARY.fullmatch(token) else "".join(c + _MARK for c in token)

    return _CONTROL.sub(mark, text)


def _adapt_messages(
    messages: list[Message], probe: _TemplateAbilities, *, is_prompt: bool
) -> list[Message]:
    """The messages as the template can take them.

    A system text that it refuses goes in front of the next user message; what a tool returned is a user
    message; a reply that follows none answers an empty one, where the template wants turns to alternate.
    """
    adapted: list[Message] = []
    pending: list[str] = []  # system texts for the next user message
    for message in messages:
        role = "user" if message.role == "tool" else message.role
        before = adapted[-1].role if adapted else ""
        if role == "system":
            is_front = before in ("", "system")
            if before == "system":
                adapted[-1] = Message("system", f"{adapted[-1].text}\n{message.text}")
            elif probe.system and (is_front or probe.late_system):
                adapted.append(Message("system", message.text))
            else:
                pending.append(message.text)
            continue
        text = message.text
        if role == "user" or pending:
            follows_user = before == "user" and role == "user" and not probe.repeated_users
            if role == "user":
                text = "\n\n".join([*pending, text])
            else:
                adapted.append(Message("user", "\n\n".join(pending)))
            pending = []
            if follows_user:
                adapted[-1] = Message("user", f"{adapted[-1].text}\n{text}")
                continue
        before = adapted[-1].role if adapted else ""
        if role == "assistant" and before != "user" and not probe.reply_first:
            adapted.append(Message("user", ""))
        adapted.append(Message(role, text))
    if pending:
        adapted.append(Message("user", "\n\n".join(pending)))
    answers_nothing = not adapted or (is_prompt and adapted[-1].role != "user")
    if not adapted or (answers_nothing and (probe.needs_user or not probe.reply_first)):
        adapted.append(Message("user", ""))
    return adapted


def _to_piece(marked: str, learn: bool) -> TextPiece:
    """A piece of a text with marks: the text without them, and the spans that they cover."""
    if _MARK not in marked:
        return TextPiece(marked, learn)
    spans: list[tuple[int, int]] = []
    removed = 0
    for match in re.finditer(f"(?:[^{_MARK}]{_MARK})+", marked):
        start = match.start() - removed
        removed += len(match[0]) // 2
        spans.append((start, match.end() - removed))
    return TextPiece(marked.replace(_MARK, ""), learn, None, tuple(spans))


def _cut_pieces(whole: str, regions: list[tuple[str, str, bool]]) -> list[TextPiece]:
    pieces: list[TextPiece] = []
    at = 0
    for prompt, reply, learned in regions:
        if len(prompt) > at:
            pieces.append(_to_piece(whole[at : len(prompt)], False))
        at = len(prompt) + len(reply)
        pieces.append(_to_piece(reply, learned))
    return pieces
