"""`elysia talk` and `elysia user`, over a SQLite file and a stand-in engine."""

from __future__ import annotations

import io
import sys

import pytest

from elysia.app import chat_service as composition
from elysia.chat.chat_model import ChatModel
from elysia.cli import main
from elysia.core import templates
from elysia.core.errors import EngineError
from elysia.models.chat_format import ChatFormat
from tests.chat.echo import EchoEngine


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command line with words on its standard input; (code, out, err)."""
    monkeypatch.chdir(tmp_path)
    engines = []

    def run(*words, typed="", reply=None):
        engine = EchoEngine(reply=reply)
        engines.append(engine)
        model = ChatModel(engine, ChatFormat(templates.get_template("internlm2_chat")))
        monkeypatch.setattr(composition, "load_chat_model", lambda config: model)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    run.engines = engines
    return run


def test_a_talk_goes_on_where_it_stopped(run):
    code, out, _ = run("talk", "elysia", "--model", "m", typed="你好\n")
    assert (code, out) == (0, "爱莉希雅: heard: 你好\n")
    assert run("talk", "爱莉希雅", "--model", "m", typed="again\n")[1] == "爱莉希雅: heard: again\n"
    texts = [message.text for message in run.engines[-1].requests[0].messages]
    assert "heard: 你好" in texts
    run("talk", "elysia", "--model", "m", "--new", typed="new\n")
    assert "heard: 你好" not in [m.text for m in run.engines[-1].requests[0].messages]


def test_words_in_capitals_steer(run):
    code, out, err = run(
        "talk",
        "elysia",
        "--model",
        "m",
        typed="one\nAGAIN\nWHY\nUNDO\ntwo\nRESET\nthree\nEXIT\nfour\n",
    )
    assert code == 0
    assert out.count("heard: one") == 2 and "four" not in out
    assert "tokens of 4096" in out and "(taken back: one)" in err
    texts = [[m.text for m in request.messages] for request in run.engines[-1].requests]
    assert "one" not in texts[2] and "two" not in texts[3]


def test_chat_with_a_character_is_talk_by_another_name(run):
    code, out, _ = run("chat", "--character", "elysia", "--model", "m", typed="你好\n")
    assert (code, out) == (0, "爱莉希雅: heard: 你好\n")
    assert run("talk", "elysia", "--model", "m", typed="again\n")[0] == 0  # the same conversation
    assert "heard: 你好" in [m.text for m in run.engines[-1].requests[0].messages]
    code, _, err = run("chat", "--character", "elysia", "--top-k", "5", typed="")
    assert code == 2 and "--top-k" in err
    code, _, err = run("chat", "m", "--new", typed="")
    assert code == 2 and "--new" in err
    assert run("chat", typed="")[0] == run("chat", "m", "--character", "elysia", typed="")[0] == 2


def test_several_answer_in_turn(run):
    code, out, _ = run("talk", "elysia", "小棠", "--model", "m", typed="爱莉，小棠，早\n")
    assert code == 0
    first, second = out.splitlines()
    assert first.startswith("爱莉希雅: heard:") and second.startswith("小棠: heard:")


def test_a_card_file_is_taken_in_once(run, tmp_path):
    (tmp_path / "mira.json").write_text('{"name": "Mira", "first_mes": "Tick."}')
    assert run("talk", "mira.json", "--model", "m", typed="hi\n")[1] == "Mira: heard: hi\n"
    assert run("talk", "mira.json", "--model", "m", typed="more\n")[0] == 0
    assert "heard: hi" in [m.text for m in run.engines[-1].requests[0].messages]


def test_an_unknown_character_names_the_nearest(run):
    code, _, err = run("talk", "elysa", "--model", "m")
    assert code == 2 and "Did you mean 'elysia'?" in err


def test_without_a_model_a_sentence_says_what_to_do(run):
    code, _, err = run("talk", "elysia")
    assert code == 2 and "make demo" in err and "ELYSIA_MODEL" in err


def test_a_dead_server_ends_a_pipe_with_its_sentence_and_keeps_the_words(run):
    def dead(request):
        raise EngineError("The server does not answer.")

    code, _, err = run("talk", "elysia", "--model", "m", typed="are you there\n", reply=dead)
    assert code == 1 and "The server does not answer." in err
    run("talk", "elysia", "--model", "m", typed="AGAIN\n")
    assert run.engines[-1].requests[0].messages[-1].text == "are you there"


def test_users_are_added_listed_and_removed_and_no_password_is_an_argument(run):
    assert run("user", "add", "mei", typed="correct horse\n")[0] == 0
    assert run("user", "list")[1] == "mei\n"
    code, _, err = run("user", "add", "mei", typed="another horse\n")
    assert code == 2 and "a user mei already" in err
    assert run("user", "password", "mei", typed="battery staple\n")[0] == 0
    assert run("user", "add", "bob", typed="short\n")[0] == 2
    assert run("user", "remove", "mei")[0] == 0
    assert run("user", "list")[1] == ""
    assert run("user", "add", "x", "--password", "y")[0] == 2
