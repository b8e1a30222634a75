"""Real questions find their real paragraphs, in either script. The whole is in benchmarks/knowledge.py."""

from __future__ import annotations

import json

from opencc import OpenCC

from elysia.retrieval.index import open_index


def test_real_questions_find_their_paragraphs_in_either_script(shared_data, tmp_path):
    file = shared_data / "ragqa" / "cmrc2018_trial.json"
    articles = json.loads(file.read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    index = open_index(tmp_path)
    index.add("s", [(str(n), paragraph["context"]) for n, paragraph in enumerate(paragraphs)])
    questions = [
        (str(n), paragraph["qas"][0]["question"]) for n, paragraph in enumerate(paragraphs[:100])
    ]
    traditional = OpenCC("s2t").convert
    firsts = []
    for turn in (str, traditional):
        rankings = [
            [hit.id for hit in index.search(["s"], turn(text), k=5)] for _, text in questions
        ]
        firsts.append(
            sum(ids[:1] == [gold] for ids, (gold, _) in zip(rankings, questions, strict=True))
        )
        assert sum(gold in ids for ids, (gold, _) in zip(rankings, questions, strict=True)) >= 99
    assert min(firsts) >= 97
    assert firsts[0] - firsts[1] <= 1
    index.close()
