"""eSpeak NG: robotic but intelligible, with nothing to download, in a process of its own.

eSpeak NG is GPL-3, so it is an optional package (espeakng-loader) that only the child process loads;
this module talks to it through pipes. A sentence that mixes Chinese and English is spoken by one eSpeak
voice per language.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from elysia.core.errors import VoiceError
from elysia.voice.base import AudioChunk, check_request
from elysia.voice.engines import espeak_process
from elysia.voice.engines.espeak_process import FAULT, READY, SOUND
from elysia.voice.frontend.language_id import LanguageSpan, split_languages
from elysia.voice.frontend.pipeline import normalize_text

log = logging.getLogger(__name__)

NOTICE = "This voice is eSpeak NG (GPL-3, package espeakng-loader), run as a program of its own."
DEFAULT_VOICES = {"zh": "cmn", "en": "en-us", "ja": "ja", "ko": "ko"}


class EspeakEngine:
    """A child process that speaks one sentence at a time; started at the first sentence."""

    def __init__(
        self, voices: Mapping[str, str] | None = None, *, variant: str = "f2", pitch: int = 60
    ) -> None:
        self._voices = {**DEFAULT_VOICES, **(voices or {})}
        self._variant = variant
        self._pitch = pitch
        self._child: subprocess.Popen[bytes] | None = None
        self._rate = 0
        self._lock = threading.Lock()

    def synthesize(self, text: str, speed: float = 1.0) -> Iterator[AudioChunk]:
        """Audio as eSpeak makes it. Raises VoiceError when it is not installed or its process died."""
        check_request(text, speed)
        normalized = normalize_text(text)
        with self._lock:
            for span in split_languages(normalized) if normalized else ():
                if any(char.isalnum() for char in span.text):
                    yield from self._speak(span, speed)

    def _speak(self, span: LanguageSpan, speed: float) -> Iterator[AudioChunk]:
        child = self._ensure_child()
        name = self._voices.get(span.language, self._voices["en"])
        voice = f"{name}+{self._variant}" if self._variant else name
        request = {"text": span.text, "voice": voice, "speed": speed, "pitch": self._pitch}
        finished = False
        try:
            assert child.stdin is not None
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
            while not finished:
                kind, data = self._read_frame(child)
                finished = kind != SOUND
                if kind == FAULT:
                    raise VoiceError("voice.espeak_no_voice", name=data.decode())
                if kind == SOUND:
                    yield AudioChunk(data, self._rate)
        except OSError as error:
            raise self._child_died() from error
        finally:
            if not finished and self._child is child:
                self._drain(child)

    def _drain(self, child: subprocess.Popen[bytes]) -> None:
        """Read the rest of a sentence that nobody hears; eSpeak makes it in milliseconds."""
        try:
            while self._read_frame(child)[0] == SOUND:
                pass
        except (VoiceError, OSError):
            self._stop_child()

    def _ensure_child(self) -> subprocess.Popen[bytes]:
        """The running child process, started when there is none."""
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._stop_child()
        if importlib.util.find_spec("espeakng_loader") is None:
            raise VoiceError("voice.espeak_missing")
        log.info(NOTICE)
        self._child = subprocess.Popen(
            # As a file, not as a module: the child then loads nothing of this package. -P keeps the
            # file's folder off its path, where http.py would stand in for the standard library's.
            [sys.executable, "-P", espeak_process.__file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is for this process to handle
        )  # fmt: skip
        kind, data = self._read_frame(self._child)
        if kind != READY:
            self._stop_child()
            raise VoiceError("voice.espeak_no_data")
        self._rate = int(data)
        return self._child

    def _read_frame(self, child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        """(kind, data) of the child's next frame."""
        assert child.stdout is not None
        head = child.stdout.read(5)
        if len(head) < 5:
            raise self._child_died()
        (length,) = struct.unpack("<I", head[1:])
        data = child.stdout.read(length)
        if len(data) < length:
            raise self._child_died()
        return head[:1], data

    def _child_died(self) -> VoiceError:
        status = self._child.poll() if self._child else None
        self._stop_child()
        return VoiceError("voice.espeak_died", status=str(status))

    def _stop_child(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue
        try:
            child.wait(timeout=2)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def close(self) -> None:
        """End the child process."""
        with self._lock:
            self._stop_child()


def build(settings: Mapping[str, Any], folder: Path) -> EspeakEngine:
    """From a voice file: `variant` (such as f2, m3), `pitch` (0 to 99), `languages` (zh = "cmn")."""
    pitch = settings.get("pitch", 60)
    if not 0 <= pitch <= 99:
        raise VoiceError("voice.bad_pitch", pitch=pitch)
    return EspeakEngine(
        settings.get("languages"), variant=settings.get("variant", "f2"), pitch=pitch
    )
