"""`elysia train-tokenizer` and `elysia init-model`: from text to a model that chats."""

import io
import sys

from elysia import cli


def test_text_becomes_a_model_that_answers_in_a_pipe(tmp_path, capsys, monkeypatch):
    (tmp_path / "text.txt").write_text("你好,我是爱莉希雅。\nHello, I am Elysia.\n" * 20)
    words, model = str(tmp_path / "words"), str(tmp_path / "model")
    assert (
        cli.main(
            ["train-tokenizer", str(tmp_path / "text.txt"), "-o", words, "--vocab-size", "300"]
        )
        == 0
    )
    sizes = [
        "--hidden-size",
        "32",
        "--layers",
        "1",
        "--heads",
        "2",
        "--kv-heads",
        "1",
        "--intermediate-size",
        "64",
    ]
    assert cli.main(["init-model", model, "--tokenizer", words, *sizes]) == 0
    capsys.readouterr()

    chat = ["chat", model, "--device", "cpu", "--max-new-tokens", "5"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("你好\nRESET\n你好\n"))
    assert cli.main([*chat, "--temperature", "0"]) == 0
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first == second

    # Nothing says how it wants to be spoken to, so its family's template was taken.
    monkeypatch.setattr(sys, "stdin", io.StringIO("你好\n"))
    assert cli.main([*chat, "--prompt-template", "internlm2_chat", "--temperature", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == first


def test_an_occupied_folder_is_refused(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("hello\n")
    words = [
        "train-tokenizer",
        str(tmp_path / "text.txt"),
        "-o",
        str(tmp_path),
        "--vocab-size",
        "300",
    ]
    assert cli.main(words) == 1
    assert "not empty" in capsys.readouterr().err


def test_a_missing_model_is_one_sentence(tmp_path, capsys):
    assert cli.main(["chat", str(tmp_path / "nosuch")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
