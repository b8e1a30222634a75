"""A reply as sound: hers alone, from its first word, silent when it is stopped."""

from __future__ import annotations

import json
import struct
import time

import pytest

from elysia.chat.accounts import AccountStore
from elysia.chat.settings import ConversationSettings
from elysia.core.errors import StoreError, VoiceError
from elysia.voice.streaming import TTSWorkerPool
from elysia.web.app_state import build_app_state
from elysia.web.reply_audio import build_wav_header, get_voice_name, stream_reply_audio
from tests.chat.conftest import make, service, url, user, whole  # noqa: F401
from tests.chat.echo import EchoEngine
from tests.web.stand_in import ToneVoice

SAID = "One sentence. Two sentences."


def with_voices(service, tmp_path, opened=None):  # noqa: F811
    site = build_app_state(service, tmp_path / "keys" / "web.key")

    def open_(name):
        if name == "missing":
            raise VoiceError("There is no voice 'missing'.")
        (opened if opened is not None else []).append(name)
        return ToneVoice(name), 1.0

    site.voices = TTSWorkerPool(open_)
    return site


def test_a_reply_is_a_wav_from_its_first_word(make, tmp_path):  # noqa: F811
    service = make(EchoEngine(pause=0.002, reply=lambda request: SAID))  # noqa: F811
    user = AccountStore(service.database).local().id  # noqa: F811
    site = with_voices(service, tmp_path)
    id = service.create(user, ["elysia"], {"examples": False}).id
    reply = service.send(user, id, "speak")
    sound = b"".join(stream_reply_audio(site, user, id, reply))
    assert sound[:44] == build_wav_header(16_000)
    assert len(sound) == 44 + 2 * 4 * 8000  # two sentences of four pieces, 4,000 samples each
    assert b"".join(stream_reply_audio(site, user, id, reply)) == sound  # again, from the store
    site.voices.close()


def test_stopping_the_reply_silences_her(make, tmp_path):  # noqa: F811
    service = make(EchoEngine(pause=0.01))  # noqa: F811
    user = AccountStore(service.database).local().id  # noqa: F811
    site = with_voices(service, tmp_path)
    id = service.create(user, ["elysia"], {"examples": False}).id
    reply = service.send(user, id, "One sentence. " * 150)
    pieces = stream_reply_audio(site, user, id, reply)
    next(pieces), next(pieces)
    service.stop(user, id)
    assert sum(1 for _ in pieces) < 200  # of 600
    site.voices.close()


def test_nobody_elses_reply_is_heard(service, user, tmp_path):  # noqa: F811
    site = with_voices(service, tmp_path)
    other = AccountStore(service.database).add("mallory", "a long password").id
    id = service.create(user, ["elysia"], {"examples": False}).id
    reply = service.send(user, id, "secret")
    with pytest.raises(StoreError, match="no such conversation"):
        stream_reply_audio(site, other, id, reply)
    whole(service, user, id, reply)
    service.update_settings(user, id, voice_name="missing")
    with pytest.raises(VoiceError, match="no voice 'missing'"):
        stream_reply_audio(site, user, id, reply)
    site.voices.close()


def test_the_chosen_voice_goes_before_the_cards_and_the_default(service, user):  # noqa: F811
    assert get_voice_name(service, user, "gone", ConversationSettings()) == "espeak"
    assert (
        get_voice_name(service, user, "elysia", ConversationSettings(voice_name="silent"))
        == "silent"
    )


def test_the_header_names_the_rate():
    assert struct.unpack("<I", build_wav_header(24_000)[24:28]) == (24_000,)


def test_a_groups_replies_are_said_each_in_her_own_voice(make, tmp_path):  # noqa: F811
    service = make(EchoEngine(reply=lambda request: SAID))  # noqa: F811
    user = AccountStore(service.database).local().id  # noqa: F811
    opened = []
    site = with_voices(service, tmp_path, opened)
    card = {
        "name": "Mira",
        "description": "x",
        "first_mes": "",
        "extensions": {"elysia": {"voice": "hers"}},
    }
    document = {"spec": "chara_card_v2", "spec_version": "2.0", "data": card}
    mira = service.characters.add(user, "mira.json", json.dumps(document).encode()).key
    id = service.create(user, ["elysia", mira], {"examples": False, "round": 2}).id
    whole(service, user, id, service.send(user, id, "大家好"))
    while service.is_busy(user, id):
        time.sleep(0.01)
    replies = [line for line in service.get_messages(user, id) if line.role == "assistant"][-2:]
    sounds = [b"".join(stream_reply_audio(site, user, id, line.id)) for line in replies]
    assert {line.speaker for line in replies} == {"elysia", mira} and len(set(opened)) == 2
    assert "hers" in opened and all(len(sound) > 44 for sound in sounds)
    site.voices.close()
