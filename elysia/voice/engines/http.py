"""A voice of another program, over HTTP: OpenAI's /v1/audio/speech, or GPT-SoVITS's api_v2.

Answers are WAV or bare PCM, passed on as they arrive. Keys come from the environment and are never
logged.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from elysia.core.errors import VoiceError
from elysia.voice.base import AudioChunk, check_request
from elysia.voice.frontend.language_id import detect_language
from elysia.voice.frontend.pipeline import normalize_text

MAX_REPLY_BYTES = 64 * 1024 * 1024  # 24 minutes at 22.05 kHz
_MAX_WAV_CHUNKS = 64
_MAX_WAV_CHUNK_BYTES = 65_536
_COMPRESSED = (b"ID3\x03", b"ID3\x04", b"OggS", b"fLaC", b"\xff\xfb", b"\xff\xf3")


class HttpEngine:
    """One of DIALECTS at `url`. Every call is a connection of its own without cookies, so that no state
    can mix up users.
    """

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
        """`rate` is that of bare PCM; `timeout` is the longest pause in seconds; `body` overrides the
        fields of a request.
        """
        if urlsplit(url).scheme not in ("http", "https"):
            raise VoiceError("voice.not_http", url=repr(url))
        if dialect not in DIALECTS:
            raise VoiceError("voice.unknown_dialect", dialect=dialect, known=[*DIALECTS])
        self._url = url.rstrip("/")
        self._dialect = dialect
        self._body = dict(body or {})
        self._key = key
        self._rate = rate
        self._timeout = timeout
        self._client: httpx.Client | None = None

    def synthesize(self, text: str, speed: float = 1.0) -> Iterator[AudioChunk]:
        """Audio as it arrives. Raises VoiceError when the program is away, refuses, or sends no audio."""
        check_request(text, speed)
        normalized = normalize_text(text)
        if not normalized:
            return
        path, body = DIALECTS[self._dialect](normalized, speed, self._body)
        headers = {"Accept": "audio/wav, audio/pcm", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            with self._open().stream("POST", self._url + path, json=body, headers=headers) as reply:
                # A redirect is refused like any other failure: it would carry the key to another host.
                if not reply.is_success:
                    detail = _ByteReader(reply.iter_bytes()).read(300).decode(errors="replace")
                    raise VoiceError(
                        "voice.http_refused", where=self._where, status=reply.status_code,
                        detail=detail.strip(),
                    )  # fmt: skip
                yield from iter_audio(reply.iter_bytes(), self._rate)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise VoiceError("voice.http_away", where=self._where, reason=reason) from None

    def _open(self) -> httpx.Client:
        if self._client is None:
            self._client = httpx.Client(
                timeout=self._timeout, limits=httpx.Limits(max_keepalive_connections=0)
            )
            self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        return self._client

    @property
    def _where(self) -> str:
        parts = urlsplit(self._url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

    def close(self) -> None:
        """Close the client."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


class _ByteReader:
    """Reads exact numbers of bytes from a stream of pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._buffer = b""

    def read(self, count: int) -> bytes:
        """`count` bytes; fewer only at the end of the stream."""
        while len(self._buffer) < count and (piece := next(self._pieces, None)) is not None:
            self._buffer += piece
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def rest(self) -> Iterator[bytes]:
        """Everything that has not been read, as it arrives."""
        yield self._buffer
        yield from self._pieces


def iter_audio(pieces: Iterable[bytes], rate: int) -> Iterator[AudioChunk]:
    """The audio of a streamed answer: a WAV file, whose header tells the rate, or bare PCM at `rate`."""
    reader = _ByteReader(pieces)
    head = reader.read(12)
    remainder = head
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        rate, remainder = _read_wav_header(reader), b""
    elif head.startswith(_COMPRESSED):
        raise VoiceError("voice.http_compressed")
    elif head[:1] in (b"{", b"<"):
        raise VoiceError("voice.http_text", text=repr((head + reader.read(200))[:200]))
    total = 0
    for piece in reader.rest():
        data = remainder + piece
        whole = len(data) & ~1  # a piece may end in the middle of a sample
        remainder = data[whole:]
        total += whole
        if total > MAX_REPLY_BYTES:
            raise VoiceError("voice.http_too_long", limit=MAX_REPLY_BYTES)
        if whole:
            yield AudioChunk(data[:whole], rate)


def _read_wav_header(reader: _ByteReader) -> int:
    """Read a WAV header up to its samples; returns the sample rate. Streams have no true length there."""
    rate = 0
    for _ in range(_MAX_WAV_CHUNKS):
        head = reader.read(8)
        if len(head) < 8:
            break
        name, size = head[:4], struct.unpack("<I", head[4:])[0]
        if name == b"data" and rate:
            return rate
        if size > _MAX_WAV_CHUNK_BYTES:
            break
        chunk = reader.read(size + size % 2)
        if name == b"fmt " and len(chunk) >= 16:
            kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", chunk[:16])
            # 1 is PCM, 0xFFFE the extensible form of it
            if (kind not in (1, 0xFFFE)) or channels != 1 or bits != 16:
                raise VoiceError("voice.http_not_mono16", channels=channels, bits=bits)
    raise VoiceError("voice.http_damaged_wav")


def _openai_request(text: str, speed: float, body: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    defaults = {"model": "tts-1", "voice": "alloy", "response_format": "pcm"}
    return "/v1/audio/speech", {**defaults, **body, "input": text, "speed": speed}


def _gpt_sovits_request(
    text: str, speed: float, body: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    defaults = {"media_type": "wav", "streaming_mode": True, "text_lang": detect_language(text)}
    return "/tts", {**defaults, **body, "text": text, "speed_factor": speed}


# name -> (text, speed, fields of the voice file) -> (path, body)
DIALECTS = {"openai": _openai_request, "gpt_sovits": _gpt_sovits_request}


def build(settings: Mapping[str, Any], folder: Path) -> HttpEngine:
    """From a voice file: `url`, `dialect`, `rate`, `timeout`, `key_env`, and a table `[voice.body]`."""
    if "url" not in settings:
        raise VoiceError("voice.http_no_url")
    return HttpEngine(
        settings["url"],
        settings.get("dialect", "openai"),
        body=settings.get("body"),
        key=os.environ.get(settings.get("key_env", ""), "") if settings.get("key_env") else "",
        rate=settings.get("rate", 24_000),
        timeout=settings.get("timeout", 30.0),
    )
