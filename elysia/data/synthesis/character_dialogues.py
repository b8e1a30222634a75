"""Rows that make a character of a model that can already talk, without making it forget the rest.

At most a tenth of them ask who the character is. The others are ordinary talk in its voice, and general
questions with the answers of the base itself (replay). What the base has to write is asked through a
callable, so that any engine can; answer_journal.py keeps it.

Sources: context distillation (Askell et al. 2021, arXiv:2112.00861), and replay of self-written answers
against forgetting (Yang et al. 2024, arXiv:2402.13669).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elysia.core.errors import DataError
from elysia.core.messages import Message
from elysia.core.paths import get_data_folder
from elysia.core.persona import Persona
from elysia.data.lint.dialogue_rules import find_other_identities
from elysia.data.lint.text_rules import HAN, find_cut_off
from elysia.data.synthesis.answer_filter import find_refused_rule
from elysia.data.synthesis.answer_journal import Answerer, AnswerJournal, BaseRequest
from elysia.data.synthesis.persona_rows import describe_in_answer, example_rows
from elysia.data.synthesis.phrase_banks import (
    Dialogue,
    QuestionFilter,
    expand_choices,
    load_json,
    load_probe_texts,
)

BANK = "character_asks.json"
PROBES = "character_probes.json"
IDENTITY_SHARE = 0.1  # at most, of all rows
LONGEST_VOICE = 320  # characters of a reply in the character's voice
SHOTS = 3  # examples that the base sees before it plays the character
HELDOUT_GENERAL = 48
NEUTRAL = {"en": "You are a helpful assistant.", "zh": "你是一个乐于助人的助手。"}
_SERVICE = re.compile(
    r"\b(as an AI|language model|AI assistant|how (can|may) I (help|assist)|\{\{|<START>)|人工智能|语言模型",
    re.I,
)
_STAGE = re.compile(r"^\s*(\[[^\]]*\]|\([^)]*\)|\*[^*]*\*)\s*")


@dataclass(frozen=True)
class CharacterAsk:
    """A question of the bank: its language, group (identity, ordinary, general) and kind."""

    text: str
    language: str
    group: str
    kind: str


@dataclass
class CharacterRows:
    """The rows to train on, general rows held out, and how many there are of each group."""

    train: list[dict[str, Any]] = field(default_factory=list)
    general_heldout: list[dict[str, Any]] = field(default_factory=list)
    groups: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


def find_languages(persona: Persona) -> tuple[str, ...]:
    """The languages that a card's character is shown to speak: of zh and en, by its own lines.

    >>> find_languages(Persona("Nova", first_mes="Hello."))
    ('en',)
    """
    lines = [turn.reply for talk in example_rows(persona) for turn in talk] or [persona.first_mes]
    spoken = {_detect_language(line) for line in lines if line.strip()}
    return tuple(language for language in ("zh", "en") if language in spoken) or ("en",)


def _detect_language(line: str) -> str:
    return "zh" if HAN.search(line) else "en"


def load_asks(languages: Sequence[str], data: Path | None = None) -> list[CharacterAsk]:
    """Every question of the bank in these languages, none of them close to a bundled probe."""
    folder = data or get_data_folder()
    probes = [*load_probe_texts(folder), *load_character_probes(folder)]
    questions, asks = QuestionFilter(probes), []
    bank = load_bank(folder)
    for language in languages:
        for group, kinds in bank[language]["asks"].items():
            for kind, patterns in kinds.items():
                readings = (text for pattern in patterns for text in expand_choices(pattern))
                asks += [
                    CharacterAsk(_capitalize(text), language, group, kind)
                    for text in readings
                    if questions.accept(text)
                ]
    return asks


def load_bank(folder: Path) -> dict[str, Any]:
    """The bank of questions, by language."""
    bank: dict[str, Any] = load_json(folder / "source" / BANK)
    return bank


def load_character_probes(folder: Path) -> list[str]:
    """The questions that trained characters are measured with."""
    content = load_json(folder / PROBES)
    return [str(row["text"]) for section in content.values() for row in section]


def build_character_rows(
    persona: Persona,
    journal: AnswerJournal,
    answerer: Answerer,
    *,
    count: int = 600,
    replay: float = 0.45,
    seed: int = 0,
    data: Path | None = None,
) -> CharacterRows:
    """`count` rows or, where the bank ends sooner, as many as it gives.

    Args:
        replay: the share of general questions with the base's own answers.

    Raises DataError for a card that shows no line of its character.
    """
    folder = data or get_data_folder()
    examples = example_rows(persona)
    if not examples:
        raise DataError("data.card_without_examples", name=persona.display_name)
    builder = CharacterRowBuilder(
        persona, examples, load_bank(folder), journal, answerer, seed, random.Random(seed)
    )
    rng, rows = builder.rng, builder.rows
    asks = load_asks(find_languages(persona), folder)
    rng.shuffle(asks)
    by_group = {
        group: [ask for ask in asks if ask.group == group]
        for group in ("identity", "ordinary", "general")
    }
    heldout, general = by_group["general"][:HELDOUT_GENERAL], by_group["general"][HELDOUT_GENERAL:]
    rows.general_heldout = builder.build_replay(heldout, heldout=True)
    replayed = builder.build_replay(general[: round(count * replay)])
    voice = [_row([(turn.ask, turn.reply) for turn in talk], "example") for talk in examples]
    room = max(0, round(count * (1 - IDENTITY_SHARE)) - len(replayed) - len(voice))
    voice += builder.build_voice(by_group["ordinary"][:room])
    most = round(IDENTITY_SHARE / (1 - IDENTITY_SHARE) * (len(voice) + len(replayed)) - 0.5)
    identity = builder.build_identity(by_group["identity"][: max(most, 1)])
    rows.groups.update(identity=len(identity), voice=len(voice), replay=len(replayed))
    rows.train = _join_turns([*voice, *identity], rng) + replayed
    rng.shuffle(rows.train)
    return rows


@dataclass
class CharacterRowBuilder:
    """Builds the rows of each group. `examples` are the card's dialogues, `bank` the bank of questions."""

    persona: Persona
    examples: Sequence[Dialogue]
    bank: dict[str, Any]
    journal: AnswerJournal
    answerer: Answerer
    seed: int
    rng: random.Random
    rows: CharacterRows = field(default_factory=CharacterRows)

    def build_identity(self, asks: Sequence[CharacterAsk]) -> list[dict[str, Any]]:
        """An answer to each question about the character, in many forms; a line of its own often follows."""
        persona, about = self.persona, _describe_role(self.persona)
        author = str(persona.elysia_extensions.get("author") or persona.extra.get("creator") or "")
        origins = {"en": f"{author} wrote me. ", "zh": f"是{author}写出了我。"}
        english = str(persona.elysia_extensions.get("english_name") or persona.display_name)
        lines: dict[str, list[str]] = {"en": [], "zh": []}
        for line in _short_lines(persona):
            lines[_detect_language(line)].append(line)
        rows = []
        for ask in asks:
            pattern = self.rng.choice(self.bank[ask.language]["replies"][ask.kind])
            own = lines[ask.language]
            reply = pattern.format(
                name=english if ask.language == "en" else persona.display_name,
                about=about[ask.language],
                line=self.rng.choice(own) if own and self.rng.random() < 0.6 else "",
                made_by=origins[ask.language] if author else "",
            )
            rows.append(_row([(ask.text, reply.strip())], "identity"))
        return rows

    def build_voice(self, asks: Sequence[CharacterAsk]) -> list[dict[str, Any]]:
        """Ordinary talk in the character's voice: for kinds of talk where one answer fits many questions a
        line that the card shows, else what the base writes as the character where it passes the filter."""
        turns = [turn for talk in self.examples for turn in talk if turn.kind == "example"]
        shots = [(turn.ask, turn.reply) for turn in turns]
        kinds = sort_examples(shots, find_languages(self.persona), self.bank)
        requests = {
            place: self._build_voice_request(place, ask, shots)
            for place, ask in enumerate(asks)
            if (ask.language, ask.kind) not in kinds
        }
        complete = self.journal.complete(list(requests.values()), self.answerer)
        answers = dict(zip(requests, complete, strict=True))
        built = []
        for place, ask in enumerate(asks):
            if place not in answers:
                reply = self.rng.choice(kinds[ask.language, ask.kind])
            else:
                reply = _STAGE.sub("", answers[place].text).strip()
                if fault := find_voice_fault(reply, answers[place].ended, self.persona):
                    self.rows.refused[fault] += 1
                    continue
            built.append(_row([(ask.text, reply)], "voice"))
        return built

    def _build_voice_request(
        self, place: int, ask: CharacterAsk, shots: Sequence[tuple[str, str]]
    ) -> BaseRequest:
        drawn = random.Random(f"{self.seed} {place}").sample(shots, min(SHOTS, len(shots)))
        talk = [Message("system", _play_instruction(self.persona, ask.language))]
        for question, reply in drawn:
            talk += [Message("user", question), Message("assistant", reply)]
        talk.append(Message("user", ask.text))
        return BaseRequest(tuple(talk), 80, 0.7, self.seed + place)

    def build_replay(
        self, asks: Sequence[CharacterAsk], *, heldout: bool = False
    ) -> list[dict[str, Any]]:
        """General questions with the base's own answers. A third of those that are trained on has a neutral
        system text, and all that are held out; the others have none, so that training puts the character's
        there and being the character costs no knowledge."""
        requests = [
            BaseRequest(
                (Message("system", NEUTRAL[ask.language]), Message("user", ask.text)),
                96, 0.0, self.seed,
            )
            for ask in asks
        ]  # fmt: skip
        rows = []
        for ask, answer in zip(asks, self.journal.complete(requests, self.answerer), strict=True):
            text = answer.text.strip()
            if not answer.ended:
                # What was cut is learned up to its last whole paragraph or sentence.
                end = max(text.rfind(mark) for mark in ("\n\n", ". ", "。", ".\n"))
                text = text[: end + 1].strip() if end > 0 else ""
            if len(text) < 2:
                self.rows.refused["cut-off"] += 1
                continue
            is_neutral = heldout or self.rng.random() < 1 / 3
            rows.append(
                _row([(ask.text, text)], "replay", NEUTRAL[ask.language] if is_neutral else "")
            )
        return rows


def _describe_role(persona: Persona) -> dict[str, str]:
    """What follows "I am NAME": from the system line ("You are NAME, the …"), else the description."""
    match = re.match(r"You are [^,，.。]+(, [^.]{3,80})\.?", persona.system_line())
    chinese, english = describe_in_answer(persona)
    return {"zh": chinese, "en": match.group(1) if match else english}


def _short_lines(persona: Persona) -> list[str]:
    """The character's greetings' first sentences, which stand well after a name."""
    greetings = [persona.first_mes, *(persona.extra.get("alternate_greetings") or [])]
    texts = [persona.fill(text) for text in greetings if isinstance(text, str)]
    sentences = [part.strip() for text in texts for part in re.split(r"(?<=[.!?。！？])\s*", text)]
    return [part for part in sentences if 4 <= len(part) <= 60]


def _play_instruction(persona: Persona, language: str) -> str:
    """The whole card as a system text, with the request to stay short and to keep the name back."""
    rule = {
        "en": "Answer in one to three short sentences, in your own voice. Do not say your name.",
        "zh": "用你自己的语气回答，一到三句短句，不要说出自己的名字。",
    }
    return f"{persona.system_text()}\n{rule[language]}"


def find_voice_fault(text: str, ended: bool, persona: Persona) -> str:
    """Why a reply may not be learned as the character's voice; "" when it may."""
    if not ended or any(find_cut_off(text)):
        return "cut-off"
    if not 8 <= len(text) <= LONGEST_VOICE:
        return "length"
    names = {
        persona.name,
        persona.display_name,
        str(persona.elysia_extensions.get("english_name") or ""),
    }
    if any(name and name.lower() in text.lower() for name in names):
        return "says-name"
    if _SERVICE.search(text) or any(find_other_identities(text, frozenset())):
        return "other-assistant"
    words = re.findall(r"\w+", text.lower())
    if len(words) > 12 and len(set(words)) / len(words) < 0.55:
        return "repeats"
    return find_refused_rule(text)


def sort_examples(
    shots: Sequence[tuple[str, str]], languages: Sequence[str], bank: dict[str, Any]
) -> dict[tuple[str, str], list[str]]:
    """The card's replies by (language, kind), as the words of their questions say; the bank's `examples`
    are patterns of the kinds where a reply to one question fits the others."""
    replies: dict[tuple[str, str], list[str]] = {}
    for question, reply in shots:
        for language in languages:
            matches = [
                kind
                for kind, pattern in bank[language]["examples"].items()
                if re.search(pattern, question, re.I)
            ]
            if len(matches) == 1:
                replies.setdefault((language, matches[0]), []).append(reply)
    return replies


def _join_turns(rows: Sequence[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    """A fifth of single exchanges become talks of two or three, so that the voice lasts."""
    order = list(rows)
    rng.shuffle(order)
    waiting: Iterator[dict[str, Any]] = iter(order)
    joined = []
    for row in waiting:
        turns, kinds = list(row["conversation"]), [row["kind"]]
        if rng.random() < 0.2:
            for _ in range(rng.choice((1, 2))):
                if more := next(waiting, None):
                    turns += more["conversation"]
                    kinds.append(more["kind"])
        joined.append({"conversation": turns, "kind": "+".join(kinds)})
    return joined


def _row(pairs: Sequence[tuple[str, str]], kind: str, system: str = "") -> dict[str, Any]:
    turns: list[dict[str, str]] = [{"input": ask, "output": reply} for ask, reply in pairs]
    if system:
        turns[0] = {"system": system, **turns[0]}
    return {"conversation": turns, "kind": kind}


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]
