"""A reply as sound while it is written, for the one user whose reply it is.

Knows nothing of how it is played.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Iterable, Iterator

from elysia.chat.message_tree import STOPPED
from elysia.chat.service import ChatService
from elysia.chat.settings import ConversationSettings
from elysia.core.errors import ElysiaError, VoiceError
from elysia.voice.streaming import SpeechStream
from elysia.web.app_state import AppState

log = logging.getLogger(__name__)

DEFAULT_VOICE = "espeak"  # of a character whose card names none
SILENCE_TIMEOUT = 60.0  # seconds without a sound after which nobody waits any longer
UNKNOWN_LENGTH = 0x7FFFFFFF  # bytes of a WAV whose end is not known


def stream_reply_audio(site: AppState, user: str, talk: str, message: str) -> Iterator[bytes]:
    """A WAV of a reply, in pieces. StoreError when it is not the user's, VoiceError without a voice.

    Leaving the iterator silences her; so does stopping the reply.
    """
    return _stream_wav(start_speaking(site, user, talk, message))


def start_speaking(site: AppState, user: str, talk: str, message: str) -> SpeechStream:
    """A reply that is being said, or about to; the errors of `stream_reply_audio`."""
    line = site.service.store.line(user, talk, message)
    settings = ConversationSettings.of(site.service.store.get(user, talk).settings)
    speaker = site.speakers.get(get_voice_name(site.service, user, str(line.speaker), settings))
    utterance = speaker.open_stream(settings.speed)
    threading.Thread(
        target=_read_aloud, args=(site.service, user, talk, message, utterance), daemon=True
    ).start()
    return utterance


def preload_voices(
    site: AppState, user: str, guests: Iterable[str], settings: ConversationSettings
) -> None:
    """Have the guests' voices loaded before anybody speaks; does not wait, and fails in silence."""
    for guest in guests:
        try:
            site.speakers.get(get_voice_name(site.service, user, guest, settings)).warm()
        except VoiceError as error:
            log.info("No voice to load ahead: %s", error)


def get_voice_name(
    service: ChatService, user: str, speaker: str, settings: ConversationSettings
) -> str:
    """Whose voice: the one that was chosen, else the character's own, else the default."""
    if settings.voice_name:
        return settings.voice_name
    try:
        return service.characters.get(user, speaker).persona.voice or DEFAULT_VOICE
    except ElysiaError:  # her card is gone; what she said is not
        return DEFAULT_VOICE


def _read_aloud(
    service: ChatService, user: str, talk: str, message: str, utterance: SpeechStream
) -> None:
    try:
        live = service.is_busy(user, talk)
        for piece in service.follow(user, talk, message):
            if utterance.stopped:
                return
            utterance.write(piece)
        if live and service.store.line(user, talk, message).state == STOPPED:
            utterance.stop()
    except ElysiaError as error:  # deleted while she spoke
        log.info("She falls silent: %s", error)
        utterance.stop()
    finally:
        utterance.end()


def _stream_wav(utterance: SpeechStream) -> Iterator[bytes]:
    rate = None
    try:
        for spoken in utterance.sound(SILENCE_TIMEOUT):
            if rate is None:
                rate = spoken.audio.rate
                yield build_wav_header(rate)
            yield spoken.audio.data
        if rate is None:
            if utterance.fault:
                log.warning("%s", utterance.fault)
            yield build_wav_header(22_050)
    except VoiceError as error:
        log.warning("%s", error)


def build_wav_header(rate: int) -> bytes:
    """The header of a 16-bit mono WAV that goes on until the connection ends."""
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF", UNKNOWN_LENGTH, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16, b"data", UNKNOWN_LENGTH - 36,
    )  # fmt: skip
