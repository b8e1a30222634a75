"""How well and how fast memories are found: `python benchmarks/memory.py --data MEMORYBANK.json`.

The questions and their gold turns are in memory_questions.json, beside this file; the English talks
of four users come from MemoryBank (`memorybank_en.json`), the others are in the questions' file. Half
of the questions of each kind were looked at while the ranking was made, half were not. The baseline is
plain BM25 (over words, Chinese characters and their pairs) on the same turns. `--embedder FOLDER` adds
vectors. `--speed N` measures times among N memories of one user instead.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from elysia.memory import MemoryHit, MemoryInput, MemoryScope, open_memory
from elysia.retrieval import Embedder, open_embedder
from elysia.retrieval.analyzer import extract_terms
from elysia.retrieval.bm25 import inverse_document_frequency, saturate
from elysia.store import Database, open_database
from elysia.store.tables import users

QUESTIONS = Path(__file__).with_name("memory_questions.json")
DATA = Path(__file__).resolve().parents[2] / "shared/data/memory/memorybank_en.json"
HALVES = ("tuned", "held out")
LANGUAGES = ("English", "Chinese")
ANSWERED = ("plain", "paraphrased", "multi-hop", "temporal", "update")


@dataclass
class BenchmarkTalk:
    """Everything one user and one character said. `turns` are in order; their ids name the talk."""

    name: str
    scope: MemoryScope
    now: float
    turns: list[MemoryInput]


@dataclass
class RecallTally:
    """The results of one method: (kind, half, language) -> recalls at 5 and 10; best scores."""

    recall: dict[tuple[str, str, str], list[tuple[float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    best: dict[bool, list[float]] = field(default_factory=lambda: defaultdict(list))
    leaked = outdated_facts = outdated_turns = 0


class PlainBm25:
    """BM25 (k1 1.2, b 0.75) over a talk's turns, in memory."""

    def __init__(self, turns: list[MemoryInput]) -> None:
        self.ids = [turn.message_id for turn in turns]
        self.texts = [Counter(extract_terms(turn.text)) for turn in turns]
        self.mean = statistics.mean(text.total() for text in self.texts)
        self.containing = Counter(term for text in self.texts for term in text)

    def search(self, question: str, k: int) -> list[str]:
        """The ids of the best turns."""
        scores = [0.0] * len(self.texts)
        for term in set(extract_terms(question)):
            rarity = inverse_document_frequency(len(self.texts), self.containing[term])
            for n, text in enumerate(self.texts):
                if count := text[term]:
                    scores[n] += rarity * saturate(count, text.total() / self.mean, k1=1.2, b=0.75)
        order = sorted(range(len(scores)), key=lambda n: -scores[n])
        return [self.ids[n] for n in order[:k] if scores[n] > 0]


def load_talks(data: Path, described: dict[str, Any]) -> list[BenchmarkTalk]:
    """The talks of the questions' file; those of MemoryBank read from `data`, where it is there."""
    bank = json.loads(data.read_text(encoding="utf-8")) if data.is_file() else {}
    talks = []
    for name, description in described.items():
        user, character = description["user"], description["character"]
        if "days" not in description and not bank:
            continue
        days = description.get("days") or {
            day: [(turn["query"], turn["response"]) for turn in turns]
            for day, turns in bank[user]["history"].items()
        }
        turns = []
        for day, exchanges in days.items():
            noon = datetime.fromisoformat(f"{day}T12:00").timestamp()
            for n, exchange in enumerate(exchanges):
                for step, (mark, role) in enumerate((("q", "user"), ("r", "assistant"))):
                    turns.append(
                        MemoryInput(
                            f"{name}|{day}/{n}{mark}",
                            f"{name}|{day}"[:32],
                            role,
                            user if role == "user" else character,
                            exchange[step],
                            noon + 60 * n + 20 * step,
                        )
                    )
        now = datetime.fromisoformat(f"{description['now']}T18:00").timestamp()
        talks.append(BenchmarkTalk(name, MemoryScope(user, character), now, turns))
    return talks


def create_database(folder: Path, people: set[str]) -> Database:
    """A database with these users."""
    database = open_database(str(folder / "chat.db"))
    with database.write() as connection:
        for person in sorted(people):
            row = {"id": person, "name": person, "password": None, "settings": {}, "created": 0.0}
            connection.execute(insert(users).values(**row))
    return database


def share_of_gold(ids: list[str], gold: list[str], k: int) -> float:
    """How much of the gold is among the first `k`."""
    return len(set(ids[:k]) & set(gold)) / len(gold)


def run_memory(
    folder: Path,
    talks: list[BenchmarkTalk],
    questions: list[dict[str, Any]],
    embedder: Embedder | None,
    show: bool,
) -> RecallTally:
    """Every talk in one store, every question asked of its own scope."""
    moment = [0.0]
    database = create_database(folder, {talk.scope.user for talk in talks})
    store = open_memory(database, folder / "index", embedder, clock=lambda: moment[0])
    original_ids: dict[str, str] = {}  # by the short id that fits the database's column
    for talk in talks:
        shortened = []
        for n, turn in enumerate(talk.turns):
            short = f"{talk.name}#{n}"
            original_ids[short] = turn.message_id
            shortened.append(
                MemoryInput(
                    short, turn.conversation_id, turn.role, turn.speaker, turn.text, turn.at
                )
            )
        store.remember(talk.scope, shortened)
    by_name = {talk.name: talk for talk in talks}
    tally = RecallTally()
    for question in questions:
        talk = by_name[question["talk"]]
        moment[0] = talk.now
        hits = store.recall(talk.scope, question["question"], k=10)
        ids = [original_ids[str(hit.memory.message_id)] for hit in hits]
        count(tally, question, talk, hits, ids)
        if show and question["half"] == "tuned" and question["gold"]:
            explain(question, talk, hits, ids)
    store.close()
    database.close()
    return tally


def count(
    tally: RecallTally,
    question: dict[str, Any],
    talk: BenchmarkTalk,
    hits: list[MemoryHit],
    ids: list[str],
) -> None:
    """Add the result of one question to the tally."""
    own_turns = {turn.message_id for turn in talk.turns}
    tally.leaked += sum(id not in own_turns for id in ids)
    tally.outdated_facts += sum(
        hit.memory.kind == "fact" and not hit.memory.current for hit in hits
    )
    stale = {f"{talk.name}|{turn}" for turn in question.get("stale", [])}
    tally.outdated_turns += sum(
        id in stale and hit.memory.current for id, hit in zip(ids, hits, strict=True)
    )
    is_answered = question["kind"] not in ("abstention", "elsewhere")
    tally.best[is_answered].append(hits[0].score if hits else 0.0)
    if is_answered:
        gold = [f"{talk.name}|{turn}" for turn in question["gold"]]
        recalls = share_of_gold(ids, gold, 5), share_of_gold(ids, gold, 10)
        tally.recall[key(question)].append(recalls)


def explain(
    question: dict[str, Any], talk: BenchmarkTalk, hits: list[MemoryHit], ids: list[str]
) -> None:
    """Print what was missed, for whoever tunes."""
    gold = [f"{talk.name}|{turn}" for turn in question["gold"]]
    missed = [id for id in gold if id not in ids]
    if not missed:
        return
    text = {turn.message_id: turn.text for turn in talk.turns}
    print(f"\n{question['kind']}: {question['question']}")
    for id in missed:
        print(f"  missed {id.split('|')[1]}: {text[id][:90]}")
    for id, hit in list(zip(ids, hits, strict=True))[:10]:
        mark, turn = "*" if id in gold else " ", id.split("|")[1]
        print(f"  {mark} {hit.score:.2f} {turn} {hit.memory.text[:60]} ({hit.explanation})")


def run_bm25(talks: list[BenchmarkTalk], questions: list[dict[str, Any]]) -> RecallTally:
    """BM25 over the same turns, talk by talk."""
    tally, indexes = RecallTally(), {talk.name: PlainBm25(talk.turns) for talk in talks}
    for question in questions:
        if question["gold"]:
            ids = indexes[question["talk"]].search(question["question"], 10)
            gold = [f"{question['talk']}|{turn}" for turn in question["gold"]]
            recalls = share_of_gold(ids, gold, 5), share_of_gold(ids, gold, 10)
            tally.recall[key(question)].append(recalls)
    return tally


def mean_recall(
    tally: RecallTally,
    kinds: tuple[str, ...],
    halves: tuple[str, ...],
    languages: tuple[str, ...] = LANGUAGES,
) -> tuple[float, float, int]:
    """Mean recall at 5 and 10, and of how many questions."""
    keys = [(kind, half, language) for kind in kinds for half in halves for language in languages]
    rows = [row for key in keys for row in tally.recall[key]]
    return statistics.mean(r[0] for r in rows), statistics.mean(r[1] for r in rows), len(rows)


def print_table(base: RecallTally, tallies: dict[str, RecallTally]) -> None:
    """Recall by kind and half, plain BM25 first."""
    print(f"{'':20}{'n':>4}  {'BM25':>13}" + "".join(f"  {name:>22}" for name in tallies))
    print(
        f"{'recall at':20}{'':>4}  {'5':>6} {'10':>6}"
        + f"  {'5':>6} {'10':>6} {'gain':>8}" * len(tallies)
    )
    lines = [(kind, (kind,), HALVES, LANGUAGES) for kind in ANSWERED]
    lines += [(f"all, {language}", ANSWERED, HALVES, (language,)) for language in LANGUAGES]
    lines += [(f"all, {half}", ANSWERED, (half,), LANGUAGES) for half in HALVES]
    for label, *which in [*lines, ("all", ANSWERED, HALVES, LANGUAGES)]:
        five, ten, questions = mean_recall(base, *which)
        line = f"{label:20}{questions:>4}  {five:6.3f} {ten:6.3f}"
        for tally in tallies.values():
            ours5, ours10, _ = mean_recall(tally, *which)
            line += f"  {ours5:6.3f} {ours10:6.3f} {ours10 / ten - 1:+8.1%}"
        print(line)


def key(question: dict[str, Any]) -> tuple[str, str, str]:
    """Kind, half and language of a question."""
    return question["kind"], question["half"], LANGUAGES[not question["question"].isascii()]


def print_honesty(name: str, tally: RecallTally) -> None:
    """Leaks, outdated facts, and whether a score shows that there is no answer."""
    print(f"\n{name}: memories of another scope: {tally.leaked}; replaced facts given: "
          f"{tally.outdated_facts}; outdated turns given as current: {tally.outdated_turns}")  # fmt: skip
    known, unknown = tally.best[True], tally.best[False]
    print(f"best score, answer in memory: median {statistics.median(known):.2f}; not in memory "
          f"({len(unknown)} questions): median {statistics.median(unknown):.2f}")  # fmt: skip
    none, nobody = (sum(not score for score in scores) / len(scores) for scores in (known, unknown))
    print(f"  nothing is given for {none:.0%} of the answerable, {nobody:.0%} of the others")
    for threshold in (0.3, 0.45, 0.6):
        right = sum(score >= threshold for score in known) / len(known)
        wrong = sum(score >= threshold for score in unknown) / len(unknown)
        print(
            f"  at a threshold of {threshold}: {right:.0%} of the answerable pass, {wrong:.0%} of the others"
        )


def measure_speed(folder: Path, number: int, questions: list[dict[str, Any]]) -> None:
    """Times among `number` turns of one user, drawn from the talks' own sentences."""
    described = json.loads(QUESTIONS.read_text(encoding="utf-8"))["talks"]
    sentences = [
        text
        for talk in described.values()
        for day in talk.get("days", {}).values()
        for pair in day
        for text in pair
    ]
    rng, start = random.Random(0), 1_600_000_000.0
    words = [word for text in sentences for word in text.replace("，", " ").split()]
    database = create_database(folder, {"one"})
    store, scope = open_memory(database, folder / "index"), MemoryScope("one", "elysia")
    began = time.perf_counter()
    for first in range(0, number, 5_000):
        store.remember(
            scope,
            [
                MemoryInput(f"m{n}", f"c{n // 40}", "user" if n % 2 == 0 else "assistant", "one",
                            " ".join(rng.choices(words, k=rng.randint(4, 16))), start + 600.0 * n)
                for n in range(first, min(first + 5_000, number))
            ],
        )  # fmt: skip
    rate = number / (time.perf_counter() - began)
    print(f"{number:,} turns of one user taken in at {rate:,.0f} a second")
    texts = [question["question"] for question in questions]
    for text in texts[:10]:
        store.recall(scope, text)
    report("recall", [timed(lambda text=text: store.recall(scope, text)) for text in texts])
    messages = [
        MemoryInput(f"new{n}", "now", "user", "one", rng.choice(sentences), time.time())
        for n in range(100)
    ]
    times = [timed(lambda item=item: store.remember(scope, [item])) for item in messages]
    report("adding one", times)
    store.close()
    database.close()


def timed(act: Callable[[], object]) -> tuple[float, float]:
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
            measure_speed(Path(name), args.speed, written["questions"])
            return
        if not args.data.is_file():
            raise SystemExit(
                f"{args.data} is not there; name MemoryBank's memorybank_en.json with --data."
            )
        talks, questions = load_talks(args.data, written["talks"]), written["questions"]
        tallies = {"by words": run_memory(Path(name) / "words", talks, questions, None, args.show)}
        if args.embedder:
            embedder = open_embedder(args.embedder)
            tallies["words and meaning"] = run_memory(
                Path(name) / "both", talks, questions, embedder, False
            )
        print_table(run_bm25(talks, questions), tallies)
        for label, tally in tallies.items():
            print_honesty(label, tally)


if __name__ == "__main__":
    main()
