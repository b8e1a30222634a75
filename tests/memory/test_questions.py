"""The benchmark's questions over the talks that stand in its file: found, and nothing of others."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "memory.py"


@pytest.fixture(scope="module")
def benchmark_module():
    spec = importlib.util.spec_from_file_location("memory_benchmark", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_recall_beats_plain_bm25_by_15_percent_and_gives_nothing_of_others_or_of_the_past(
    benchmark_module, tmp_path
):
    written = json.loads(benchmark_module.QUESTIONS.read_text(encoding="utf-8"))
    talks = benchmark_module.load_talks(tmp_path / "absent.json", written["talks"])
    names = {talk.name for talk in talks}
    questions = [question for question in written["questions"] if question["talk"] in names]
    assert len(questions) > 80
    memory = benchmark_module.run_memory(tmp_path, talks, questions, None, False)
    base = benchmark_module.run_bm25(talks, questions)
    for halves in (("tuned",), ("held out",)):
        _, ten, _ = benchmark_module.mean_recall(base, benchmark_module.ANSWERED, halves)
        _, recall, _ = benchmark_module.mean_recall(memory, benchmark_module.ANSWERED, halves)
        assert recall >= 1.15 * ten
    assert memory.leaked == 0 and memory.outdated_facts == 0


def test_gold_turns_are_turns_of_their_talk():
    written = json.loads((BENCHMARK.parent / "memory_questions.json").read_text(encoding="utf-8"))
    for question in written["questions"]:
        days = written["talks"][question["talk"]].get("days")
        for gold in [*question["gold"], *question.get("stale", [])] if days else []:
            day, position = gold.split("/")
            assert days[day][int(position[:-1])][position[-1] == "r"]
