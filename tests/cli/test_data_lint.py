"""`elysia data lint`: findings on the terminal, in files, and in the exit code."""

import json

from elysia import cli

GOOD = {"conversation": [{"input": "早呀", "output": "早上好，今天也请多关照。"}]}
BAD = {"conversation": [{"input": "你是谁", "output": "我是ChatGPT。"}]}


def write(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(path)


def test_errors_are_told_by_line_and_in_the_exit_code(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", GOOD, BAD)
    assert (
        cli.main(
            [
                "data",
                "lint",
                path,
                "--html",
                str(tmp_path / "a.html"),
                "--json",
                str(tmp_path / "a.report"),
            ]
        )
        == 1
    )
    out = capsys.readouterr().out
    assert (
        f"{path}:2: error other-assistant: conversation[1].output: says that it is ChatGPT (row 2)"
        in out
    )
    assert "2 rows" in out
    assert "<svg" in (tmp_path / "a.html").read_text("utf-8")
    assert json.loads((tmp_path / "a.report").read_text("utf-8"))["errors"] == 1


def test_a_card_says_which_names_are_its_own(tmp_path):
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"name": "ChatGPT", "description": "d"}))
    path = write(tmp_path / "a.jsonl", GOOD, BAD)
    assert cli.main(["data", "lint", path, "--persona", str(card)]) == 0


def test_a_clean_file_ends_well_and_json_goes_to_the_terminal(tmp_path, capsys):
    assert cli.main(["data", "lint", write(tmp_path / "a.jsonl", GOOD), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["rows"] == 1


def test_fix_says_each_change(tmp_path, capsys):
    row = {"conversation": [{"input": "早", "output": "早\u200b上好。"}]}
    path = write(tmp_path / "a.jsonl", row)
    assert cli.main(["data", "lint", path, "--fix"]) == 0
    assert "invisible" in capsys.readouterr().err


def test_tokens_are_counted_where_a_tokenizer_is_given(tmp_path, tiny_tokenizer, capsys):
    path = write(tmp_path / "a.jsonl", GOOD)
    assert cli.main(["data", "lint", path, "--tokenizer", str(tiny_tokenizer)]) == 0
    assert "% of tokens learned" in capsys.readouterr().out


def test_a_missing_file_is_a_sentence(tmp_path, capsys):
    assert cli.main(["data", "lint", str(tmp_path / "no.json")]) == 1
    assert "There is no dataset file" in capsys.readouterr().err
