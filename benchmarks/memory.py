"""How well and how fast memories are found: `python benchmarks/memory.py --data MEMORYBANK.json`.

The questions and their gold turns are in memory_questions.json, beside this file; the English talks
of four users come from MemoryBank (`memorybank_en.json`), the others stand in the questions' file. Half
of the questions of each kind were looked at while the ranking was made, half were not. Plain BM25 (over
words, Chinese characters and their pairs) ranks the same turns. `--embedder FOLDER` adds vectors.
`--speed N` measures times among N memories of one user instead.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from elysia.memory.base import MemoryHit, MemoryInput, MemoryScope
from elysia.memory.long_term import open_memory
from elysia.retrieval.analyzer import extract_terms
from elysia.retrieval.embedders import Embedder, open_embedder
from elysia.store.database import Database, open_database
from elysia.store.tables import users

QUESTIONS = Path(__file__).with_name("memory_questions.json")
DATA = Path(__file__).resolve().parents[2] / "shared/data/memory/memorybank_en.json"
HALVES = ("tuned", "held out")
LANGUAGES = ("English", "Chinese")
ANSWERED = ("plain", "paraphrased", "multi-hop", "temporal", "update")


@dataclass
class Talk:
    """Everything one character heard of one user. `turns` are in order; ids are of the talk."""

    name: str
    scope: MemoryScope
    now: float
    turns: list[MemoryInput]


@dataclass
class Tally:
    """What a way of finding gave: (kind, half, language) → recalls at 5 and 10; best scores."""

    recall: dict[tuple[str, str, str], list[tuple[float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    best: dict[bool, list[float]] = field(default_factory=lambda: defaultdict(list))
    leaked = outdated_facts = outdated_turns = 0


class Bm25:
    """Plain BM25 (k1 1.2, b 0.75) over a talk's turns."""

    def __init__(self, turns: list[MemoryInput]) -> None:
        self.ids = [turn.message_id for turn in turns]
        self.texts = [Counter(extract_terms(turn.text)) for turn in turns]
        self.mean = statistics.mean(sum(text.values()) for text in self.texts)
        self.there = Counter(term for text in self.texts for term in text)

    def search(self, question: str, k: int) -> list[str]:
        """The ids of the best turns."""
        many = len(self.texts)
        score = [0.0] * many
        for term in set(extract_terms(question)):
            rarity = math.log(1 + (many - self.there[term] + 0.5) / (self.there[term] + 0.5))
            for place, text in enumerate(self.texts):
                if count := text[term]:
                    slow = 1.2 * (0.25 + 0.75 * sum(text.values()) / self.mean)
                    score[place] += rarity * count * 2.2 / (count + slow)
        order = sorted(range(many), key=lambda place: -score[place])
        return [self.ids[place] for place in order[:k] if score[place] > 0]


def talks(data: Path, described: dict[str, Any]) -> list[Talk]:
    """The talks of the questions' file; those of MemoryBank read from `data`, where it is there."""
    bank = json.loads(data.read_text(encoding="utf-8")) if data.is_file() else {}
    found = []
    for name, said in described.items():
        if "days" not in said and not bank:
            continue
        days = said.get("days") or {
            day: [(turn["query"], turn["response"]) for turn in turns]
            for day, turns in bank[said["user"]]["history"].items()
        }
        turns = []
        for day, exchanges in days.items():
            noon = datetime.fromisoformat(f"{day}T12:00").timestamp()
            for n, exchange in enumerate(exchanges):
                for step, (mark, role) in enumerate((("q", "user"), ("r", "assistant"))):
                    who = said["user"] if role == "user" else said["character"]
                    turns.append(
                        MemoryInput(
                            f"{name}|{day}/{n}{mark}",
                            f"{name}|{day}"[:32],
                            role,
                            who,
                            exchange[step],
                            noon + 60 * n + 20 * step,
                        )
                    )
        scope = MemoryScope(said["user"], said["character"])
        found.append(
            Talk(name, scope, datetime.fromisoformat(f"{said['now']}T18:00").timestamp(), turns)
        )
    return found


def opened(folder: Path, people: set[str]) -> Database:
    """A database with these users."""
    database = open_database(str(folder / "chat.db"))
    with database.write() as connection:
        for person in sorted(people):
            row = {"id": person, "name": person, "password": None, "settings": {}, "created": 0.0}
            connection.execute(insert(users).values(**row))
    return database


def share(found: list[str], gold: list[str], k: int) -> float:
    """How much of the gold is among the first `k`."""
    return len(set(found[:k]) & set(gold)) / len(gold)


def hybrid(folder: Path, heard: list[Talk], questions: list[dict[str, Any]], embedder: Embedder | None,
           show: bool) -> Tally:  # fmt: skip
    """Every talk in one store, every question asked of its own scope."""
    moment = [0.0]
    database = opened(folder, {talk.scope.user for talk in heard})
    store = open_memory(database, folder / "index", embedder, clock=lambda: moment[0])
    for talk in heard:
        short = {turn.message_id: str(n) for n, turn in enumerate(talk.turns)}
        store.remember(talk.scope, [_shortened(talk, turn, short) for turn in talk.turns])
    named = {
        f"{talk.name}#{n}": turn.message_id for talk in heard for n, turn in enumerate(talk.turns)
    }
    by_name = {talk.name: talk for talk in heard}
    tally = Tally()
    for asked in questions:
        talk = by_name[asked["talk"]]
        moment[0] = talk.now
        found = store.recall(talk.scope, asked["question"], k=10)
        ids = [named[str(one.memory.message_id)] for one in found]
        count(tally, asked, talk, found, ids)
        if show and asked["half"] == "tuned" and asked["gold"]:
            explain(asked, talk, found, ids)
    store.close()
    database.close()
    return tally


def _shortened(talk: Talk, turn: MemoryInput, short: dict[str, str]) -> MemoryInput:
    identity = f"{talk.name}#{short[turn.message_id]}"
    return MemoryInput(identity, turn.conversation_id, turn.role, turn.speaker, turn.text, turn.at)


def count(
    tally: Tally, asked: dict[str, Any], talk: Talk, found: list[MemoryHit], ids: list[str]
) -> None:
    """Put what one question found into the tally."""
    mine = {turn.message_id for turn in talk.turns}
    tally.leaked += sum(one not in mine for one in ids)
    tally.outdated_facts += sum(
        one.memory.kind == "fact" and not one.memory.current for one in found
    )
    stale = {f"{talk.name}|{gold}" for gold in asked.get("stale", [])}
    tally.outdated_turns += sum(
        one in stale and recalled.memory.current for one, recalled in zip(ids, found, strict=True)
    )
    if asked["kind"] in ("abstention", "elsewhere"):
        tally.best[False].append(found[0].score if found else 0.0)
        return
    tally.best[True].append(found[0].score if found else 0.0)
    gold = [f"{talk.name}|{one}" for one in asked["gold"]]
    tally.recall[key(asked)].append((share(ids, gold, 5), share(ids, gold, 10)))


def explain(asked: dict[str, Any], talk: Talk, found: list[MemoryHit], ids: list[str]) -> None:
    """What was missed, for whoever tunes."""
    gold = [f"{talk.name}|{one}" for one in asked["gold"]]
    missed = [one for one in gold if one not in ids]
    if not missed:
        return
    text = {turn.message_id: turn.text for turn in talk.turns}
    print(f"\n{asked['kind']}: {asked['question']}")
    for one in missed:
        print(f"  missed {one.split('|')[1]}: {text[one][:90]}")
    for one, recalled in list(zip(ids, found, strict=True))[:10]:
        mark = "*" if one in gold else " "
        print(
            f"  {mark} {recalled.score:.2f} {one.split('|')[1]} {recalled.memory.text[:60]} ({recalled.why})"
        )


def plain(heard: list[Talk], questions: list[dict[str, Any]]) -> Tally:
    """BM25 over the same turns, talk by talk."""
    tally, made = Tally(), {talk.name: Bm25(talk.turns) for talk in heard}
    for asked in questions:
        if asked["gold"]:
            ids = made[asked["talk"]].search(asked["question"], 10)
            gold = [f"{asked['talk']}|{one}" for one in asked["gold"]]
            tally.recall[key(asked)].append((share(ids, gold, 5), share(ids, gold, 10)))
    return tally


def mean_of(
    tally: Tally,
    kinds: tuple[str, ...],
    halves: tuple[str, ...],
    languages: tuple[str, ...] = LANGUAGES,
) -> tuple[float, float, int]:
    """Mean recall at 5 and 10, and of how many questions."""
    keys = [(kind, half, language) for kind in kinds for half in halves for language in languages]
    rows = [row for key in keys for row in tally.recall[key]]
    return statistics.mean(r[0] for r in rows), statistics.mean(r[1] for r in rows), len(rows)


def table(base: Tally, ours: dict[str, Tally]) -> None:
    """Recall by kind and half, plain BM25 first."""
    print(f"{'':20}{'n':>4}  {'BM25':>13}" + "".join(f"  {name:>22}" for name in ours))
    print(
        f"{'recall at':20}{'':>4}  {'5':>6} {'10':>6}"
        + f"  {'5':>6} {'10':>6} {'gain':>8}" * len(ours)
    )
    lines = [(kind, (kind,), HALVES, LANGUAGES) for kind in ANSWERED]
    lines += [(f"all, {language}", ANSWERED, HALVES, (language,)) for language in LANGUAGES]
    lines += [(f"all, {half}", ANSWERED, (half,), LANGUAGES) for half in HALVES]
    for label, *which in [*lines, ("all", ANSWERED, HALVES, LANGUAGES)]:
        five, ten, many = mean_of(base, *which)
        line = f"{label:20}{many:>4}  {five:6.3f} {ten:6.3f}"
        for tally in ours.values():
            ours5, ours10, _ = mean_of(tally, *which)
            line += f"  {ours5:6.3f} {ours10:6.3f} {ours10 / ten - 1:+8.1%}"
        print(line)


def key(asked: dict[str, Any]) -> tuple[str, str, str]:
    """Kind, half and language of a question."""
    return asked["kind"], asked["half"], LANGUAGES[not asked["question"].isascii()]


def honesty(name: str, tally: Tally) -> None:
    """Leaks, outdated facts, and whether a score tells that there is no answer."""
    print(f"\n{name}: memories of another scope: {tally.leaked}; replaced facts given: "
          f"{tally.outdated_facts}; outdated turns given as current: {tally.outdated_turns}")  # fmt: skip
    known, unknown = tally.best[True], tally.best[False]
    print(f"best score, answer in memory: median {statistics.median(known):.2f}; not in memory "
          f"({len(unknown)} questions): median {statistics.median(unknown):.2f}")  # fmt: skip
    none, nobody = (sum(not score for score in scores) / len(scores) for scores in (known, unknown))
    print(f"  nothing is given for {none:.0%} of the answerable, {nobody:.0%} of the others")
    for threshold in (0.3, 0.45, 0.6):
        kept = sum(score >= threshold for score in known) / len(known)
        wrong = sum(score >= threshold for score in unknown) / len(unknown)
        print(
            f"  at a threshold of {threshold}: {kept:.0%} of the answerable pass, {wrong:.0%} of the others"
        )


def speed(folder: Path, many: int, questions: list[dict[str, Any]]) -> None:
    """Times among `many` turns of one user, drawn from the talks' own sentences."""
    described = json.loads(QUESTIONS.read_text(encoding="utf-8"))["talks"]
    said = [
        text
        for talk in described.values()
        for day in talk.get("days", {}).values()
        for pair in day
        for text in pair
    ]
    rng, start = random.Random(0), 1_600_000_000.0
    words = [word for text in said for word in text.replace("，", " ").split()]
    database = opened(folder, {"one"})
    store, scope = open_memory(database, folder / "index"), MemoryScope("one", "elysia")
    began = time.perf_counter()
    for first in range(0, many, 5_000):
        store.remember(
            scope,
            [
                MemoryInput(f"m{n}", f"c{n // 40}", "user" if n % 2 == 0 else "assistant", "one",
                      " ".join(rng.choices(words, k=rng.randint(4, 16))), start + 600.0 * n)
                for n in range(first, min(first + 5_000, many))
            ],
        )  # fmt: skip
    print(
        f"{many:,} turns of one user taken in at {many / (time.perf_counter() - began):,.0f} a second"
    )
    asked = [one["question"] for one in questions]
    for text in asked[:10]:
        store.recall(scope, text)
    times = [timed(lambda text=text: store.recall(scope, text)) for text in asked]
    report("recall", times)
    new = [
        MemoryInput(f"new{n}", "now", "user", "one", rng.choice(said), time.time())
        for n in range(100)
    ]
    times = [timed(lambda one=one: store.remember(scope, [one])) for one in new]
    report("adding one", times)
    store.close()
    database.close()


def timed(act: Any) -> tuple[float, float]:
    """Milliseconds that passed, and those of them that this thread computed."""
    began, computed = time.perf_counter(), time.thread_time()
    act()
    return (time.perf_counter() - began) * 1000, (time.thread_time() - computed) * 1000


def report(name: str, times: list[tuple[float, float]]) -> None:
    """The median and the slow ones; where others use the machine, computed time compares."""
    for label, column in zip(("passed", "computed"), zip(*times, strict=True), strict=True):
        ordered = sorted(column)
        slow = ordered[int(len(ordered) * 0.95)]
        print(
            f"{name:11}{label:9} median {statistics.median(ordered):5.1f} ms, 95 % under {slow:5.1f} ms"
        )


def main() -> None:
    """Recall by kind, or times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="memorybank_en.json")
    parser.add_argument(
        "--embedder", help="a local folder with an embedding model: one column more"
    )
    parser.add_argument("--speed", type=int, metavar="N", help="times among N memories instead")
    parser.add_argument("--show", action="store_true", help="what the tuned half misses")
    args = parser.parse_args()
    written = json.loads(QUESTIONS.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        if args.speed:
            speed(Path(name), args.speed, written["questions"])
            return
        if not args.data.is_file():
            raise SystemExit(
                f"{args.data} is not there; name MemoryBank's memorybank_en.json with --data."
            )
        heard, questions = talks(args.data, written["talks"]), written["questions"]
        ours = {"by words": hybrid(Path(name) / "words", heard, questions, None, args.show)}
        if args.embedder:
            embedder = open_embedder(args.embedder)
            ours["words and meaning"] = hybrid(
                Path(name) / "both", heard, questions, embedder, False
            )
        table(plain(heard, questions), ours)
        for label, tally in ours.items():
            honesty(label, tally)


if __name__ == "__main__":
    main()
