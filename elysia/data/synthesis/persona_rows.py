"""Dataset rows made from a name or a character card, without any model.

Identity rows say who the character is, who made it and what it is not: their questions come from the
phrase banks in `data/source`, the answers are short and say the whole name. Example rows repeat what
the card itself shows: its example dialogues and its greetings.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from elysia.core.errors import DataError, ElysiaError, PersonaError, UsageError
from elysia.core.files import write_atomic
from elysia.core.paths import get_data_folder
from elysia.core.persona import Persona
from elysia.data.synthesis.phrase_banks import (
    IDENTITY_BANKS,
    SEED,
    Dialogue,
    DialogueTurn,
    QuestionFilter,
    generate_turns,
    load_probe_texts,
    normalize_question,
    render_dialogues,
)

log = logging.getLogger(__name__)

TUTORIAL_ASK = "请介绍一下你自己"  # the question of XTuner's tutorial; our first row asks it too
LONGEST_ABOUT = 60  # characters of a description's first sentence that an answer may quote
HELLOS = {"zh": ("你好", "嗨", "在吗？"), "en": ("Hello", "Hi there", "Hey!")}
_HAN = re.compile(r"[\u4e00-\u9fff]")
_START = re.compile(r"<START>", re.I)


def self_cognition_rows(
    name: str, author: str, rows: int, data: Path | None = None
) -> list[Dialogue]:
    """`rows` one-turn dialogues of an assistant that knows its name and who made it.

    They all differ until the banks are used up (after more than 1,000 rows); then they repeat, with
    a warning. UsageError for a blank name or author, or for fewer rows than one.
    """
    name, author = _clean_argument(name, "--name"), _clean_argument(author, "--author")
    if rows < 1:
        raise UsageError("data.repeat_too_small", rows=rows)
    # "--author 我" is the user, who is "you" in the assistant's mouth.
    first_person = author.lower() in {"我", "我自己", "i", "me", "myself"}
    maker = ("你", "you") if first_person else (author, author)
    origin = (f"是{maker[0]}做出来的助手", f"an assistant made by {maker[1]}")
    turns = _identity_turns(
        _bank_fields(name, name, name, (f"，{origin[0]}", f", {origin[1]}"), origin),
        data or get_data_folder(),
    )
    opening = next(turn for turn in turns if turn.kind == "intro").reply
    turns = [
        turn for turn in turns if normalize_question(turn.ask) != normalize_question(TUTORIAL_ASK)
    ]
    turns.insert(0, DialogueTurn(TUTORIAL_ASK, opening, "intro", True))
    if rows > len(turns):
        log.warning("Only %d rows differ; they are repeated to make %d.", len(turns), rows)
    return [(turns[i % len(turns)],) for i in range(rows)]


def identity_rows(persona: Persona, data: Path | None = None) -> list[Dialogue]:
    """One-turn dialogues about who a card's character is, 400 or more, no question twice.

    Names, author (`extensions.elysia.author`, else `creator`) and the first sentence of the
    description are taken from the card. PersonaError where a name cannot be used in an answer.
    """
    extensions = persona.elysia_extensions
    english = str(extensions.get("english_name") or persona.display_name)
    author = str(extensions.get("author") or persona.extra.get("creator") or "").strip()
    author_en = str(extensions.get("english_author") or author)
    for text in (persona.display_name, english, author):
        if "\N{REPLACEMENT CHARACTER}" in text or "\n" in text:
            raise PersonaError("data.card_name_broken", text=repr(text))
    nicks = [str(alias) for alias in extensions.get("aliases") or [] if _HAN.search(str(alias))]
    origin = (
        f"是{author}写出来的角色" if author else "是写出来的角色",
        f"a character by {author_en}" if author_en else "a character someone wrote",
    )
    nick = min(nicks, key=len, default=persona.display_name)
    names = _bank_fields(persona.display_name, english, nick, describe_in_answer(persona), origin)
    return [(turn,) for turn in _identity_turns(names, data or get_data_folder())]


def describe_in_answer(persona: Persona) -> tuple[str, str]:
    """What follows "I am NAME" in Chinese and in English: the description's first sentence in it.

    >>> describe_in_answer(Persona("Nova", description="{{char}} is a captain. She flies."))
    ('', ', a captain')
    >>> describe_in_answer(Persona("小满", description="小满是一个花匠。"))
    ('，一个花匠', '')
    """
    text = persona.fill(persona.description)
    sentences = [part.strip() for part in re.split(r"[。！？\n]|[.!?](?:\s|$)", text)]
    who = "|".join(map(re.escape, (persona.display_name, persona.name, "你", "You")))
    opening = rf"^(?:{who})\s*(?:（[^）]*）|\([^)]*\))?\s*(?:是|is|are)\s*"
    parts = [re.sub(opening, "", part, flags=re.I) for part in sentences if part][:1]
    about = parts[0] if parts and len(parts[0]) <= LONGEST_ABOUT else ""
    if not about:
        return "", ""
    if _HAN.search(about):
        return f"，{about}", ""
    return "", f", {about[:1].lower()}{about[1:]}"


def write_rows(rows: Sequence[Dialogue], output: str | Path, *, force: bool = False) -> Path:
    """Write `rows` as an XTuner `conversation` file, whole or not at all.

    UsageError when the file exists and `force` is off; DataError when it cannot be written.
    """
    output = Path(output)
    if output.is_dir():
        raise UsageError("data.output_is_folder", path=output)
    if not output.parent.is_dir():
        raise UsageError("data.output_without_folder", path=output)
    if output.exists() and not force:
        raise UsageError("data.output_exists", path=output)
    try:
        write_atomic(output, render_dialogues(rows))
    except ElysiaError as error:
        raise DataError(error.code, **error.params) from error
    except OSError as error:
        raise DataError(
            "data.not_written", path=output, detail=error.strerror or str(error)
        ) from error
    return output


def _identity_turns(names: dict[str, str], data: Path) -> list[DialogueTurn]:
    """Every identity turn for `names`, shuffled; no question is close to one of the bundled probes."""
    questions = QuestionFilter(load_probe_texts(data))
    files = (
        generate_turns(data / "source" / file, questions, names, identity=True, replies="any")
        for file in IDENTITY_BANKS
    )
    turns = [turn for banks in files for bank in banks.values() for turn in bank]
    random.Random(SEED).shuffle(turns)
    return turns


def _bank_fields(
    name: str, english: str, nick: str, about: tuple[str, str], origin: tuple[str, str]
) -> dict[str, str]:
    """The fields of the banks' `any` answers; `about` and `origin` are (Chinese, English)."""
    return {
        "name": name,
        "english": english,
        "nick": nick,
        "about": about[0],
        "about_en": about[1],
        "made": origin[0],
        "made_en": origin[1],
    }


def _clean_argument(text: str, flag: str) -> str:
    text = text.strip()
    if not text:
        raise UsageError("data.flag_empty", flag=flag)
    if "\N{REPLACEMENT CHARACTER}" in text or any(ord(ch) < 32 for ch in text):
        raise UsageError("data.flag_broken", flag=flag, text=repr(text))
    return text


def example_rows(persona: Persona) -> list[Dialogue]:
    """A dialogue for each example of the card, and one for each greeting, as the answer to a hello.

    Examples begin with <START> and consist of `{{user}}: …` and `{{char}}: …` lines (cards V1 to V3).
    """
    talks = [_parse_example(block, persona) for block in _START.split(persona.mes_example)]
    more = persona.extra.get("alternate_greetings")
    texts = [persona.first_mes, *(more if isinstance(more, list) else [])]
    greetings = [persona.fill(text).strip() for text in texts if isinstance(text, str)]
    for place, text in enumerate(filter(None, greetings)):
        hellos = HELLOS["zh" if _HAN.search(text) else "en"]
        talks.append((DialogueTurn(hellos[place % len(hellos)], text, "greeting", False),))
    return [talk for talk in talks if talk]


def _parse_example(block: str, persona: Persona) -> Dialogue:
    """The turns of one example; questions without a reply and replies without a question are left out."""
    speaker = re.compile(
        rf"^\s*(?:({{{{user}}}}|<USER>)|({{{{char}}}}|<BOT>|{re.escape(persona.display_name)}))\s*[:：]\s*(.*)$",
        re.I,
    )
    lines: list[tuple[str, str]] = []
    for line in block.splitlines():
        if match := speaker.match(line):
            lines.append(("user" if match.group(1) else "char", match.group(3)))
        elif lines and line.strip():
            lines[-1] = (lines[-1][0], f"{lines[-1][1]}\n{line.strip()}")
    turns: list[DialogueTurn] = []
    ask = ""
    for role, group in groupby(lines, key=lambda pair: pair[0]):
        text = persona.fill("\n".join(text for _, text in group)).strip()
        if role == "user":
            ask = text
        elif ask and text:
            turns.append(DialogueTurn(ask, text, "example", False))
            ask = ""
    return tuple(turns)
