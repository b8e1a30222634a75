"""A reply as audio while it is being written, for the one user whose reply it is."""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Iterable, Iterator

from elysia.chat.message_tree import MessageState
from elysia.chat.service import ChatService
from elysia.chat.settings import ConversationSettings
from elysia.core.errors import ElysiaError, VoiceError
from elysia.voice.streaming import SpeechStream
from elysia.web.app_state import AppState

log = logging.getLogger(__name__)

DEFAULT_VOICE = "espeak"  # of a character whose card names none
SILENCE_TIMEOUT = 60.0  # seconds without a sound after which nobody waits any longer
UNKNOWN_LENGTH = 0x7FFFFFFF  # bytes, in the header of a WAV that is still being made
DEFAULT_RATE = 22_050  # Hz, of a WAV without any sound


def stream_reply_audio(
    state: AppState, user: str, conversation: str, message: str
) -> Iterator[bytes]:
    """A WAV of a reply, in chunks. StoreError when it is not the user's, VoiceError without a voice.

    Leaving the iterator silences the voice; so does stopping the reply.
    """
    return _stream_wav(start_speaking(state, user, conversation, message))


def start_speaking(state: AppState, user: str, conversation: str, message: str) -> SpeechStream:
    """The speech of a reply, begun in a thread; raises what `stream_reply_audio` raises."""
    service = state.service
    speaker = str(service.store.get_message(user, conversation, message).speaker)
    settings = ConversationSettings.load(service.store.get(user, conversation).settings)
    voice = state.voices.get(get_voice_name(service, user, speaker, settings))
    speech = voice.open_stream(settings.speed)
    arguments = (service, user, conversation, message, speech)
    threading.Thread(target=_read_aloud, args=arguments, daemon=True).start()
    return speech


def preload_voices(
    state: AppState, user: str, guests: Iterable[str], settings: ConversationSettings
) -> None:
    """Begin to load the characters' voices before anybody speaks; does not wait, and only logs errors."""
    for guest in guests:
        try:
            state.voices.get(get_voice_name(state.service, user, guest, settings)).warm()
        except VoiceError as error:
            log.info("No voice to load ahead: %s", error)


def get_voice_name(
    service: ChatService, user: str, speaker: str, settings: ConversationSettings
) -> str:
    """The voice that was chosen, else the character's own, else the default."""
    if settings.voice_name:
        return settings.voice_name
    try:
        return service.characters.get(user, speaker).persona.voice or DEFAULT_VOICE
    except ElysiaError:  # the card was removed, its replies were not
        return DEFAULT_VOICE


def _read_aloud(
    service: ChatService, user: str, conversation: str, message: str, speech: SpeechStream
) -> None:
    try:
        is_growing = service.is_busy(user, conversation)
        for chunk in service.follow(user, conversation, message):
            if speech.stopped:
                return
            speech.write(chunk)
        # A reply that is stopped now is silenced; one that was stopped long ago is read to its end.
        state = service.store.get_message(user, conversation, message).state
        if is_growing and state == MessageState.STOPPED:
            speech.stop()
    except ElysiaError as error:  # deleted while it was spoken
        log.info("A reply is not read to its end: %s", error)
        speech.stop()
    finally:
        speech.end()


def _stream_wav(speech: SpeechStream) -> Iterator[bytes]:
    rate = None
    try:
        for spoken in speech.sound(SILENCE_TIMEOUT):
            if rate is None:
                rate = spoken.audio.rate
                yield build_wav_header(rate)
            yield spoken.audio.data
        if rate is None:
            if speech.fault:
                log.warning("%s", speech.fault)
            yield build_wav_header(DEFAULT_RATE)
    except VoiceError as error:
        log.warning("%s", error)


def build_wav_header(rate: int) -> bytes:
    """The header of a 16-bit mono WAV that goes on until the connection ends; `rate` in Hz."""
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF", UNKNOWN_LENGTH, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16, b"data",
        UNKNOWN_LENGTH - 36,
    )  # fmt: skip
