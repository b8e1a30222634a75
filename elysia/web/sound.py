"""A reply as sound while it is written, for the one user whose reply it is.

Knows nothing of how it is played.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Iterable, Iterator

from elysia.chat.service import ChatService
from elysia.chat.talk_settings import TalkSettings
from elysia.chat.tree import STOPPED
from elysia.core.errors import ElysiaError, VoiceError
from elysia.voice.speaker import Utterance
from elysia.web.site import Site

log = logging.getLogger(__name__)

DEFAULT_VOICE = "espeak"  # of a character whose card names none
SILENCE = 60.0  # seconds without a sound after which nobody waits any longer
ENDLESS = 0x7FFFFFFF  # bytes of a WAV whose end is not known


def spoken_reply(site: Site, user: str, talk: str, message: str) -> Iterator[bytes]:
    """A WAV of a reply, in pieces. StoreError when it is not the user's, VoiceError without a voice.

    Leaving the iterator silences her; so does stopping the reply.
    """
    return _wav(begun(site, user, talk, message))


def begun(site: Site, user: str, talk: str, message: str) -> Utterance:
    """A reply that is being said, or about to; the errors of `spoken_reply`."""
    line = site.service.store.line(user, talk, message)
    settings = TalkSettings.of(site.service.store.get(user, talk).settings)
    speaker = site.speakers.of(voice_of(site.service, user, str(line.speaker), settings))
    utterance = speaker.begin(settings.speed)
    threading.Thread(
        target=_read_aloud, args=(site.service, user, talk, message, utterance), daemon=True
    ).start()
    return utterance


def warm(site: Site, user: str, guests: Iterable[str], settings: TalkSettings) -> None:
    """Have the guests' voices loaded before anybody speaks; does not wait, and fails in silence."""
    for guest in guests:
        try:
            site.speakers.of(voice_of(site.service, user, guest, settings)).warm()
        except VoiceError as error:
            log.info("No voice to load ahead: %s", error)


def voice_of(service: ChatService, user: str, speaker: str, settings: TalkSettings) -> str:
    """Whose voice: the one that was chosen, else the character's own, else the default."""
    if settings.voice_name:
        return settings.voice_name
    try:
        return service.cast.get(user, speaker).persona.voice or DEFAULT_VOICE
    except ElysiaError:  # her card is gone; what she said is not
        return DEFAULT_VOICE


def _read_aloud(
    service: ChatService, user: str, talk: str, message: str, utterance: Utterance
) -> None:
    try:
        live = service.busy(user, talk)
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


def _wav(utterance: Utterance) -> Iterator[bytes]:
    rate = None
    try:
        for spoken in utterance.sound(SILENCE):
            if rate is None:
                rate = spoken.pcm.rate
                yield header(rate)
            yield spoken.pcm.data
        if rate is None:
            if utterance.fault:
                log.warning("%s", utterance.fault)
            yield header(22_050)
    except VoiceError as error:
        log.warning("%s", error)


def header(rate: int) -> bytes:
    """The header of a 16-bit mono WAV that goes on until the connection ends."""
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF", ENDLESS, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16, b"data", ENDLESS - 36,
    )  # fmt: skip
