"""`python benchmarks/knowledge.py [DATA] [--most N] [--embedder MODEL [--kept FILE]] [--growth N]`: how well
and how fast documents are found.

- Recall on real questions: the paragraphs of DATA/ragqa (default ../shared/data) in one store, each a
  document; the bundled shelf with questions of our own; each asked in both scripts.
- With an embedding model (`benchmarks/embedders.py` makes folders): by words alone and, on the line below,
  by words and meaning together, in the questions' own script. FILE keeps vectors for another run. N is
  about how many questions of a set are asked, evenly picked.
- Growth: N short texts (default 100,000) in one scope of the index, drawn by jieba's word
  frequencies; searching them, and adding one, in seconds of the processor and of the clock.

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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from opencc import OpenCC

from elysia.knowledge import DocumentStore, open_document_store
from elysia.retrieval import Embedder, open_embedder, open_index
from elysia.store import open_database

ROOT = Path(__file__).resolve().parents[1]
DEEP = 40  # spans that are looked at for the first five documents
CITED = 4  # spans that a reply is given
Question = tuple[str, str, list[str]]  # the question, its document's name, answers


def iter_paragraphs(value: Any) -> Iterator[dict[str, Any]]:
    """Every object with a context and questions, however deep."""
    if isinstance(value, list):
        for item in value:
            yield from iter_paragraphs(item)
    elif isinstance(value, dict):
        if "qas" in value:
            yield value
        else:
            yield from iter_paragraphs([v for v in value.values() if isinstance(v, dict | list)])


def add_file(path: Path, knowledge: DocumentStore) -> list[Question]:
    """Add a file's paragraphs to the shelf `all`; its questions."""
    questions: list[Question] = []
    for number, paragraph in enumerate(
        iter_paragraphs(json.loads(path.read_text(encoding="utf-8")))
    ):
        name = f"{path.stem}-{number}.txt"
        knowledge.add("all", name, str(paragraph["context"]).encode())
        for qa in paragraph["qas"]:
            answers = [answer["text"] for answer in qa["answers"]]
            questions.append((qa["question"], name, answers))
    return questions


def add_bundled(knowledge: DocumentStore) -> list[Question]:
    """Add the bundled shelf; its questions. Any document may hold the answer."""
    folder = ROOT / "knowledge_base" / "elysia"
    knowledge.sync("character/elysia", folder)
    pairs = json.loads((Path(__file__).parent / "knowledge_questions.json").read_text("utf-8"))
    return [(question, "", [answer]) for question, answer in pairs]


class CachedEmbedder:
    """An embedder that caches its vectors in a file, for another run."""

    def __init__(self, inner: Embedder, file: Path | None) -> None:
        self.name, self.dimensions = inner.name, inner.dimensions
        self._inner, self._file = inner, file
        self._vectors: dict[str, np.ndarray] = {}
        if file and file.is_file():
            with np.load(file) as saved:
                self._vectors = dict(zip(saved["texts"].tolist(), saved["vectors"], strict=True))

    def embed(self, texts: Sequence[str], *, question: bool = False) -> list[list[float]]:
        """As the inner embedder, once per text."""
        keys = [f"{'question' if question else 'text'} {text}" for text in texts]
        new = [n for n, key in enumerate(keys) if key not in self._vectors]
        if new:
            vectors = self._inner.embed([texts[n] for n in new], question=question)
            self._vectors |= {
                keys[n]: np.float32(vector) for n, vector in zip(new, vectors, strict=True)
            }
        return [self._vectors[key].tolist() for key in keys]

    def save(self) -> None:
        """Write the file."""
        if self._file:
            np.savez(self._file, texts=[*self._vectors], vectors=[*self._vectors.values()])


def measure(knowledge: DocumentStore, shelf: str, name: str, questions: list[Question]) -> None:
    """One row of the table."""
    first = fifth = best = cited = 0
    seconds = []
    for question, document, answers in questions:
        began = time.process_time()
        deep = knowledge.search([shelf], question, k=DEEP)
        seconds.append(time.process_time() - began)
        contain = [any(answer in hit.text for answer in answers) for hit in deep[:CITED]]
        best += contain[:1] == [True]
        cited += any(contain)
        names = list(dict.fromkeys(hit.name for hit in deep))
        first += names[:1] == [document]
        fifth += document in names[:5]
    total = len(questions)
    milliseconds = sorted(1000 * spent for spent in seconds)
    recall = (
        f"{first / total:8.4f} {fifth / total:8.4f}" if questions[0][1] else f"{'-':>8} {'-':>8}"
    )
    print(
        f"{name:38} {total:6} {recall} {best / total:8.4f} {cited / total:8.4f}"
        f" {statistics.median(milliseconds):8.1f} {milliseconds[int(0.95 * total)]:8.1f}",
        flush=True,
    )


def recall(data: Path, embedder: CachedEmbedder | None, most: int | None) -> None:
    """The table of what is found."""
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"{folder}/chat.db")
        knowledge = open_document_store(database, Path(folder) / "index", embedder)
        sets: list[tuple[str, str, list[Question], Callable[[str], str]]] = []
        began = time.process_time()
        for stem, other in (("cmrc2018_trial", "s2t"), ("DRCD_dev", "t2s")):
            if (path := data / "ragqa" / f"{stem}.json").is_file():
                sets.append(("all", stem, add_file(path, knowledge), OpenCC(other).convert))
        if sets:
            spans = sum(document.spans for document in knowledge.documents("all"))
            documents = len(knowledge.documents("all"))
            spent = time.process_time() - began
            print(f"{documents} documents, {spans} spans, added in {spent:.1f} s of CPU")
        else:
            print(f"No {data / 'ragqa'}: only the bundled shelf is asked.")
        bundled_questions = add_bundled(knowledge)
        sets.append(
            ("character/elysia", "knowledge_base/elysia", bundled_questions, OpenCC("s2t").convert)
        )
        print(
            f"{'questions':38} {'number':>6} {'doc@1':>8} {'doc@5':>8} {'span@1':>8}"
            f" {f'span@{CITED}':>8} {'CPU ms':>8} {'at 95 %':>8}"
        )
        words = open_document_store(database, Path(folder) / "words") if embedder else None
        for shelf, name, questions, other_script in sets:
            step = max(1, round(len(questions) / most)) if most else 1
            questions = questions[step - 1 :: step]
            if words:
                measure(words, shelf, f"{name}, words alone", questions)
                measure(knowledge, shelf, f"{name}, both", questions)
                continue
            measure(knowledge, shelf, name, questions)
            turned = [(other_script(question), *rest) for question, *rest in questions]
            measure(knowledge, shelf, f"{name}, other script", turned)  # type: ignore[arg-type]
        for store in (knowledge, words):
            if store:
                store.close()
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
    with tempfile.TemporaryDirectory() as folder:
        index = open_index(Path(folder))
        pairs = [(str(n), text) for n, text in enumerate(texts(number, 0))]
        began = time.process_time()
        index.add("one", pairs)
        print(f"{number:,} texts added at once: {time.process_time() - began:.1f} s of CPU")
        rng = random.Random(1)
        questions = []
        for _ in range(200):
            text = rng.choice(pairs)[1]
            start = rng.randrange(max(1, len(text) - 12))
            questions.append(f"{text[start : start + 12]}是什么时候的事？")
        report("search", questions, lambda text: index.search(["one"], text, k=20))
        report("add one", list(texts(100, 2)), lambda text: index.add("one", [(text, text)]))
        index.close()


def report(name: str, over: list[str], act: Callable[[str], object]) -> None:
    """The median and the slow end of calling `act` with each, by processor and by clock."""
    spent: list[tuple[float, float]] = []
    for argument in over:
        began = time.process_time(), time.perf_counter()
        act(argument)
        spent.append((time.process_time() - began[0], time.perf_counter() - began[1]))
    for what, seconds in zip(("of CPU", "by the clock"), zip(*spent, strict=True), strict=True):
        slow = sorted(seconds)[int(0.95 * len(seconds))]
        print(
            f"{name:10} {1000 * statistics.median(seconds):6.1f} ms {what} at the median,"
            f" {1000 * slow:6.1f} ms at 95 %"
        )


def main() -> None:
    """Both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--most", type=int, metavar="N")
    parser.add_argument("--embedder", metavar="MODEL")
    parser.add_argument(
        "--kept", type=Path, metavar="FILE", help="vectors of MODEL, read and written"
    )
    parser.add_argument("--growth", type=int, default=100_000, metavar="N")
    args = parser.parse_args()
    embedder = open_embedder(args.embedder)
    cached = CachedEmbedder(embedder, args.kept) if embedder else None
    recall(args.data, cached, args.most)
    if cached:
        cached.save()
    elif args.growth:
        growth(args.growth)


if __name__ == "__main__":
    main()
