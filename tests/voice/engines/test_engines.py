"""Voices that need no model: silence, eSpeak in its process, other programs over HTTP."""

import json
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from elysia.core.errors import VoiceError
from elysia.voice.audio import encode_wav, resample_chunk
from elysia.voice.base import MAX_TEXT_CHARS, AudioChunk
from elysia.voice.engines.espeak import EspeakEngine
from elysia.voice.engines.http import HttpEngine
from elysia.voice.engines.silent import SilentEngine

TONE = b"".join(struct.pack("<h", (i % 50) * 300 - 7500) for i in range(12_000))
SHOWN = ("", "😊", "……", "*点头*", "\x00\x1b[0m")  # nothing of these is said


@pytest.fixture(scope="module")
def espeak():
    voice = EspeakEngine()
    yield voice
    voice.close()


def test_silence_lasts_as_long_as_the_text():
    short, long = (
        sum(p.seconds for p in SilentEngine().synthesize(t)) for t in ("你好", "你好" * 5)
    )
    assert long == pytest.approx(5 * short)
    assert not any(any(p.data) for p in SilentEngine().synthesize("你好"))


def test_espeak_speaks_chinese_english_and_both(espeak):
    seconds = [
        sum(p.seconds for p in espeak.synthesize(t))
        for t in ("你好，世界。", "Hello world.", "我爱Python。")
    ]
    assert all(s > 0.4 for s in seconds)
    assert {p.rate for p in espeak.synthesize("好")} == {22050}


def test_espeak_speaks_faster_when_asked(espeak):
    slow, fast = (sum(p.seconds for p in espeak.synthesize("今天天气不错", s)) for s in (0.5, 2.0))
    assert slow > 2 * fast


@pytest.mark.parametrize("text", SHOWN)
def test_nothing_to_say_gives_no_sound(espeak, text):
    assert list(espeak.synthesize(text)) == []
    assert list(SilentEngine().synthesize(text)) == []


def test_a_listener_who_leaves_does_not_hear_the_rest_next_time(espeak):
    alone = sum(p.seconds for p in espeak.synthesize("再见"))
    sound = espeak.synthesize("这是很长的一句话，" * 20)
    next(sound)
    sound.close()
    assert sum(p.seconds for p in espeak.synthesize("再见")) == alone


def test_espeak_starts_anew_when_its_process_died():
    voice = EspeakEngine()
    assert list(voice.synthesize("好"))
    voice._child.kill()
    voice._child.wait()
    assert list(voice.synthesize("好"))
    voice.close()


def test_no_process_is_left_when_a_voice_is_closed():
    voice = EspeakEngine()
    list(voice.synthesize("好"))
    child = voice._child
    voice.close()
    assert child.poll() is not None


def test_a_process_whose_parent_is_gone_ends_by_itself():
    voice = EspeakEngine()
    list(voice.synthesize("好"))
    child = voice._child
    child.stdin.close()  # what the end of a parent does
    assert child.wait(60) == 0
    voice.close()


def test_an_unknown_espeak_voice_is_a_sentence():
    voice = EspeakEngine({"zh": "nosuch"}, variant="")
    with pytest.raises(VoiceError, match="no voice 'nosuch'"):
        list(voice.synthesize("好"))
    assert list(voice.synthesize("good")), "another language still speaks"
    voice.close()


@pytest.mark.parametrize("speed", [0, 0.1, 9, float("nan")])
def test_a_speed_out_of_range_is_refused(espeak, speed):
    for voice in (espeak, SilentEngine()):
        with pytest.raises(VoiceError, match="out of range"):
            list(voice.synthesize("好", speed))


def test_a_text_too_long_for_one_call_is_refused(espeak):
    with pytest.raises(VoiceError, match="too many for one call"):
        list(espeak.synthesize("好" * (MAX_TEXT_CHARS + 1)))


# Other programs ------------------------------------------------------------------------------


def streamed_wav(rate, channels=1):
    """A WAV header as streaming servers write it, with no true length, and the tone."""
    fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * 2, 2, 16)
    return (
        b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<I", 16) + fmt
        + b"LIST\x04\x00\x00\x00abcd" + b"data\xff\xff\xff\xff" + TONE
    )  # fmt: skip


class SpeechHandler(BaseHTTPRequestHandler):
    """A small speech server: what it answers depends on the path's first part."""

    requests: list = []
    gone = threading.Event()

    def do_POST(self):
        kind, _, path = self.path[1:].partition("/")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append((path, body, self.headers.get("Authorization")))
        if kind == "refuses":
            return self.answer(400, b'{"error": "no such voice"}')
        if kind == "moves":
            self.send_response(307)
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            return self.end_headers()
        if kind == "hangs":
            self.gone.wait(60)  # longer than anybody waits
        sounds = {"wav": streamed_wav(32_000), "stereo": streamed_wav(32_000, 2), "text": b"<html>sorry</html>",
                  "mp3": b"ID3\x04" + TONE, "cut": b"RIFF\xff\xff\xff\xffWAVEfmt "}  # fmt: skip
        self.answer(200, sounds.get(kind, TONE))

    def answer(self, code, data):
        self.send_response(code)
        self.end_headers()
        for at in range(0, len(data), 999):  # odd pieces: samples are cut in the middle
            self.wfile.write(data[at : at + 999])

    def log_message(self, *args):
        pass


class QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that leave early, which some tests do."""

    def handle_error(self, request, client_address):
        pass


@pytest.fixture(scope="module")
def server():
    server = QuietServer(("127.0.0.1", 0), SpeechHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_openai_gives_bare_samples_at_the_declared_rate(server):
    voice = HttpEngine(f"{server}/pcm", body={"voice": "nova"}, key="secret", rate=24_000)
    pieces = list(voice.synthesize("**你好**😊", 1.5))
    assert b"".join(p.data for p in pieces) == TONE
    assert {p.rate for p in pieces} == {24_000}
    path, body, key = SpeechHandler.requests[-1]
    assert path == "v1/audio/speech" and key == "Bearer secret"
    assert body["input"] == "你好" and body["speed"] == 1.5 and body["voice"] == "nova"


def test_gpt_sovits_gives_wav_whose_header_says_the_rate(server):
    voice = HttpEngine(f"{server}/wav", "gpt_sovits", body={"ref_audio_path": "a.wav"}, rate=24_000)
    pieces = list(voice.synthesize("Hello."))
    assert b"".join(p.data for p in pieces) == TONE
    assert {p.rate for p in pieces} == {32_000}
    path, body, _ = SpeechHandler.requests[-1]
    assert path == "tts" and body["text_lang"] == "en" and body["ref_audio_path"] == "a.wav"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("refuses", "refused.*no such voice"),
        ("moves", "refused"),
        ("stereo", "2 channels"),
        ("text", "text instead of sound"),
        ("mp3", "compressed"),
        ("cut", "damaged WAV"),
    ],
)
def test_what_is_no_sound_is_a_sentence(server, kind, words):
    with pytest.raises(VoiceError, match=words):
        list(HttpEngine(f"{server}/{kind}", key="secret").synthesize("好"))


def test_a_program_that_is_not_there_or_hangs_is_a_sentence(server):
    with pytest.raises(VoiceError, match=r"127\.0\.0\.1:9 did not answer"):
        list(HttpEngine("http://127.0.0.1:9").synthesize("好"))
    with pytest.raises(VoiceError, match="did not answer"):
        list(HttpEngine(f"{server}/hangs", timeout=0.3).synthesize("好"))
    SpeechHandler.gone.set()


def test_an_address_that_is_not_http_is_refused():
    with pytest.raises(VoiceError, match="http://"):
        HttpEngine("file:///etc/passwd")


# Files ---------------------------------------------------------------------------------------


def test_another_rate_keeps_the_tune_and_drops_what_no_longer_fits():
    np = pytest.importorskip("numpy")
    t = np.arange(22_050) / 22_050
    low = (8000 * np.sin(2 * np.pi * 440 * t)).astype("<i2")
    high = (8000 * np.sin(2 * np.pi * 9000 * t)).astype("<i2")
    slow = np.frombuffer(resample_chunk(AudioChunk(low.tobytes(), 22_050), 16_000).data, "<i2")
    assert len(slow) == 16_000
    assert int(np.abs(np.fft.rfft(slow)).argmax()) == 440
    alias = np.frombuffer(resample_chunk(AudioChunk(high.tobytes(), 22_050), 16_000).data, "<i2")
    assert np.abs(alias[500:-500]).max() < 0.02 * 8000


def test_a_wav_file_of_pieces_is_one_file():
    import io
    import wave

    with wave.open(
        io.BytesIO(encode_wav([AudioChunk(TONE[:8], 8000), AudioChunk(TONE[8:], 8000)]))
    ) as file:
        assert file.getframerate() == 8000
        assert file.readframes(10**6) == TONE
    with wave.open(io.BytesIO(encode_wav([]))) as file:
        assert file.getnframes() == 0


def test_half_a_sample_is_no_sound():
    with pytest.raises(VoiceError):
        AudioChunk(b"abc", 16_000)
