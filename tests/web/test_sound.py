"""A reply as sound: hers alone, from its first word, silent when it is stopped."""

from __future__ import annotations

import struct

import pytest

from elysia.chat.accounts import Accounts
from elysia.chat.talk_settings import TalkSettings
from elysia.core.errors import StoreError, VoiceError
from elysia.voice.speaker import Speakers
from elysia.web.site import site_of
from elysia.web.sound import header, spoken_reply, voice_of
from tests.chat.conftest import make, service, url, user, whole  # noqa: F401
from tests.chat.echo import EchoEngine
from tests.web.stand_in import ToneVoice

SAID = "One sentence. Two sentences."


def with_voices(service, tmp_path, opened=None):  # noqa: F811
    site = site_of(service, tmp_path / "keys" / "web.key")

    def open_(name):
        if name == "missing":
            raise VoiceError("There is no voice 'missing'.")
        (opened if opened is not None else []).append(name)
        return ToneVoice(name), 1.0

    site.speakers = Speakers(open_)
    return site


def test_a_reply_is_a_wav_from_its_first_word(make, tmp_path):  # noqa: F811
    service = make(EchoEngine(pause=0.002, reply=lambda request: SAID))  # noqa: F811
    user = Accounts(service.database).local().id  # noqa: F811
    site = with_voices(service, tmp_path)
    id = service.new(user, ["elysia"], {"examples": False}).id
    reply = service.send(user, id, "speak")
    sound = b"".join(spoken_reply(site, user, id, reply))
    assert sound[:44] == header(16_000)
    assert len(sound) == 44 + 2 * 4 * 8000  # two sentences of four pieces, 4,000 samples each
    assert b"".join(spoken_reply(site, user, id, reply)) == sound  # again, from the store
    site.speakers.close()


def test_stopping_the_reply_silences_her(make, tmp_path):  # noqa: F811
    service = make(EchoEngine(pause=0.01))  # noqa: F811
    user = Accounts(service.database).local().id  # noqa: F811
    site = with_voices(service, tmp_path)
    id = service.new(user, ["elysia"], {"examples": False}).id
    reply = service.send(user, id, "One sentence. " * 150)
    pieces = spoken_reply(site, user, id, reply)
    next(pieces), next(pieces)
    service.stop(user, id)
    assert sum(1 for _ in pieces) < 200  # of 600
    site.speakers.close()


def test_nobody_elses_reply_is_heard(service, user, tmp_path):  # noqa: F811
    site = with_voices(service, tmp_path)
    other = Accounts(service.database).add("mallory", "a long password").id
    id = service.new(user, ["elysia"], {"examples": False}).id
    reply = service.send(user, id, "secret")
    with pytest.raises(StoreError, match="no such conversation"):
        spoken_reply(site, other, id, reply)
    whole(service, user, id, reply)
    service.set(user, id, voice_name="missing")
    with pytest.raises(VoiceError, match="no voice 'missing'"):
        spoken_reply(site, user, id, reply)
    site.speakers.close()


def test_the_chosen_voice_goes_before_the_cards_and_the_default(service, user):  # noqa: F811
    assert voice_of(service, user, "gone", TalkSettings()) == "espeak"
    assert voice_of(service, user, "elysia", TalkSettings(voice_name="silent")) == "silent"


def test_the_header_names_the_rate():
    assert struct.unpack("<I", header(24_000)[24:28]) == (24_000,)
