"""Rows of what a card itself shows: its example dialogues and its greetings.

Examples begin with <START> and go `{{user}}: …`, `{{char}}: …` (card V1 to V3). Knows nothing of
banks or of training.
"""

from __future__ import annotations

import re
from itertools import groupby

from elysia.core.persona import Persona
from elysia.data.compose import Dialogue
from elysia.data.phrases import Turn

HELLO = {"zh": ("你好", "嗨", "在吗？"), "en": ("Hello", "Hi there", "Hey!")}
_START = re.compile(r"<START>", re.I)
_HAN = re.compile("[\u4e00-\u9fff]")


def example_rows(persona: Persona) -> list[Dialogue]:
    """A dialogue for each example of the card, and each of its greetings as the answer to a hello."""
    talks = [_talk(block, persona) for block in _START.split(persona.mes_example)]
    more = persona.extra.get("alternate_greetings")
    texts = [persona.first_mes, *(more if isinstance(more, list) else [])]
    greetings = [persona.fill(text).strip() for text in texts if isinstance(text, str)]
    for place, text in enumerate(filter(None, greetings)):
        hellos = HELLO["zh" if _HAN.search(text) else "en"]
        talks.append((Turn(hellos[place % len(hellos)], text, "greeting", False),))
    return [talk for talk in talks if talk]


def _talk(block: str, persona: Persona) -> Dialogue:
    """The turns of one example; what no reply follows, or no question precedes, is left out."""
    speaker = re.compile(
        rf"^\s*(?:({{{{user}}}}|<USER>)|({{{{char}}}}|<BOT>|{re.escape(persona.called)}))\s*[:：]\s*(.*)$",
        re.I,
    )
    said: list[tuple[str, str]] = []
    for line in block.splitlines():
        if match := speaker.match(line):
            said.append(("user" if match.group(1) else "char", match.group(3)))
        elif said and line.strip():
            said[-1] = (said[-1][0], f"{said[-1][1]}\n{line.strip()}")
    turns: list[Turn] = []
    ask = ""
    for role, group in groupby(said, key=lambda pair: pair[0]):
        text = persona.fill("\n".join(text for _, text in group)).strip()
        if role == "user":
            ask = text
        elif ask and text:
            turns.append(Turn(ask, text, "example", False))
            ask = ""
    return tuple(turns)
