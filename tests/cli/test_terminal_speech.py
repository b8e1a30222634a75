"""Replies through a player: a stand-in program that writes down what it is given."""

import stat
import time

import pytest

from elysia.cli import terminal_speech as module
from elysia.cli.terminal_speech import TerminalSpeech
from elysia.voice.engines.silent import SilentEngine
from elysia.voice.streaming import TTSWorker


@pytest.fixture
def player(tmp_path, monkeypatch):
    """A program `playit` that copies its input into a file; returns the file."""
    heard = tmp_path / "heard"
    program = tmp_path / "playit"
    program.write_text(f'#!/bin/sh\nexec cat >> "{heard}"\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(module, "PLAYERS", {"playit": ["{rate}"]})
    return heard


def test_a_reply_is_played_whole(player):
    speech = TerminalSpeech(TTSWorker(SilentEngine()))
    utterance = speech.begin()
    utterance.write("一二三四。")
    utterance.end()
    speech.close()
    assert player.stat().st_size == pytest.approx(2 * 16_000 * 4 * 0.15)


def test_a_new_reply_silences_the_one_before(player):
    speech = TerminalSpeech(TTSWorker(SilentEngine()))
    old = speech.begin()
    old.write("一二三四。五")
    until = time.monotonic() + 60
    while not player.exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    new = speech.begin()
    assert old.stopped
    new.end()
    speech.close()
