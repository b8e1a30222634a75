"""A voice that another program has: OpenAI's /v1/audio/speech, or GPT-SoVITS's api_v2.

Answers are WAV or bare PCM and are passed on as they arrive. Keys come from the environment and are
never logged. Knows nothing of how those programs speak.
"""

from __future__ import annotations

import json
import os
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from elysia.core.errors import VoiceError
from elysia.voice.base import AudioChunk, check_request
from elysia.voice.frontend.language_id import detect_language
from elysia.voice.frontend.pipeline import normalize_text

READ_BYTES = 8192  # bytes read at a time
MAX_REPLY_BYTES = 64 * 1024 * 1024  # bytes: 24 minutes at 22.05 kHz
_MAX_WAV_CHUNKS = 64


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host; it is refused like any other answer."""

    def redirect_request(self, *args: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


class HttpEngine:
    """One of DIALECTS at `url`. Each call is a request of its own, so no state can mix up users."""

    def __init__(
        self,
        url: str,
        dialect: str = "openai",
        *,
        body: Mapping[str, Any] | None = None,
        key: str = "",
        rate: int = 24_000,
        timeout: float = 30.0,
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise VoiceError(f"The address of a voice is http:// or https://, not {url!r}.")
        if dialect not in DIALECTS:
            raise VoiceError(f"There is no dialect '{dialect}', only {', '.join(DIALECTS)}.")
        self._url = url.rstrip("/")
        self._dialect = dialect
        self._body = dict(body or {})
        self._key = key
        self._rate = rate
        self._timeout = timeout

    def synthesize(self, text: str, speed: float = 1.0) -> Iterator[AudioChunk]:
        """Sound as it arrives. VoiceError when the program is away, refuses, or sends no sound."""
        check_request(text, speed)
        said = normalize_text(text)
        if not said:
            return
        path, body = DIALECTS[self._dialect](said, speed, self._body)
        headers = {"Content-Type": "application/json", "Accept": "audio/wav, audio/pcm"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(
            self._url + path, json.dumps(body).encode(), headers, method="POST"
        )
        try:
            with _OPENER.open(request, timeout=self._timeout) as reply:
                yield from iter_audio(reply, self._rate)
        except urllib.error.HTTPError as error:
            detail = error.read(300).decode(errors="replace").strip()
            raise VoiceError(
                f"The voice at {self._where} refused ({error.code}): {detail}"
            ) from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise VoiceError(
                f"The voice at {self._where} did not answer: {reason}. Is the program running?"
            ) from None

    @property
    def _where(self) -> str:
        parts = urlsplit(self._url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

    def close(self) -> None:
        """Nothing stays open between calls."""


def iter_audio(reply: BinaryIO, rate: int) -> Iterator[AudioChunk]:
    """The sound of a streamed answer: a WAV file, whose header says the rate, or bare PCM at `rate`."""
    head = reply.read(12)
    left = head
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        rate, left = _read_wav_header(reply), b""
    elif head[:4] in (b"ID3\x03", b"ID3\x04", b"OggS", b"fLaC") or head[:2] in (
        b"\xff\xfb",
        b"\xff\xf3",
    ):
        raise VoiceError("The voice sent a compressed file; ask it for wav or pcm.")
    elif head[:1] in (b"{", b"<"):
        raise VoiceError(
            f"The voice sent text instead of sound: {(head + reply.read(200))[:200]!r}"
        )
    total = 0
    while True:
        data = left + reply.read(READ_BYTES - len(left))
        even, left = data[: len(data) & ~1], data[len(data) & ~1 :]
        if not even:
            return
        total += len(even)
        if total > MAX_REPLY_BYTES:
            raise VoiceError(f"The voice sent more than {MAX_REPLY_BYTES} bytes for one sentence.")
        yield AudioChunk(even, rate)


def _read_wav_header(reply: BinaryIO) -> int:
    """Read a WAV header up to its samples; the rate. Streams have no true length in theirs."""
    rate = 0
    for _ in range(_MAX_WAV_CHUNKS):
        head = reply.read(8)
        if len(head) < 8:
            break
        name, size = head[:4], struct.unpack("<I", head[4:])[0]
        if name == b"data" and rate:
            return rate
        if size > 65536:
            break
        chunk = reply.read(size + size % 2)
        if name == b"fmt " and len(chunk) >= 16:
            kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", chunk[:16])
            if (kind not in (1, 0xFFFE)) or channels != 1 or bits != 16:
                raise VoiceError(
                    f"The voice sends WAV with {channels} channels of {bits} bits; 16-bit mono is needed."
                )
    raise VoiceError("The voice sent a damaged WAV file: it has no samples behind its header.")


def _openai_request(text: str, speed: float, body: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    asked = {"model": "tts-1", "voice": "alloy", "response_format": "pcm", **body}
    return "/v1/audio/speech", {**asked, "input": text, "speed": speed}


def _gpt_sovits_request(
    text: str, speed: float, body: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    asked = {
        "media_type": "wav",
        "streaming_mode": True,
        "text_lang": detect_language(text),
        **body,
    }
    return "/tts", {**asked, "text": text, "speed_factor": speed}


DIALECTS = {"openai": _openai_request, "gpt_sovits": _gpt_sovits_request}


def build(settings: Mapping[str, Any], folder: Path) -> HttpEngine:
    """From a voice file: `url`, `dialect`, `rate`, `timeout`, `key_env`, and a table `[voice.body]`."""
    if "url" not in settings:
        raise VoiceError("A voice of engine http needs a url, such as http://127.0.0.1:9880.")
    return HttpEngine(
        settings["url"],
        settings.get("dialect", "openai"),
        body=settings.get("body"),
        key=os.environ.get(settings.get("key_env", ""), "") if settings.get("key_env") else "",
        rate=settings.get("rate", 24_000),
        timeout=settings.get("timeout", 30.0),
    )
