"""Rows that make a character of a model that can already talk, without making it forget the rest.

At most a tenth of them ask who the character is. The others are ordinary talk in its voice, and general
questions with the answers of the base itself (replay). What the base has to write is asked through a
callable, so that any engine can; `AnswerJournal` keeps each answer, so that a killed run goes on.

Sources: context distillation (Askell et al. 2021, arXiv:2112.00861), and replay of self-written answers
against forgetting (Yang et al. 2024, arXiv:2402.13669).
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elysia.core.errors import DataError
from elysia.core.messages import Conversation, Message
from elysia.core.paths import get_data_folder
from elysia.core.persona import Persona
from elysia.data.lint.dialogue_rules import find_other_identities
from elysia.data.lint.text_rules import CHECKS, find_cut_off
from elysia.data.synthesis.answer_filter import REFUSED_RULES
from elysia.data.synthesis.persona_rows import describe_in_answer, example_rows
from elysia.data.synthesis.phrase_banks import (
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
_HAN = re.compile(r"[\u4e00-\u9fff]")
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


@dataclass(frozen=True)
class BaseRequest:
    """What the base is to answer; `seed` makes its sampling repeatable."""

    messages: Conversation
    max_new_tokens: int
    temperature: float
    seed: int

    @property
    def key(self) -> str:
        """A digest of the request, under which its answer is kept."""
        talk = [(message.role, message.text) for message in self.messages]
        content = json.dumps([talk, self.max_new_tokens, self.temperature, self.seed])
        return hashlib.sha256(content.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class BaseAnswer:
    """The base's answer, and whether it ended by itself."""

    text: str
    ended: bool


Answerer = Callable[[Sequence[BaseRequest]], Iterable[tuple[int, BaseAnswer]]]


@dataclass
class CharacterRows:
    """The rows to train on, general rows held out, and how many there are of each group."""

    train: list[dict[str, Any]] = field(default_factory=list)
    general_heldout: list[dict[str, Any]] = field(default_factory=list)
    groups: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


class AnswerJournal:
    """Answers of one base, a JSON line each, appended as they come; a broken last line is ignored."""

    def __init__(self, path: Path, model: str) -> None:
        self.path, self.model = path, model
        self.answers: dict[str, BaseAnswer] = {}
        self._is_open = False
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                self._read(line)

    def _read(self, line: str) -> None:
        try:
            value = json.loads(line)
            if value["model"] == self.model:
                self.answers[value["key"]] = BaseAnswer(str(value["text"]), bool(value["ended"]))
        except (ValueError, KeyError, TypeError):
            return

    def complete(self, requests: Sequence[BaseRequest], answerer: Answerer) -> list[BaseAnswer]:
        """The answer to each request; only those that are not kept yet are asked."""
        missing = [request for request in requests if request.key not in self.answers]
        missing = list({request.key: request for request in missing}.values())
        for place, answer in answerer(missing) if missing else ():
            key = missing[place].key
            self.answers[key] = answer
            line = {"model": self.model, "key": key, "text": answer.text, "ended": answer.ended}
            self._append(json.dumps(line, ensure_ascii=False))
        return [self.answers[request.key] for request in requests]

    def _append(self, line: str) -> None:
        """Append a line; the first one of a run begins anew, since a killed run may have left half a line."""
        text = line + "\n" if self._is_open else "\n" + line + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)
        self._is_open = True


def find_languages(persona: Persona) -> tuple[str, ...]:
    """The languages that a card's character is shown to speak: of zh and en, by its own lines.

    >>> find_languages(Persona("Nova", first_mes="Hello."))
    ('en',)
    """
    lines = [turn.reply for talk in example_rows(persona) for turn in talk] or [persona.first_mes]
    spoken = {"zh" if _HAN.search(line) else "en" for line in lines if line.strip()}
    return tuple(language for language in ("zh", "en") if language in spoken) or ("en",)


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
    languages = find_languages(persona)
    rng = random.Random(seed)
    asks = load_asks(languages, folder)
    rng.shuffle(asks)
    by_group = {
        group: [ask for ask in asks if ask.group == group]
        for group in ("identity", "ordinary", "general")
    }
    rows = CharacterRows()
    heldout, general = by_group["general"][:HELDOUT_GENERAL], by_group["general"][HELDOUT_GENERAL:]
    rows.general_heldout = _replay_rows(heldout, journal, answerer, seed, rng, None, rows.refused)
    system = persona.system_line()
    replayed = _replay_rows(
        general[: round(count * replay)], journal, answerer, seed, rng, system, rows.refused
    )
    voice = _example_dialogues(persona)
    room = max(0, round(count * (1 - IDENTITY_SHARE)) - len(replayed) - len(voice))
    voice += _voice_rows(
        persona, by_group["ordinary"][:room], journal, answerer, seed, rng, rows, folder
    )
    most = round(IDENTITY_SHARE / (1 - IDENTITY_SHARE) * (len(voice) + len(replayed)) - 0.5)
    identity = build_identity_rows(persona, by_group["identity"][: max(most, 1)], rng, folder)
    rows.groups.update(identity=len(identity), voice=len(voice), replay=len(replayed))
    rows.train = _join_turns([*voice, *identity], rng) + replayed
    rng.shuffle(rows.train)
    return rows


def build_identity_rows(
    persona: Persona, asks: Sequence[CharacterAsk], rng: random.Random, folder: Path
) -> list[dict[str, Any]]:
    """An answer to each question about the character, in many forms; a line of its own often follows."""
    bank, about = load_bank(folder), _describe_role(persona)
    author = str(persona.elysia_extensions.get("author") or persona.extra.get("creator") or "")
    english = str(persona.elysia_extensions.get("english_name") or persona.display_name)
    rows = []
    for ask in asks:
        lines = [
            line
            for line in _short_lines(persona)
            if bool(_HAN.search(line)) == (ask.language == "zh")
        ]
        pattern = rng.choice(bank[ask.language]["replies"][ask.kind])
        origin = (
            {"en": f"{author} wrote me. ", "zh": f"是{author}写出了我。"}[ask.language]
            if author
            else ""
        )
        reply = pattern.format(
            name=english if ask.language == "en" else persona.display_name,
            about=about.get(ask.language, ""),
            line=rng.choice(lines) if lines and rng.random() < 0.6 else "",
            made_by=origin,
        )
        rows.append(_row([(ask.text, reply.strip())], "identity"))
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


def _example_dialogues(persona: Persona) -> list[dict[str, Any]]:
    """The card's own examples and greetings."""
    return [
        _row([(turn.ask, turn.reply) for turn in talk], "example") for talk in example_rows(persona)
    ]


def _voice_rows(
    persona: Persona,
    asks: Sequence[CharacterAsk],
    journal: AnswerJournal,
    answerer: Answerer,
    seed: int,
    rng: random.Random,
    rows: CharacterRows,
    folder: Path,
) -> list[dict[str, Any]]:
    """Ordinary talk in the character's voice: what the base writes as the character where it passes the
    filter, else, for kinds of talk where one answer fits many questions, a line that the card shows."""
    examples = [turn for talk in example_rows(persona) for turn in talk if turn.kind == "example"]
    shots = [(turn.ask, turn.reply) for turn in examples]
    kinds = sort_examples(shots, find_languages(persona), folder)
    requests = []
    for place, ask in enumerate(asks):
        drawn = random.Random(f"{seed} {place}").sample(shots, min(SHOTS, len(shots)))
        talk = [Message("system", _play_instruction(persona, ask.language))]
        for question, reply in drawn:
            talk += [Message("user", question), Message("assistant", reply)]
        talk.append(Message("user", ask.text))
        requests.append(BaseRequest(tuple(talk), 80, 0.7, seed + place))
    borrowed = [(ask.language, ask.kind) in kinds for ask in asks]
    asked = [request for request, is_own in zip(requests, borrowed, strict=True) if not is_own]
    answers = iter(journal.complete(asked, answerer))
    built = []
    for ask, is_own in zip(asks, borrowed, strict=True):
        if is_own:
            built.append(_row([(ask.text, rng.choice(kinds[ask.language, ask.kind]))], "voice"))
            continue
        answer = next(answers)
        text = _STAGE.sub("", answer.text).strip()
        if fault := find_voice_fault(text, answer.ended, persona):
            rows.refused[fault] += 1
            continue
        built.append(_row([(ask.text, text)], "voice"))
    return built


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
    for rule, check in CHECKS:
        if rule in REFUSED_RULES and any(check(text)):
            return rule
    return ""


def sort_examples(
    shots: Sequence[tuple[str, str]], languages: Sequence[str], folder: Path
) -> dict[tuple[str, str], list[str]]:
    """The card's replies by (language, kind), as the words of their questions say; the bank's `examples`
    are patterns of the kinds where a reply to one question fits the others."""
    bank = load_bank(folder)
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


def _replay_rows(
    asks: Sequence[CharacterAsk],
    journal: AnswerJournal,
    answerer: Answerer,
    seed: int,
    rng: random.Random,
    system: str | None,
    refused: Counter[str],
) -> list[dict[str, Any]]:
    """General questions with the base's own answers: a third under a neutral system text, the others
    under the character's (`system`), so that being the character costs no knowledge."""
    requests = [
        BaseRequest(
            (Message("system", NEUTRAL[ask.language]), Message("user", ask.text)), 96, 0.0, seed
        )
        for ask in asks
    ]
    rows = []
    for ask, answer in zip(asks, journal.complete(requests, answerer), strict=True):
        text = answer.text.strip()
        if not answer.ended:
            # What was cut is learned up to its last whole paragraph or sentence.
            end = max(text.rfind(mark) for mark in ("\n\n", ". ", "。", ".\n"))
            text = text[: end + 1].strip() if end > 0 else ""
        if len(text) < 2:
            refused["cut-off"] += 1
            continue
        own = NEUTRAL[ask.language] if system is None or rng.random() < 1 / 3 else ""
        rows.append(_row([(ask.text, text)], "replay", own))
    return rows


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
