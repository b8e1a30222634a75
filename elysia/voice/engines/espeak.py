"""eSpeak NG: robotic, intelligible, nothing to download, and in a process of its own.

eSpeak NG is GPL-3, so it is an optional package (espeakng-loader) that only the child process
loads; this file speaks to it through pipes. Chinese and English inside one sentence are said by a
voice each. Knows nothing of phonemes: eSpeak has its own.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from elysia.core.errors import VoiceError
from elysia.voice.base import AudioChunk, check_request
from elysia.voice.engines.espeak_process import FAULT, READY, SOUND
from elysia.voice.frontend import language_id
from elysia.voice.frontend.pipeline import normalize_text

log = logging.getLogger(__name__)

NOTICE = "This voice is eSpeak NG (GPL-3, package espeakng-loader), run as a program of its own."
DEFAULT_VOICES = {"zh": "cmn", "en": "en-us", "ja": "ja", "ko": "ko"}


class EspeakEngine:
    """A child that speaks; started at the first sentence, one sentence at a time."""

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
        """Sound as eSpeak makes it. VoiceError when it is not installed or its process died."""
        check_request(text, speed)
        said = normalize_text(text)
        with self._lock:
            for span in language_id.split_languages(said) if said else ():
                if any(char.isalnum() for char in span.text):
                    yield from self._say(span, speed)

    def _say(self, span: language_id.LanguageSpan, speed: float) -> Iterator[AudioChunk]:
        child = self._started()
        name = self._voices.get(span.language, self._voices["en"])
        voice = f"{name}+{self._variant}" if self._variant else name
        asked = {"text": span.text, "voice": voice, "speed": speed, "pitch": self._pitch}
        finished = False
        try:
            assert child.stdin is not None
            child.stdin.write(json.dumps(asked).encode() + b"\n")
            child.stdin.flush()
            while not finished:
                kind, data = self._frame(child)
                finished = kind != SOUND
                if kind == FAULT:
                    raise VoiceError(data.decode())
                if kind == SOUND:
                    yield AudioChunk(data, self._rate)
        except OSError as error:
            raise self._died() from error
        finally:
            if not finished and self._child is child:
                self._finish(child)

    def _finish(self, child: subprocess.Popen[bytes]) -> None:
        """Read what is left of a sentence nobody hears; it is made in milliseconds."""
        try:
            while self._frame(child)[0] == SOUND:
                pass
        except (VoiceError, OSError):
            self._stop()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._stop()
        if importlib.util.find_spec("espeakng_loader") is None:
            raise VoiceError(
                "eSpeak NG is not installed. It is GPL-3 and therefore optional: "
                "pip install espeakng-loader==0.2.4"
            )
        log.info(NOTICE)
        root = str(Path(__file__).resolve().parents[3])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self._child = subprocess.Popen(
            [sys.executable, "-m", "elysia.voice.engines.espeak_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,  # Ctrl-C in a terminal is ours to handle
        )  # fmt: skip
        kind, data = self._frame(self._child)
        if kind != READY:
            self._stop()
            raise VoiceError(data.decode())
        self._rate = int(data)
        return self._child

    def _frame(self, child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        assert child.stdout is not None
        head = child.stdout.read(5)
        if len(head) < 5:
            raise self._died()
        (length,) = struct.unpack("<I", head[1:])
        data = child.stdout.read(length)
        if len(data) < length:
            raise self._died()
        return head[:1], data

    def _died(self) -> VoiceError:
        code = self._child.poll() if self._child else None
        self._stop()
        return VoiceError(f"The process of eSpeak NG ended (exit code {code}); it starts anew.")

    def _stop(self) -> None:
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
        """End the child."""
        with self._lock:
            self._stop()


def build(settings: Mapping[str, Any], folder: Path) -> EspeakEngine:
    """From a voice file: `variant` (such as f2, m3), `pitch` (0 to 99), `languages` (zh = "cmn")."""
    pitch = settings.get("pitch", 60)
    if not 0 <= pitch <= 99:
        raise VoiceError(f"pitch is {pitch}; eSpeak takes 0 to 99.")
    return EspeakEngine(
        settings.get("languages"), variant=settings.get("variant", "f2"), pitch=pitch
    )
