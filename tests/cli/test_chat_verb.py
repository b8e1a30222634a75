"""`elysia chat` in a pipe and on a terminal. The engine is the scripted one; what is tested is the talk."""

import io
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest

from elysia import cli
from elysia.chat.prompt.character_state import CharacterState
from elysia.chat.session import ChatSession
from elysia.cli.chat import converse, show_greeting
from elysia.core.card_file import parse_card
from elysia.core.errors import EngineError
from elysia.core.templates import get_template
from elysia.engines.base import Sampling
from elysia.engines.scripted import ScriptedEngine

TEMPLATE = get_template("internlm2_chat")


@pytest.fixture
def piped(monkeypatch):
    """Talks through a pipe: (lines in, replies) -> the session."""

    def talk(text, replies, **kwargs):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        session = ChatSession(ScriptedEngine(replies), TEMPLATE, **kwargs)
        assert converse(session) == 0
        return session

    return talk


def test_through_a_pipe_each_line_is_a_message(piped, capsys):
    piped("hi\n\nmore\n", ["hello", "again"])
    assert capsys.readouterr().out == "hello\nagain\n"


def test_reset_forgets_and_exit_leaves(piped, capsys):
    session = piped("one\nRESET\ntwo\nEXIT\nthree\n", ["a", "b", "c"])
    assert capsys.readouterr().out == "a\nb\n"
    assert [message.text for message in session.history] == ["two", "b"]


def test_a_character_greets_and_cannot_move_the_terminals_cursor(capsys):
    card = parse_card(b'{"name": "Mira", "first_mes": "Hi, {{user}}.\\u001b[2J"}', "x")
    show_greeting(ChatSession(ScriptedEngine([]), TEMPLATE, character=CharacterState(card)), "Mira")
    show_greeting(ChatSession(ScriptedEngine([]), TEMPLATE), "BOT")
    assert capsys.readouterr().out == "Mira: Hi, 你.[2J\n"


def test_a_reply_that_was_cut_says_so(piped, capsys):
    piped("hi\n", ["a long reply"], sampling=Sampling(max_new_tokens=6))
    shown = capsys.readouterr()
    assert shown.out == "a long\n"
    assert "cut short" in shown.err


def test_without_a_streamer_the_reply_comes_whole(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\n"))
    converse(ChatSession(ScriptedEngine(["hello"]), TEMPLATE), streaming=False)
    assert capsys.readouterr().out == "hello\n"


def test_through_a_pipe_a_failed_turn_ends_the_program(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\n"))
    with pytest.raises(EngineError):
        converse(ChatSession(ScriptedEngine([]), TEMPLATE))


@pytest.mark.parametrize(
    "flags",
    [
        ["--llava", "x"],
        ["--with-plugins", "search"],
        ["--lagent"],
        ["--offload-folder", "x"],
        ["--image", "x.png"],
    ],
)
def test_flags_that_are_not_served_get_a_sentence(flags, capsys):
    assert cli.main(["chat", "nosuch", *flags]) == 2
    assert flags[0] in capsys.readouterr().err


def test_a_misspelt_system_template_names_the_nearest(capsys):
    assert cli.main(["chat", "nosuch", "--system-template", "lawer"]) == 2
    assert "Did you mean 'lawyer'?" in capsys.readouterr().err


def test_sampling_out_of_range_is_a_sentence(capsys):
    assert cli.main(["chat", "nosuch", "--top-p", "1.5"]) == 1
    assert "top_p is 1.5" in capsys.readouterr().err


def test_a_voice_speaks_each_reply_into_its_file(monkeypatch, tmp_path, capsys):
    import wave

    from elysia.cli.terminal_speech import open_speech

    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\nmore\n"))
    speech = open_speech("silent", str(tmp_path))
    session = ChatSession(ScriptedEngine(["你好，我在。", "**再见**😊。"]), TEMPLATE)
    assert converse(session, speech=speech) == 0
    speech.close()
    assert capsys.readouterr().out == "你好，我在。\n**再见**😊。\n"
    seconds = []
    for number in (1, 2):
        with wave.open(str(tmp_path / f"reply-00{number}.wav")) as file:
            seconds.append(file.getnframes() / file.getframerate())
    assert seconds == pytest.approx([0.6, 0.3])  # 0.15 s a letter; marks and emoji are not said


def test_a_voice_without_a_player_or_a_folder_is_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert cli.main(["chat", "nosuch", "--voice", "silent"]) == 2
    assert "--voice-out" in capsys.readouterr().err
    assert cli.main(["chat", "nosuch", "--voice", "silnt"]) == 1
    assert "Did you mean 'silent'?" in capsys.readouterr().err


TERMINAL = """
import signal, sys, time
# Tests that run in the background hand down a SIGINT that is ignored; a terminal's program has it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from elysia.chat.session import ChatSession
from elysia.cli.chat import converse
from elysia.core.templates import get_template
from elysia.engines.scripted import ScriptedEngine

class Slow(ScriptedEngine):
    def stream(self, request, cancel=None):
        for delta in super().stream(request, cancel):
            time.sleep(0.02)
            yield delta

from elysia import cli
def parser():
    from elysia.cli.output import build_parser
    engine = Slow(["x" * 4000, "second reply", "third reply"])
    session = ChatSession(engine, get_template("internlm2_chat"))
    return build_parser("t", "", "", lambda args: converse(session))
cli.VERBS["t"] = ("__main__:parser", "")
sys.exit(cli.main(["t"]))
"""


class PseudoTerminal:
    """A child on a pseudo-terminal: type into it, wait for what it shows."""

    def __init__(self) -> None:
        self.terminal, child_end = pty.openpty()
        self.child = subprocess.Popen(
            [sys.executable, "-c", TERMINAL],
            stdin=child_end, stdout=child_end, stderr=child_end, start_new_session=True,
        )  # fmt: skip
        os.close(child_end)
        self.shown = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while piece := os.read(self.terminal, 4096):
                self.shown += piece.decode(errors="replace")
        except OSError:
            pass  # the child is gone

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def interrupt(self) -> None:
        # Python shows the prompt a moment before it waits for a key; a signal between the two is
        # only seen with the next one.
        time.sleep(0.3)
        self.child.send_signal(signal.SIGINT)

    def wait_for(self, text: str) -> None:
        """Until `text` is shown; what was shown up to it is then forgotten."""
        until = time.monotonic() + 90  # two cores may be busy with other tests
        while text not in self.shown:
            assert time.monotonic() < until, f"{text!r} never came; shown: {self.shown!r}"
            time.sleep(0.01)
        self.shown = self.shown.split(text, 1)[1]


@pytest.fixture
def terminal():
    terminal = PseudoTerminal()
    yield terminal
    terminal.child.kill()
    terminal.child.wait()


def test_on_a_terminal_an_interrupt_stops_the_reply_and_not_the_program(terminal):
    terminal.wait_for(">>>")
    terminal.type("hi\n\n")
    terminal.wait_for("xxxx")
    terminal.interrupt()
    terminal.wait_for("(stopped)")
    terminal.wait_for(">>>")
    terminal.type("two lines\nin one\n\n")
    terminal.wait_for("second reply")
    terminal.wait_for(">>>")
    terminal.type("EXIT\n")
    assert terminal.child.wait(90) == 0


def test_at_the_prompt_a_second_interrupt_leaves(terminal):
    terminal.wait_for(">>>")
    terminal.interrupt()
    terminal.wait_for("Ctrl-C again leaves")
    terminal.wait_for(">>>")
    terminal.interrupt()
    assert terminal.child.wait(90) == 130


def test_the_end_of_input_leaves(terminal):
    terminal.wait_for(">>>")
    terminal.type("\x04")
    assert terminal.child.wait(90) == 0


def test_stop_words_under_the_names_of_older_xtuners_are_taken():
    from elysia.cli.chat import chat_parser

    flags = ["m", "--stop-words", "a", "b", "--answer-stop-word", "c", "--command-stop-word", "d"]
    assert chat_parser().parse_args(flags).stop_words == ["a", "b", "c", "d"]
    assert chat_parser().parse_args(["m"]).stop_words == []
