"""`python benchmarks/knowledge.py [DATA] [--embedder MODEL] [--growth N]`: how well and how fast
documents are found.

- Recall on real questions: the paragraphs of DATA/ragqa (default ../shared/data) in one store, each a
  document; the bundled shelf with questions of our own; each asked in both scripts.
- Growth: N short texts (default 100,000) in one scope of the index, drawn by jieba's word
  frequencies; searching them, and adding one.

Asserts nothing. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from elysia.knowledge.shelves import Shelves, build
from elysia.retrieval.embed import Embedder, open_embedder
from elysia.retrieval.index import open_index
from elysia.store.database import open_database

ROOT = Path(__file__).resolve().parents[1]
DEEP = 40  # spans that are looked at for the first five documents
CITED = 4  # spans that a reply is given
Question = tuple[str, str, list[str]]  # the question, its document's name, answers


def paragraphs(said: Any) -> Iterator[dict[str, Any]]:
    """Every object with a context and questions, however deep."""
    if isinstance(said, list):
        for one in said:
            yield from paragraphs(one)
    elif isinstance(said, dict):
        if "qas" in said:
            yield said
        else:
            yield from paragraphs([one for one in said.values() if isinstance(one, dict | list)])


def of_file(path: Path, knowledge: Shelves) -> list[Question]:
    """Puts a file's paragraphs on the shelf `all`; its questions."""
    questions: list[Question] = []
    for number, one in enumerate(paragraphs(json.loads(path.read_text(encoding="utf-8")))):
        name = f"{path.stem}-{number}.txt"
        knowledge.add("all", name, str(one["context"]).encode())
        for asked in one["qas"]:
            answers = [answer["text"] for answer in asked["answers"]]
            questions.append((asked["question"], name, answers))
    return questions


def own(knowledge: Shelves) -> list[Question]:
    """The bundled shelf and its questions; the document is whichever holds the answer."""
    folder = ROOT / "knowledge_base" / "elysia"
    knowledge.sync("character/elysia", folder)
    asked = json.loads((Path(__file__).parent / "knowledge_questions.json").read_text("utf-8"))
    return [(question, "", [answer]) for question, answer in asked]


def measure(knowledge: Shelves, shelf: str, name: str, questions: list[Question]) -> None:
    """One row of the table."""
    first = fifth = best = cited = 0
    seconds = []
    for question, document, answers in questions:
        began = time.perf_counter()
        found = knowledge.search([shelf], question, k=CITED)
        seconds.append(time.perf_counter() - began)
        contain = [any(answer in one.text for answer in answers) for one in found]
        best += contain[:1] == [True]
        cited += any(contain)
        deep = knowledge.search([shelf], question, k=DEEP)
        names = list(dict.fromkeys(one.name for one in deep))
        first += names[:1] == [document]
        fifth += document in names[:5]
    total = len(questions)
    milliseconds = sorted(1000 * one for one in seconds)
    recall = (
        f"{first / total:8.4f} {fifth / total:8.4f}" if questions[0][1] else f"{'-':>8} {'-':>8}"
    )
    print(
        f"{name:34} {total:6} {recall} {best / total:8.4f} {cited / total:8.4f}"
        f" {statistics.median(milliseconds):8.1f} {milliseconds[int(0.95 * total)]:8.1f}",
        flush=True,
    )


def recall(data: Path, embedder: Embedder | None) -> None:
    """The table of what is found."""
    from opencc import OpenCC

    simplified, traditional = OpenCC("t2s").convert, OpenCC("s2t").convert
    with tempfile.TemporaryDirectory() as place:
        database = open_database(f"{place}/chat.db")
        knowledge = build(database, Path(place) / "index", embedder)
        sets: list[tuple[str, str, list[Question], Callable[[str], str]]] = []
        began = time.perf_counter()
        for stem, other in (("cmrc2018_trial", traditional), ("DRCD_dev", simplified)):
            if (path := data / "ragqa" / f"{stem}.json").is_file():
                sets.append(("all", stem, of_file(path, knowledge), other))
        if sets:
            spans = sum(one.spans for one in knowledge.documents("all"))
            documents = len(knowledge.documents("all"))
            spent = time.perf_counter() - began
            print(f"{documents} documents, {spans} spans, added in {spent:.1f} s")
        else:
            print(f"No {data / 'ragqa'}: only the bundled shelf is asked.")
        sets.append(("character/elysia", "knowledge_base/elysia", own(knowledge), traditional))
        print(
            f"{'questions':34} {'number':>6} {'doc@1':>8} {'doc@5':>8} {'span@1':>8}"
            f" {f'span@{CITED}':>8} {'ms 50%':>8} {'ms 95%':>8}"
        )
        for shelf, name, questions, other in sets:
            measure(knowledge, shelf, name, questions)
            turned = [(other(question), *rest) for question, *rest in questions]
            measure(knowledge, shelf, f"{name}, other script", turned)  # type: ignore[arg-type]
        knowledge.close()
        database.close()


def texts(number: int, seed: int) -> Iterator[str]:
    """Short texts as long as a turn of a talk, drawn by jieba's word frequencies."""
    import jieba

    words: list[str] = []
    weights: list[int] = []
    with (Path(jieba.__file__).parent / "dict.txt").open(encoding="utf-8") as file:
        for line in file:
            word, weight, *_ = line.split()
            words.append(word)
            weights.append(int(weight))
    rng = random.Random(seed)
    cumulated = list(itertools.accumulate(weights))
    for _ in range(number):
        yield "".join(rng.choices(words, cum_weights=cumulated, k=rng.randint(10, 40)))


def growth(number: int) -> None:
    """Times among many texts."""
    with tempfile.TemporaryDirectory() as place:
        index = open_index(Path(place))
        many = [(str(place), text) for place, text in enumerate(texts(number, 0))]
        began = time.perf_counter()
        index.add("one", many)
        print(f"{number:,} texts added at once: {time.perf_counter() - began:.1f} s")
        rng = random.Random(1)
        asked = []
        for _ in range(200):
            text = rng.choice(many)[1]
            start = rng.randrange(max(1, len(text) - 12))
            asked.append(f"{text[start : start + 12]}是什么时候的事？")
        report("search", asked, lambda text: index.search(["one"], text, k=20))
        report("add one", list(texts(100, 2)), lambda text: index.add("one", [(text, text)]))
        index.close()


def report(name: str, over: list[str], act: Callable[[str], object]) -> None:
    """The median and the slow end of doing something once for each."""
    spent = []
    for one in over:
        began = time.perf_counter()
        act(one)
        spent.append(1000 * (time.perf_counter() - began))
    spent.sort()
    slow = spent[int(0.95 * len(spent))]
    print(f"{name:10} {statistics.median(spent):6.1f} ms median, {slow:6.1f} ms at 95 %")


def main() -> None:
    """Both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--embedder", metavar="MODEL")
    parser.add_argument("--growth", type=int, default=100_000, metavar="N")
    args = parser.parse_args()
    recall(args.data, open_embedder(args.embedder))
    if args.growth:
        growth(args.growth)


if __name__ == "__main__":
    main()
