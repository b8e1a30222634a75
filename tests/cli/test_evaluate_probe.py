"""`elysia probe`: questions in, verdicts and rates out."""

import json
from pathlib import Path

import pytest

from elysia import cli
from elysia.cli.evaluate import read_questions
from elysia.core.errors import DataError

CARD = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "data": {"name": "爱莉希雅", "extensions": {"elysia": {"english_name": "Elysia"}}},
}


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return str(path)


def test_every_question_is_answered_alone_and_judged(tiny_internlm2, tmp_path, capsys):
    words = [
        "probe", str(tiny_internlm2), "--prompt-template", "internlm2_chat", "--device", "cpu",
        "--torch-dtype", "fp32", "--max-new-tokens", "8", "--batch", "2", "--show", "3",
        "--questions", write(tmp_path / "q.json", ["你是谁?", {"question": "Who are you?"}, "名字?"]),
        "--ordinary", write(tmp_path / "o.json", ["一加一?", "天气?"]),
        "--persona", write(tmp_path / "card.json", CARD),
        "--output", str(tmp_path / "out" / "report.json"),
    ]  # fmt: skip
    assert cli.main(words) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["identity_rate"] == 0.0  # random weights know no name
    assert report["leak_rate"] == 0.0
    assert [row["question"] for row in report["identity"]] == ["你是谁?", "Who are you?", "名字?"]
    assert all(row["reply"] for row in report["ordinary"])
    shown = capsys.readouterr().out
    assert shown.count("✗") + shown.count("✓") == 3
    assert "of 3 questions" in shown


@pytest.mark.parametrize("value", [[], {}, ["a", ""], [{"nosuch": "a"}], "a"])
def test_a_file_that_holds_no_questions_is_a_sentence(tmp_path, value):
    write(tmp_path / "q.json", value)
    with pytest.raises(DataError, match=r"q\.json"):
        read_questions(tmp_path / "q.json", "identity")


def test_a_missing_or_broken_file_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match="no file"):
        read_questions(tmp_path / "none.json", "identity")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        read_questions(tmp_path / "bad.json", "identity")


def test_a_file_may_hold_both_kinds(tmp_path):
    value = {"identity": [{"text": "a", "kind": "name"}], "ordinary": ["b"]}
    write(tmp_path / "q.json", value)
    assert read_questions(tmp_path / "q.json", "identity") == ["a"]
    assert read_questions(tmp_path / "q.json", "ordinary") == ["b"]


def test_the_bundled_questions_are_found_from_anywhere(tmp_path, monkeypatch):
    from elysia.core.paths import resolve_bundled

    monkeypatch.chdir(tmp_path)
    assert len(read_questions(Path(resolve_bundled("data/probes.json")), "identity")) >= 100
    assert len(read_questions(Path(resolve_bundled("data/probes_ordinary.json")), "ordinary")) >= 60
