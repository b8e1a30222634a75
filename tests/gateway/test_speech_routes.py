"""Speech under OpenAI's paths: a request's sound is its own, and who leaves frees the voice."""

import base64
import io
import json
import threading
import time
import wave
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

from elysia.core.errors import VoiceError
from elysia.gateway.audio_formats import StreamEncoder, available_formats, encode_file
from elysia.gateway.speech_routes import MAX_CONCURRENT
from elysia.voice.audio import StreamResampler, resample_chunk
from elysia.voice.base import AudioChunk
from elysia.voice.registry import VoiceFile
from tests.gateway.parrot import KEY, MANNER, ParrotEngine, running

RATE = 24_000


class WhistleEngine:
    """Says each character as ten milliseconds of its own level; counts what it was asked."""

    def __init__(self):
        self.synthesized = 0
        self.closed = False
        self.gate = threading.Event()

    def synthesize(self, text, speed=1.0):
        if "fail" in text:
            raise VoiceError("The whistle broke.")
        for char in text:
            if "forever" in text:
                time.sleep(0.005)
            if "wait" in text:
                self.gate.wait(120)
            self.synthesized += 1
            yield AudioChunk(
                np.full(int(RATE / 100 / speed), ord(char) % 100 * 100, "<i2").tobytes(), RATE
            )
        while "forever" in text:
            time.sleep(0.005)
            self.synthesized += 1
            yield AudioChunk(bytes(480), RATE)

    def close(self):
        self.closed = True


class WhistleFile(VoiceFile):
    """A voice file that opens a whistle."""

    def open(self):
        return WHISTLES.setdefault(self.name, WhistleEngine())


WHISTLES: dict[str, WhistleEngine] = {}


@pytest.fixture(scope="module")
def client():
    files = {
        name: WhistleFile(name, "silent", Path(f"{name}.toml"), "A whistle.", speed)
        for name, speed in (("whistle", 1.0), ("quick", 2.0), ("other", 1.0))
    }
    with running([("parrot", ParrotEngine(), MANNER)], voices=files, max_waiting=2) as client:
        yield client
    assert all(whistle.closed for whistle in WHISTLES.values())


def ask(client, text, **changes):
    body = {"model": "tts-1", "voice": "whistle", "input": text, "response_format": "wav"}
    return client.post("/v1/audio/speech", json=body | changes)


def levels(text):
    return [ord(char) % 100 * 100 for char in text]


def heard(data):
    """The level of each ten milliseconds of a WAV."""
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return samples[120::240].tolist()


def test_a_wav_says_what_was_asked_for_and_nothing_else(client):
    answer = ask(client, "abc.")
    assert answer.status_code == 200 and answer.headers["content-type"] == "audio/wav"
    assert heard(answer.content) == levels("abc.")


def test_raw_samples_are_at_the_rate_that_openais_clients_expect(client):
    answer = ask(client, "abc.", response_format="pcm")
    assert np.frombuffer(answer.content, "<i2")[120::240].tolist() == levels("abc.")


def test_speed_is_the_requests_times_the_voices(client):
    assert len(ask(client, "abcd.", response_format="pcm").content) == 5 * 480
    assert len(ask(client, "abcd.", response_format="pcm", speed=2).content) == 5 * 240
    assert len(ask(client, "abcd.", response_format="pcm", voice="quick").content) == 5 * 240
    fastest = ask(client, "abcd.", response_format="pcm", voice="quick", speed=4)
    assert len(fastest.content) == 5 * 120, "beyond the fastest it is the fastest"


@pytest.mark.parametrize("form", ["flac", "mp3", "opus"])
def test_other_forms_are_files_that_a_player_reads(client, form):
    soundfile = pytest.importorskip("soundfile")
    answer = ask(client, "abcdefgh" * 8, response_format=form)
    samples, rate = soundfile.read(io.BytesIO(answer.content))
    assert abs(len(samples) / rate - 0.64) < 0.1
    assert answer.headers["content-type"] in ("audio/flac", "audio/mpeg", "audio/ogg")


def test_openais_own_client_streams_it(client):
    with (
        openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none") as api,
        api.audio.speech.with_streaming_response.create(
            model="tts-1", voice="whistle", input="abc.", response_format="pcm"
        ) as answer,
    ):
        data = b"".join(answer.iter_bytes())
    assert np.frombuffer(data, "<i2")[120::240].tolist() == levels("abc.")


def test_a_stream_of_audio_begins_before_the_voice_is_done(client):
    body = {
        "voice": "other",
        "input": "wait wait",
        "response_format": "wav",
        "stream_format": "audio",
    }
    WHISTLES.setdefault("other", WhistleEngine()).gate.clear()
    with client.stream("POST", "/v1/audio/speech", json=body | {"input": "forever"}) as answer:
        got = b""
        for data in answer.iter_raw():
            got += data
            if len(got) > 2000:
                break
    assert got[:4] == b"RIFF" and got[4:8] == b"\xff" * 4
    assert np.frombuffer(got[44:2444], "<i2")[120::240].tolist() == levels("forever")[:5]


@pytest.mark.parametrize(
    ("form", "starts", "header"),
    [("flac", b"fLaC", 100), ("mp3", b"\xff", 600), ("opus", b"OggS", 900)],
)
def test_other_forms_begin_before_the_voice_is_done_too(client, form, starts, header):
    soundfile = pytest.importorskip("soundfile")
    if form not in available_formats():
        pytest.skip(f"this libsndfile writes no {form}")
    body = {"voice": "other", "input": "forever", "response_format": form, "stream_format": "audio"}
    with client.stream("POST", "/v1/audio/speech", json=body) as answer:
        got = b""
        for data in answer.iter_raw():  # the voice never ends
            got += data
            if len(got) > header:
                break
    assert got.startswith(starts)
    with soundfile.SoundFile(io.BytesIO(got)) as file:
        assert file.samplerate == RATE and file.channels == 1


@pytest.mark.parametrize("form", ["flac", "mp3", "opus"])
def test_a_form_that_was_streamed_says_what_the_whole_file_says(form):
    soundfile = pytest.importorskip("soundfile")
    if form not in available_formats():
        pytest.skip(f"this libsndfile writes no {form}")
    tone = (np.sin(np.arange(3 * RATE) / 20) * 8000).astype("<i2")
    pieces = [AudioChunk(tone[at : at + 4800].tobytes(), RATE) for at in range(0, len(tone), 4800)]
    encoder = StreamEncoder(form, RATE)
    came = [encoder.push(piece.data) for piece in pieces]
    streamed = bytearray(b"".join(came) + encoder.flush(b""))
    assert len(b"".join(came[:10])) > 1000, "two seconds, and nothing had come"
    if form == "flac":  # libsndfile alone wants to know the length: 36 bits of STREAMINFO
        assert streamed[21] & 15 == 0 and not any(streamed[22:26])
        streamed[22:26] = len(tone).to_bytes(4, "big")
    whole, _ = soundfile.read(io.BytesIO(encode_file(form, pieces)))
    samples, rate = soundfile.read(io.BytesIO(streamed))
    assert rate == RATE and abs(len(samples) - len(whole)) <= 2400
    right = tone / 32768  # what a lossy form loses is a twentieth of it; silence would be all
    apart = min(np.abs(samples[late : late + 12000] - right[:12000]).mean() for late in range(2400))
    assert apart < 0.1 * np.abs(right).mean()


def test_events_carry_the_sound_and_end_with_a_count(client):
    answer = ask(client, "abc.", response_format="pcm", stream_format="sse")
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    sound = b"".join(base64.b64decode(e["audio"]) for e in events if e["type"].endswith("delta"))
    assert np.frombuffer(sound, "<i2")[120::240].tolist() == levels("abc.")
    assert events[-1]["type"] == "speech.audio.done"
    assert events[-1]["usage"]["input_tokens"] == 4


def test_listeners_at_once_hear_each_their_own(client):
    texts = [f"{chr(97 + n) * 9}{n}." for n in range(12)]
    with ThreadPoolExecutor(MAX_CONCURRENT + 2) as pool:
        answers = list(pool.map(lambda text: ask(client, text), texts))
    for text, answer in zip(texts, answers, strict=True):
        assert heard(answer.content) == levels(text)


def test_a_long_text_is_said_whole_however_many_sentences_it_has(client):
    text = "啊。" * 150
    assert len(ask(client, text, response_format="pcm").content) == len(text) * 480


def until(condition):
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_a_client_that_leaves_frees_the_voice(client):
    whistle = WHISTLES["whistle"]
    for changes in ({"stream_format": "audio"}, {}):
        with pytest.raises(httpx.ReadTimeout):
            body = {"voice": "whistle", "input": "forever", "response_format": "pcm"} | changes
            wait = httpx.Timeout(60, read=0.3)
            with client.stream("POST", "/v1/audio/speech", json=body, timeout=wait) as answer:
                for _ in answer.iter_raw():
                    raise httpx.ReadTimeout("left")

        def still():
            before = whistle.synthesized
            time.sleep(0.1)
            return whistle.synthesized == before

        assert until(still), "the voice goes on for nobody"
        assert heard(ask(client, "abc.").content) == levels("abc.")
    assert until(lambda: "elysia_silenced_total" in client.get("/metrics").text)


def test_a_voice_that_fails_is_a_503_and_in_events_an_event(client):
    answer = ask(client, "please fail.")
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "voice_error"
    assert "The whistle broke." in answer.json()["error"]["message"]
    late = ask(client, "啊。" * 40 + "fail.", stream_format="sse", response_format="pcm")
    assert late.status_code == 200
    assert json.loads(late.text.splitlines()[-2][6:])["error"]["code"] == "voice_error"


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"voice": "whistel"}, 404, "Did you mean 'whistle'"),
        ({"voice": "../whistle"}, 404, "There is no voice"),
        ({"input": ""}, 400, "input"),
        ({"input": "😊🌸"}, 400, "nothing in the input"),
        ({"input": "好" * 4097}, 400, "4096"),
        ({"speed": 9}, 400, "speed"),
        ({"response_format": "aac"}, 400, "not made here"),
        ({"response_format": "exe"}, 400, "response_format"),
        ({"stream_format": "chunks"}, 400, "stream_format"),
    ],
)
def test_bad_input_is_a_sentence(client, changes, status, words):
    answer = ask(client, "abc.", **changes)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]


def test_a_voice_may_be_named_as_an_object(client):
    assert ask(client, "abc.", voice={"id": "whistle"}).status_code == 200


def test_the_voices_are_listed(client):
    data = client.get("/v1/audio/voices").json()["data"]
    assert [voice["id"] for voice in data] == ["whistle", "quick", "other"]
    assert data[0]["description"] == "A whistle."


def test_without_a_key_nothing_is_said_and_the_rate_counts():
    file = WhistleFile("kept", "silent", Path("kept.toml"))
    with running(
        [("p", ParrotEngine(), MANNER)], voices={"kept": file}, keys=(KEY,), requests_per_minute=2
    ) as client:
        assert ask(client, "abc.", voice="kept").status_code == 401
        assert client.get("/v1/audio/voices").status_code == 401
        client.headers["Authorization"] = f"Bearer {KEY}"
        statuses = [ask(client, "abc.", voice="kept").status_code for _ in range(3)]
        assert statuses == [200, 200, 429]


def test_too_many_at_once_are_told_to_come_again(client):
    whistle = WHISTLES["whistle"]
    whistle.gate.clear()
    with ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(ask, client, f"wait {n}") for n in range(MAX_CONCURRENT + 2)]
        voices = client.app.state.voices
        assert until(lambda: voices.queue.waiting == 2)
        refused = ask(client, "abc.")
        whistle.gate.set()
        assert {job.result().status_code for job in waiting} == {200}
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1


def test_without_voices_the_path_says_so():
    with running([("p", ParrotEngine(), MANNER)]) as client:
        assert client.get("/v1/audio/voices").json()["data"] == []
        assert "there is none" in ask(client, "abc.").json()["error"]["message"]


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
def test_pieces_at_another_rate_join_without_a_seam(rate):
    random = np.random.default_rng(0)
    whole = (random.standard_normal(9000) * 3000).astype("<i2").tobytes()
    mould, pieces = StreamResampler(22_050, rate), []
    cuts = [0, 2, 4, 300, 302, 5000, 5002, 18_000]
    for start, end in pairwise(cuts):
        pieces.append(mould.push(whole[start:end]))
    pieces.append(mould.flush())
    assert b"".join(pieces) == resample_chunk(AudioChunk(whole, 22_050), rate).data
    assert sum(map(bool, pieces)) > 2, "sound comes before the end"


def test_serve_takes_voices_by_name_and_else_those_of_this_machine(tmp_path, monkeypatch, capsys):
    from elysia.cli.serve import load_voice_files

    monkeypatch.setenv("ELYSIA_VOICES", str(tmp_path))
    (tmp_path / "here.toml").write_text('engine = "silent"\n')
    (tmp_path / "far.toml").write_text('engine = "http"\nurl = "http://127.0.0.1:9/v1"\n')
    (tmp_path / "bad.toml").write_text("engine = nothing")
    assert list(load_voice_files([])) == ["here"]
    assert "bad.toml" in capsys.readouterr().err
    assert list(load_voice_files(["far"])) == ["far"]
    with pytest.raises(VoiceError, match="There is no voice 'nobody'"):
        load_voice_files(["nobody"])
