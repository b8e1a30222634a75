"""Draft a character card (V2) and its lorebook from a script, for a person to finish.

Everything in it is counted or quoted, nothing is made up: only the author can say who the character
is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

from elysia.data.script.compile_rows import CompileOptions, Row, get_names
from elysia.data.script.script_line import HEADING, SPEECH, ScriptLine, strip_directions

EXAMPLES = 3  # dialogues on the card
OFTEN = 3  # a line that is said so many times counts as a catchphrase
ENTRIES = 100  # of the lorebook at most


def draft_card(
    lines: Sequence[ScriptLine], rows: Sequence[Row], choices: CompileOptions, source: str
) -> dict[str, Any]:
    """A V2 card: greetings, example dialogues and counts. Held-out rows are not used."""
    mine = get_names(choices)
    spoken = [line for line in lines if line.kind == SPEECH and line.speaker.casefold() in mine]
    own = [strip_directions(line.text) for line in spoken]
    often = [text for text, times in Counter(own).most_common(5) if times >= OFTEN and text]
    openings = [row["conversation"][0]["output"] for row in rows]
    greetings = list(dict.fromkeys(openings))[:4]
    lengths = [len(text) for text in own]
    personality = (
        f"Draft. A line has {median(lengths):.0f} characters at the median." if lengths else ""
    )
    if often:
        personality += f" Often says: {' / '.join(often)}"
    return {
        "spec": "chara_card_v2",
        "spec_version": "2.0",
        "data": {
            "name": choices.character,
            "description": "",
            "personality": personality,
            "scenario": "",
            "first_mes": greetings[0] if greetings else "",
            "mes_example": "\n".join(map(_example, rows[:EXAMPLES])),
            "creator_notes": f"A draft made from {source}: description and scenario are yours to write.",
            "system_prompt": choices.system,
            "post_history_instructions": "",
            "alternate_greetings": greetings[1:],
            "tags": [],
            "creator": "",
            "character_version": "draft",
            "extensions": {"elysia": {"aliases": list(choices.aliases)}},
        },
    }


def draft_lorebook(lines: Sequence[ScriptLine], choices: CompileOptions) -> dict[str, Any]:
    """A V2 lorebook: an entry for everybody else who speaks, and for every scene's heading."""
    mine = get_names(choices)
    scenes: defaultdict[int, set[str]] = defaultdict(set)
    speeches: defaultdict[str, list[ScriptLine]] = defaultdict(list)
    for line in lines:
        if line.kind == SPEECH:
            scenes[line.scene].add(line.speaker)
            if line.speaker.casefold() not in mine:
                speeches[line.speaker].append(line)
    entries: list[dict[str, Any]] = []
    for name, spoken in sorted(speeches.items(), key=lambda pair: -len(pair[1]))[:ENTRIES]:
        together = sum(
            any(speaker.casefold() in mine for speaker in present)
            for present in scenes.values()
            if name in present
        )
        words = next((w for line in spoken if (w := strip_directions(line.text))), "")
        content = f"{name}: in {together} scenes with {{{{char}}}}. Says: “{words[:80]}”"
        entries.append(_entry(len(entries), [name], content, name))
    places = Counter(
        line.text for line in lines if line.kind == HEADING and any(map(str.isalpha, line.text))
    )
    for place, times in places.most_common(ENTRIES - len(entries)):
        entries.append(
            _entry(len(entries), [place], f"A scene of the story: {place}", f"{times} scenes")
        )
    return {
        "name": f"{choices.character}: draft",
        "description": "",
        "extensions": {},
        "entries": entries,
    }


def _example(row: Row) -> str:
    talk = "\n".join(
        f"{{{{user}}}}: {turn['input']}\n{{{{char}}}}: {turn['output']}"
        for turn in row["conversation"][:2]
    )
    return f"<START>\n{talk}"


def _entry(number: int, keys: list[str], content: str, comment: str) -> dict[str, Any]:
    return {
        "id": number,
        "keys": keys,
        "content": content,
        "comment": comment,
        "extensions": {},
        "enabled": True,
        "insertion_order": number,
    }
