"""`elysia evaluate persona` and `compare`, on tiny models: every measure is taken, the trained one
is the better reader, reports are put side by side.
"""

import json

import pytest

from elysia import cli
from elysia.evaluate.scorecard import MEASURES

CARD = {
    "spec": "chara_card_v2", "spec_version": "2.0",
    "data": {"name": "爱莉希雅", "extensions": {"elysia": {"english_name": "Elysia"}}},
}  # fmt: skip


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return str(path)


def rows(ask, reply, count):
    return [
        {"conversation": [{"input": ask.format(n), "output": reply.format(n)}]}
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("score")
    return folder, [
        "--persona", write(folder / "card.json", CARD),
        "--heldout", write(folder / "held.json", rows("第{}天好吗？", "嘻嘻，第{}朵花开啦～", 6)),
        "--train", write(folder / "train.json", rows("{}号见？", "嘻嘻，{}点在花房等你呀～", 30)),
        "--general", write(folder / "general.json", rows("{}加一？", "答案是{}再加一，请核对。", 30)),
        "--questions", write(folder / "q.json", ["你是谁?", "Who are you?"]),
        "--ordinary", write(folder / "o.json", ["天气?"]),
        "--prompt-template", "internlm2_chat", "--device", "cpu", "--torch-dtype", "fp32",
        "--max-new-tokens", "6", "--limit", "6",
    ]  # fmt: skip


def test_every_measure_is_taken_of_a_model_and_its_base(tiny_internlm2, tiny_llama, files, capsys):
    folder, words = files
    report, page = folder / "a.json", folder / "a.html"
    more = [
        "--against",
        str(tiny_llama),
        "--json",
        str(report),
        "--html",
        str(page),
        "--label",
        "a<b",
    ]
    assert cli.main(["evaluate", "persona", str(tiny_internlm2), *words, *more]) == 0
    cards = json.loads(report.read_text("utf-8"))["scorecards"]
    assert [card["label"] for card in cards] == ["a<b", "llama"]
    for card in cards:
        assert set(card["measures"]) == set(MEASURES)
        assert all(value is not None for value in card["measures"].values())
        assert 0 <= card["measures"]["next_line"] <= 1
        assert card["measures"]["endless"] > 0  # random weights do not know when to end
        assert card["measures"]["late_turns"] > 0
    shown = capsys.readouterr().out
    assert "heldout_perplexity" in shown and "forgetting" in shown
    assert "a<b" not in page.read_text("utf-8") and "a&lt;b" in page.read_text("utf-8")
    assert cli.main(["evaluate", "compare", str(report), str(report)]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["a<b", "llama"]


def test_a_model_that_knows_the_voice_reads_it_better(tiny_internlm2, files, tmp_path):
    """A few steps on the character's lines: perplexity and choice say so."""
    import torch

    from elysia.core.messages import Message
    from elysia.core.templates import get_template, render_training_pieces
    from elysia.data.tokenize.encoder import encode
    from elysia.evaluate.likelihood import ReplyScorer, compute_perplexity
    from elysia.models.loading import load_causal_lm, load_tokenizer

    folder, _ = files
    model = load_causal_lm(tiny_internlm2, dtype="float32", device="cpu")
    reader = ReplyScorer(model, load_tokenizer(tiny_internlm2), get_template("internlm2_chat"))
    train, held = (
        [[Message("user", t["conversation"][0]["input"]), Message("assistant", t["conversation"][0]["output"])]
         for t in json.loads((folder / name).read_text("utf-8"))] for name in ("train.json", "held.json")
    )  # fmt: skip
    before = compute_perplexity(reader.losses(held))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rows = [
        encode(render_training_pieces(talk, reader.template), reader.tokenizer)
        for talk in train[:8]
    ]
    model.train()
    for row in rows:
        ids, labels = torch.tensor([row.ids]), torch.tensor([row.labels])
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    assert compute_perplexity(reader.losses(held)) < 0.5 * before


def test_mistakes_are_sentences(tiny_internlm2, files, tmp_path, capsys):
    _, words = files
    assert cli.main(["evaluate", "persona", str(tiny_internlm2), *words, "--limit", "0"]) == 2
    assert cli.main(["evaluate", "compare", str(tmp_path / "none.json")]) == 1
    assert cli.main(["evaluate", "compare", write(tmp_path / "x.json", [1])]) == 1
    other = write(tmp_path / "odd.json", [{"a": "b"}])
    words = [other if word.endswith("held.json") else word for word in words]
    assert cli.main(["score", str(tiny_internlm2), *words]) == 1
    err = capsys.readouterr().err
    for sentence in (
        "--limit",
        "There is no report",
        "is not a report of",
        "no known dataset format",
    ):
        assert sentence in err
