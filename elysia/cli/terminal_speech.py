"""Replies spoken in a terminal chat: through an audio player of the system, or into one WAV file each."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from elysia.core.errors import UsageError

if TYPE_CHECKING:
    from elysia.voice.base import AudioChunk
    from elysia.voice.streaming import SpeechStream, TTSWorker

# Programs that play raw 16-bit mono sound from standard input, and their arguments.
PLAYERS = {
    "pacat": ["--raw", "--format=s16le", "--channels=1", "--rate={rate}"],
    "aplay": ["-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", "{rate}", "-"],
    "ffplay": ["-nodisp", "-autoexit", "-loglevel", "quiet", "-f", "s16le", "-ar", "{rate}", "-i", "-"],
}  # fmt: skip


class TerminalSpeech:
    """The voice of one conversation.

    When played, a new reply silences the one before; when written to files, each is complete.
    """

    def __init__(self, speaker: TTSWorker, folder: Path | None = None) -> None:
        self._player = None if folder else next(filter(shutil.which, PLAYERS), None)
        if folder is None and self._player is None:
            raise UsageError("cli.no_player", players=list(PLAYERS))
        self._speaker = speaker
        self._folder = folder
        self._count = 0
        self._replies: list[tuple[SpeechStream, threading.Thread]] = []

    def begin(self) -> SpeechStream:
        """Start a new reply; write its text to the stream that is returned."""
        if self._folder is None:
            self.silence()
        self._count += 1
        utterance = self._speaker.open_stream()
        thread = threading.Thread(target=self._listen, args=(utterance, self._count), daemon=True)
        thread.start()
        self._replies.append((utterance, thread))
        return utterance

    def silence(self) -> None:
        """Stop whatever is being spoken."""
        for utterance, thread in self._replies:
            utterance.stop()
            thread.join(timeout=10)
        self._replies = []

    def close(self, *, finish: bool = True) -> None:
        """Wait for the last reply to be spoken, unless `finish` is False, and release the voice."""
        for _, thread in self._replies if finish else ():
            thread.join()
        self.silence()
        self._speaker.close()

    def _listen(self, utterance: SpeechStream, number: int) -> None:
        sound = (spoken.audio for spoken in utterance.sound())
        if self._folder is not None:
            from elysia.voice.audio import write_wav

            write_wav(self._folder / f"reply-{number:03}.wav", sound)
        else:
            self._play(utterance, sound)

    def _play(self, utterance: SpeechStream, sound: Iterator[AudioChunk]) -> None:
        player: subprocess.Popen[bytes] | None = None
        try:
            for pcm in sound:
                if player is None:
                    words = [word.format(rate=pcm.rate) for word in PLAYERS[str(self._player)]]
                    player = subprocess.Popen(
                        [str(self._player), *words],
                        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                        start_new_session=True,
                    )  # fmt: skip
                assert player.stdin is not None
                player.stdin.write(pcm.data)
                player.stdin.flush()
        except OSError:
            utterance.stop()  # the player is gone; the reply goes on as text
        finally:
            if player is not None:
                _end_player(player, at_once=utterance.stopped)


def _end_player(player: subprocess.Popen[bytes], *, at_once: bool) -> None:
    if at_once:
        player.kill()
    try:
        player.communicate()  # closes its input and waits until it has played everything
    except OSError:
        player.kill()
    player.wait()


def open_speech(name: str, folder: str | None) -> TerminalSpeech:
    """The voice called `name`, ready to speak. Raises UsageError without either a player or a folder."""
    from elysia.voice import registry
    from elysia.voice.streaming import TTSWorker

    file = registry.find_voice(name)
    speaker = TTSWorker(file.open(), speed=file.speed)
    speaker.warm()  # while the first message is typed
    return TerminalSpeech(speaker, Path(folder) if folder else None)
