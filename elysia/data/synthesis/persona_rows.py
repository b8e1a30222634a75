"""Identity rows for any name or character card: who it is, who made it, and what it is not.

The questions are those of the phrase banks in `data/source`; the answers are short and say the
whole name. Knows nothing of training, nor of what else a character talks about.
"""

from __future__ import annotations

import logging
import os
import random
import re
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from elysia.core.errors import DataError, PersonaError, UsageError
from elysia.core.persona import Persona
from elysia.data.compose import IDENTITY, Dialogue, dump
from elysia.data.synthesis.phrase_banks import (
    SEED,
    DialogueTurn,
    QuestionFilter,
    generate_turns,
    load_probe_texts,
    normalize_question,
)

log = logging.getLogger(__name__)

TUTORIAL_ASK = "请介绍一下你自己"  # what XTuner's tutorial asks; our first row asks it too
LONGEST_ABOUT = 60  # characters of a description's first sentence that an answer may hold
_CJK = re.compile(r"[\u4e00-\u9fff]")


def get_data_folder() -> Path:
    """The bundled `data/`: beside the package in a checkout, inside it when installed so."""
    beside = Path(__file__).resolve().parents[2] / "data"
    return beside if beside.is_dir() else Path(__file__).resolve().parents[1] / "data"


def self_cognition_rows(
    name: str, author: str, rows: int, data: Path | None = None
) -> list[Dialogue]:
    """`rows` one-turn dialogues of an assistant that knows its name and who made it.

    All differ as long as the banks last (more than 1,000); then they start over, and a log note
    says so. UsageError for a blank name or author, or for fewer rows than one.
    """
    name, author = _clean_argument(name, "--name"), _clean_argument(author, "--author")
    if rows < 1:
        raise UsageError(f"--repeat must be 1 or more, not {rows}.")
    made = (f"是{author}做出来的助手", f"an assistant made by {author}")
    every = _identity_turns(
        _bank_fields(name, name, name, (f"，{made[0]}", f", {made[1]}"), made),
        data or get_data_folder(),
    )
    opening = next(turn for turn in every if turn.kind == "intro").reply
    every = [
        turn for turn in every if normalize_question(turn.ask) != normalize_question(TUTORIAL_ASK)
    ]
    every.insert(0, DialogueTurn(TUTORIAL_ASK, opening, "intro", True))
    if rows > len(every):
        log.warning("There are %d different rows; they repeat to make %d.", len(every), rows)
    return [(every[i % len(every)],) for i in range(rows)]


def identity_rows(persona: Persona, data: Path | None = None) -> list[Dialogue]:
    """One-turn dialogues, every question another (400 or more), of who a card's character is.

    Names, author (`extensions.elysia.author`, else `creator`) and the first sentence of the
    description are taken from the card. PersonaError where a name cannot stand in an answer.
    """
    ours = persona.elysia_extensions
    english = str(ours.get("english_name") or persona.display_name)
    author = str(ours.get("author") or persona.extra.get("creator") or "").strip()
    author_en = str(ours.get("english_author") or author)
    for text in (persona.display_name, english, author):
        if "\N{REPLACEMENT CHARACTER}" in text or "\n" in text:
            raise PersonaError(f"The card's name or author, {text!r}, holds a broken character.")
    nicks = [str(alias) for alias in ours.get("aliases") or [] if _CJK.search(str(alias))]
    made = (
        f"是{author}写出来的角色" if author else "是写出来的角色",
        f"a character by {author_en}" if author_en else "a character someone wrote",
    )
    nick = min(nicks, key=len, default=persona.display_name)
    names = _bank_fields(persona.display_name, english, nick, describe_in_answer(persona), made)
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
    if _CJK.search(about):
        return f"，{about}", ""
    return "", f", {about[:1].lower()}{about[1:]}"


def write_rows(rows: Sequence[Dialogue], output: str | Path, *, force: bool = False) -> Path:
    """Write `rows` as an XTuner `conversation` file, whole or not at all.

    UsageError when the file exists and `force` is off; DataError when it cannot be written.
    """
    output = Path(output)
    if output.is_dir() or not output.parent.is_dir():
        what = "is a folder" if output.is_dir() else "lies in a folder that does not exist"
        raise UsageError(f"{output} {what}: give --output a file in an existing folder.")
    if output.exists() and not force:
        raise UsageError(f"{output} exists; nothing was written. Say --force to replace it.")
    part = ""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=output.parent, prefix=f".{output.name}.", delete=False
        ) as file:
            part = file.name
            file.write(dump(rows))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o644)  # temporary files are private; a dataset is not
        os.replace(part, output)
    except OSError as error:
        if part:
            Path(part).unlink(missing_ok=True)
        raise DataError(f"{output} could not be written: {error.strerror or error}.") from error
    return output


def _identity_turns(names: dict[str, str], data: Path) -> list[DialogueTurn]:
    """Every identity turn for `names`, mixed; no question is near one of the bundled probes."""
    kept = QuestionFilter(load_probe_texts(data))
    files = (
        generate_turns(data / "source" / file, kept, names, identity=True, replies="any")
        for file in IDENTITY
    )
    every = [turn for banks in files for made in banks.values() for turn in made]
    random.Random(SEED).shuffle(every)
    return every


def _bank_fields(
    name: str, english: str, nick: str, about: tuple[str, str], made: tuple[str, str]
) -> dict[str, str]:
    """The fields of the banks' `any` answers; pairs are Chinese and English."""
    return {
        "name": name,
        "english": english,
        "nick": nick,
        "about": about[0],
        "about_en": about[1],
        "made": made[0],
        "made_en": made[1],
    }


def _clean_argument(text: str, flag: str) -> str:
    text = text.strip()
    if not text:
        raise UsageError(f"{flag} is empty: say what the assistant shall know.")
    if "\N{REPLACEMENT CHARACTER}" in text or any(ord(ch) < 32 for ch in text):
        raise UsageError(f"{flag} holds a broken character: {text!r}.")
    return text


HELLOS = {"zh": ("你好", "嗨", "在吗？"), "en": ("Hello", "Hi there", "Hey!")}
_START = re.compile(r"<START>", re.I)
_HAN_CHARACTER = re.compile("[\u4e00-\u9fff]")


def example_rows(persona: Persona) -> list[Dialogue]:
    """A dialogue for each example of the card, and each of its greetings as the answer to a hello."""
    talks = [_parse_example(block, persona) for block in _START.split(persona.mes_example)]
    more = persona.extra.get("alternate_greetings")
    texts = [persona.first_mes, *(more if isinstance(more, list) else [])]
    greetings = [persona.fill(text).strip() for text in texts if isinstance(text, str)]
    for place, text in enumerate(filter(None, greetings)):
        hellos = HELLOS["zh" if _HAN_CHARACTER.search(text) else "en"]
        talks.append((DialogueTurn(hellos[place % len(hellos)], text, "greeting", False),))
    return [talk for talk in talks if talk]


def _parse_example(block: str, persona: Persona) -> Dialogue:
    """The turns of one example; what no reply follows, or no question precedes, is left out."""
    speaker = re.compile(
        rf"^\s*(?:({{{{user}}}}|<USER>)|({{{{char}}}}|<BOT>|{re.escape(persona.display_name)}))\s*[:：]\s*(.*)$",
        re.I,
    )
    said: list[tuple[str, str]] = []
    for line in block.splitlines():
        if match := speaker.match(line):
            said.append(("user" if match.group(1) else "char", match.group(3)))
        elif said and line.strip():
            said[-1] = (said[-1][0], f"{said[-1][1]}\n{line.strip()}")
    turns: list[DialogueTurn] = []
    ask = ""
    for role, group in groupby(said, key=lambda pair: pair[0]):
        text = persona.fill("\n".join(text for _, text in group)).strip()
        if role == "user":
            ask = text
        elif ask and text:
            turns.append(DialogueTurn(ask, text, "example", False))
            ask = ""
    return tuple(turns)
