"""Compile script lines into dataset rows: scene by scene, one character answers what the others say.

Every line of the script is used, or left out for a reason that is counted. Lines of different scenes
are never paired.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from elysia.core.errors import DataError, nearest
from elysia.data.script.script_line import DIRECTION, HEADING, SPEECH, ScriptLine, strip_directions

Row = dict[str, Any]


@dataclass(frozen=True)
class CompileOptions:
    """How rows are made.

    aliases: other names of the character. directions: "keep" or "drop". names: whether to say who
    speaks to the character: "auto" (where several do in the scene), "always", "never". turns: the most
    replies of a row (0: a scene is a row). system: a system text for every row. heldout: the share of
    scenes that are held out, 0 to 1.
    """

    character: str
    aliases: tuple[str, ...] = ()
    directions: str = "keep"
    names: str = "auto"
    turns: int = 0
    system: str = ""
    heldout: float = 0.1
    seed: int = 0


@dataclass
class ScriptTurn:
    """What is said to the character and its reply, with the lines that both come from."""

    ask: list[str] = field(default_factory=list)
    reply: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)


@dataclass
class CompiledScript:
    """The rows, and an account of every line."""

    train: list[Row]
    heldout: list[Row]
    used: set[int]
    left_out: dict[int, str]
    total: int
    scenes: int

    def account(self) -> dict[str, Any]:
        """Counts: lines in, used, and left out by reason."""
        return {
            "lines": self.total,
            "used": len(self.used),
            "left_out": dict(Counter(self.left_out.values()).most_common()),
            "scenes": self.scenes,
            "scenes_with_rows": len({row["scene"] for row in [*self.train, *self.heldout]}),
            "rows": len(self.train),
            "heldout_rows": len(self.heldout),
            "heldout_scenes": sorted({row["scene"] for row in self.heldout}),
        }


def compile_lines(
    lines: Sequence[ScriptLine], choices: CompileOptions, source: str = ""
) -> CompiledScript:
    """The rows of a script. DataError when the character says nothing in it."""
    own_names = get_names(choices)
    check_speaks(lines, choices.character, own_names)
    scenes: defaultdict[int, list[ScriptLine]] = defaultdict(list)
    for line in lines:
        scenes[line.scene].append(line)
    left_out: dict[int, str] = {}
    rows: list[Row] = []
    used: set[int] = set()
    for scene, inside in scenes.items():
        scene_turns = list(_SceneCompiler(inside, own_names, choices, left_out).turns())
        for turns in _split_turns(scene_turns, choices.turns):
            used.update(number for turn in turns for number in turn.numbers)
            rows.append(_build_row(turns, scene, choices, source))
    for line in lines:
        for number in line.numbers:
            if number not in used:
                left_out.setdefault(number, line.reason or "not part of a reply or of its question")
    left_out = {number: reason for number, reason in left_out.items() if number not in used}
    held = choose_heldout_scenes([row["scene"] for row in rows], choices)
    return CompiledScript(
        [row for row in rows if row["scene"] not in held],
        [row for row in rows if row["scene"] in held],
        used,
        left_out,
        len({number for line in lines for number in line.numbers}),
        len(scenes),
    )


def get_names(choices: CompileOptions) -> frozenset[str]:
    """The character's names, in the form in which they are compared."""
    return frozenset(name.strip().casefold() for name in (choices.character, *choices.aliases))


def check_speaks(lines: Sequence[ScriptLine], character: str, mine: Collection[str]) -> None:
    """DataError, naming those who speak, when the character does not."""
    speakers = Counter(line.speaker for line in lines if line.kind == SPEECH)
    if any(name.casefold() in mine for name in speakers):
        return
    if not speakers:
        raise DataError("data.no_speakers")
    raise DataError(
        "data.character_silent",
        character=character,
        hint=nearest(character, speakers),
        speakers=[f"{name} ({count})" for name, count in speakers.most_common(8)],
    )


class _SceneCompiler:
    """Makes the turns of one scene; `left_out` receives the reasons why lines of it are in none."""

    def __init__(
        self,
        lines: Sequence[ScriptLine],
        own_names: Collection[str],
        choices: CompileOptions,
        left_out: dict[int, str],
    ) -> None:
        self.lines, self.own_names = lines, own_names
        self.choices, self.left_out = choices, left_out
        spoken = [line for line in lines if line.kind == SPEECH]
        others = {line.speaker for line in spoken if not self.is_own(line)}
        self.answers = any(map(self.is_own, spoken))
        self.named = choices.names == "always" or (choices.names == "auto" and len(others) > 1)

    def is_own(self, line: ScriptLine) -> bool:
        """Whether the character says the line."""
        return line.kind == SPEECH and line.speaker.casefold() in self.own_names

    def get_obstacle(self, line: ScriptLine) -> str:
        """Why a line cannot be used, whatever surrounds it; "" when it can."""
        if line.kind == HEADING:
            return "a scene heading"
        if line.kind not in (SPEECH, DIRECTION):
            return line.reason
        if not self.answers:
            return "the character says nothing in the scene"
        dropped = self.choices.directions == "drop"
        if dropped and (line.kind == DIRECTION or not strip_directions(line.text)):
            return "a stage direction"
        return ""

    def turns(self) -> Iterator[ScriptTurn]:
        """What is said to the character and what it replies, in order."""
        turn = ScriptTurn()
        for line in self.lines:
            reason = self.get_obstacle(line)
            if not reason and self.is_own(line) and not turn.ask:
                reason = "the character speaks before anybody else in the scene"
            if reason:
                self.left_out.update(dict.fromkeys(line.numbers, reason))
                continue
            if not self.is_own(line) and turn.reply:
                yield turn
                turn = ScriptTurn()
            (turn.reply if self.is_own(line) else turn.ask).append(self.text(line))
            turn.numbers += line.numbers
        if turn.reply:
            yield turn
        else:
            reason = "said after the character's last reply in the scene"
            self.left_out.update(dict.fromkeys(turn.numbers, reason))

    def text(self, line: ScriptLine) -> str:
        """A line as it is written in a row."""
        with_directions = self.choices.directions == "keep"
        text = line.text if with_directions else strip_directions(line.text)
        with_name = self.named and line.kind == SPEECH and not self.is_own(line)
        return f"{line.speaker}：{text}" if with_name else text


def _split_turns(turns: list[ScriptTurn], most: int) -> Iterator[list[ScriptTurn]]:
    """A scene's turns in rows of at most `most` replies."""
    size = most or len(turns) or 1
    for start in range(0, len(turns), size):
        yield turns[start : start + size]


def _build_row(
    turns: Sequence[ScriptTurn], scene: int, choices: CompileOptions, source: str
) -> Row:
    talk: list[dict[str, str]] = [
        {"input": "\n".join(turn.ask), "output": "\n".join(turn.reply)} for turn in turns
    ]
    if choices.system:
        talk[0] = {"system": choices.system, **talk[0]}
    numbers = [number for turn in turns for number in turn.numbers]
    where = {"file": source, "lines": [min(numbers), max(numbers)]}
    return {"conversation": talk, "scene": scene, "source": where}


def choose_heldout_scenes(scenes: Sequence[int], choices: CompileOptions) -> set[int]:
    """Scenes that are not trained on: the share that `choices` says, and at least one of several."""
    every = sorted(set(scenes))
    if not choices.heldout or len(every) < 2:
        return set()
    count = min(max(1, round(len(every) * choices.heldout)), len(every) - 1)
    return set(random.Random(f"{choices.seed} heldout").sample(every, count))
