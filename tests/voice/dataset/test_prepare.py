"""Recordings become clips, or are left out with the reason; without consent nothing is made."""

import json
import wave

import numpy as np
import pytest

from elysia import cli
from elysia.core.errors import VoiceError
from elysia.voice.dataset import audio_cleaning, sources
from elysia.voice.dataset.manifest import ClipManifest
from elysia.voice.dataset.prepare import ClipRequirements, prepare_dataset
from elysia.voice.dataset.spectrogram import SpectrogramConfig, stft_magnitudes
from elysia.voice.frontend.cleaners import CJKE2
from elysia.voice.vits.config import VoiceConfig
from tests.voice.dataset.sounds import speechlike

SHAPE = SpectrogramConfig(16_000, 200, 800)
WANTED = ClipRequirements(VoiceConfig(CJKE2, "cjke_cleaners2"), SHAPE)


def prepare_folder(record, **changes):
    return prepare_dataset(record.folder, record.folder.parent / "out", WANTED, **changes)


def fault_of(record, name):
    record("good.wav")
    _, results = prepare_folder(record)
    (result,) = [result for result in results if result.source == name]
    return str(result.fault)


@pytest.mark.parametrize(
    ("ending", "rate"), [("wav", 44_100), ("flac", 48_000), ("mp3", 22_050), ("ogg", 24_000)]
)
def test_every_form_becomes_sixteen_bits_of_the_wanted_rate(recordings, ending, rate):
    both = np.stack([speechlike(2.0, rate), speechlike(2.0, rate)], axis=1)
    recordings(f"a.{ending}", samples=both, rate=rate)
    manifest, _ = prepare_folder(recordings)
    (clip,) = manifest.clips
    with wave.open(str(recordings.folder.parent / "out" / clip.file)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        assert file.getnframes() // SHAPE.hop == clip.frames
    assert 1.8 < clip.seconds < 2.2 and clip.text == "今天天气不错。"


def test_a_tone_keeps_its_tune_and_every_clip_is_as_loud(recordings):
    import pyloudnorm

    t = np.arange(2 * 44_100) / 44_100
    for number, level in enumerate((0.01, 0.9)):
        recordings(f"{number}.wav", samples=level * np.sin(2 * np.pi * 440 * t), rate=44_100)
    manifest, results = prepare_folder(recordings)
    assert results[1].loudness - results[0].loudness == pytest.approx(20 * np.log10(90), abs=0.2)
    for clip in manifest.clips:
        with wave.open(str(recordings.folder.parent / "out" / clip.file)) as file:
            samples = np.frombuffer(file.readframes(10**6), "<i2") / 32768
        assert int(np.abs(np.fft.rfft(samples[:16_000])).argmax()) == 440
        assert pyloudnorm.Meter(16_000).integrated_loudness(samples) == pytest.approx(-23, abs=0.1)


def test_silence_at_the_ends_is_cut_and_inside_it_stays(recordings):
    loud, quiet = speechlike(1.0, 16_000), np.zeros(16_000, np.float32)
    recordings("a.wav", samples=np.concatenate([quiet, loud, quiet[:8000], loud, quiet]))
    manifest, results = prepare_folder(recordings)
    assert manifest.clips[0].seconds == pytest.approx(
        2.5 + 2 * audio_cleaning.MARGIN_SECONDS, abs=0.05
    )
    assert results[0].cut == pytest.approx(2 - 2 * audio_cleaning.MARGIN_SECONDS, abs=0.05)


def test_the_cached_spectrogram_is_that_of_the_clip(recordings):
    import torch

    recordings("a.wav")
    manifest, _ = prepare_folder(recordings)
    out, (clip,) = recordings.folder.parent / "out", manifest.clips
    with wave.open(str(out / clip.file)) as file:
        samples = np.frombuffer(file.readframes(10**6), "<i2").astype(np.float32) / 32768
    cached = np.load(out / clip.spectrogram)
    assert cached.shape == (401, clip.frames)
    again = stft_magnitudes(torch.from_numpy(samples)[None], SHAPE)[0].numpy()
    assert np.array_equal(cached, again)


def test_a_spectrogram_is_the_magnitude_of_each_windowed_frame():
    import torch

    samples = np.random.default_rng(0).standard_normal(2000).astype(np.float32)
    spectrogram = stft_magnitudes(torch.from_numpy(samples)[None], SHAPE)[0].numpy()
    assert spectrogram.shape == (401, 10)
    side = (SHAPE.window - SHAPE.hop) // 2
    padded = np.pad(samples, side, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(SHAPE.window) / SHAPE.window)
    for frame in (0, 4, 9):
        piece = padded[frame * SHAPE.hop :][: SHAPE.window] * hann
        right = np.sqrt(np.abs(np.fft.rfft(piece)) ** 2 + 1e-6)
        assert np.abs(spectrogram[:, frame] - right).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("bare.wav", {"text": None}, "no text beside it"),
        ("empty.wav", {"text": "  "}, "its text is empty"),
        ("emoji.wav", {"text": "😊🌸"}, "nothing of its text can be said"),
        ("korean.wav", {"text": "안녕하세요"}, "cannot all be said"),
        ("silent.wav", {"samples": np.zeros(32_000)}, "it is silent"),
        ("hiss.wav", {"samples": speechlike(2, 16_000, 1e-5)}, "it is silent"),
        ("short.wav", {"samples": speechlike(0.6, 16_000)}, "shorter than 0.7 s"),
        ("blip.wav", {"samples": speechlike(0.2, 16_000)}, "too short"),
        ("long.wav", {"samples": speechlike(16, 16_000)}, "longer than 15 s"),
        ("none.wav", {"samples": np.zeros(0)}, "holds no sound"),
        ("flat.wav", {"samples": np.sign(speechlike(2, 16_000))}, "it is clipped"),
        ("much.wav", {"text": "今天天气不错，" * 12}, "longer than its sound"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_left_out_with_the_reason(recordings, name, changes, words):
    recordings(name, **changes)
    assert words in fault_of(recordings, name)


def test_damaged_files_are_left_out_with_the_reason(recordings):
    path = recordings("cut.flac")
    path.write_bytes(path.read_bytes()[:40])
    (recordings.folder / "fake.mp3").write_text("no sound at all")
    (recordings.folder / "fake.txt").write_text("你好")
    whole = recordings("odd.wav")
    whole.with_suffix(".txt").write_bytes("你好".encode("gbk"))
    recordings("twin.wav", samples=speechlike(2, 16_000, seed=9))
    recordings("twins.wav", samples=speechlike(2, 16_000, seed=9))
    _, results = prepare_folder(recordings)
    faults = {result.source: str(result.fault or "") for result in results}
    assert "cannot be decoded" in faults["cut.flac"] and "cannot be decoded" in faults["fake.mp3"]
    assert "not UTF-8" in faults["odd.wav"]
    assert faults["twin.wav"] == "" and "same sound as twin.wav" in faults["twins.wav"]


def test_what_may_be_wrong_is_noted_and_used(recordings):
    recordings("phone.wav", rate=8000, samples=speechlike(2, 8000))
    peaks = speechlike(2, 16_000)
    peaks[1000:1010] = 1.0
    recordings("peak.wav", samples=peaks)
    recordings("slow.wav", text="好。", samples=speechlike(6, 16_000))
    _, results = prepare_folder(recordings)
    notes = {result.source: " ".join(map(str, result.remarks)) for result in results}
    assert "nothing above 4000 Hz" in notes["phone.wav"] and "clipped" in notes["peak.wav"]
    assert "short for its length" in notes["slow.wav"]


def test_nothing_is_written_when_nothing_can_be_used(recordings):
    recordings("silent.wav", samples=np.zeros(32_000))
    with pytest.raises(VoiceError, match=r"None of the 1 recordings.*silent\.wav: it is silent"):
        prepare_folder(recordings)
    assert [path.name for path in recordings.folder.parent.iterdir()] == ["recordings"]


def test_without_consent_it_says_what_to_write(recordings):
    recordings("a.wav")
    file = recordings.folder / "consent.toml"
    file.unlink()
    with pytest.raises(VoiceError, match=r"(?s)There is no consent.*speaker = .*allows = "):
        prepare_folder(recordings)
    file.write_text('speaker = "李华"\n')
    with pytest.raises(VoiceError, match="what they allow"):
        prepare_folder(recordings)
    file.write_text("speaker = 李华")
    with pytest.raises(VoiceError, match="not TOML"):
        prepare_folder(recordings)
    file.unlink()
    (recordings.folder / "consent.txt").write_text("Speaker: Li Hua\nAllows：this test\n")
    manifest, _ = prepare_folder(recordings)
    assert manifest.consent["speaker"] == "Li Hua" and manifest.consent["allows"] == "this test"
    assert not (recordings.folder.parent / "out" / "consent.toml").exists()


@pytest.mark.parametrize(
    "lines",
    ["a|你好。\nsub/b.wav|今天不错。\n", "file,text\na,你好。\nsub/b.wav,\"今天不错。\"\n", "a\t你好。\nsub/b.wav\t今天不错。\n",
     "a|李华|你好。\nsub/b.wav|李华|今天不错。\n"],
)  # fmt: skip
def test_a_list_names_recordings_and_texts(recordings, lines):
    recordings("a.wav", text=None)
    recordings("sub/b.wav", text=None)
    listed = recordings.folder / "list.csv"
    listed.write_text(lines, encoding="utf-8-sig")
    assert [source.text for source in sources.find_recordings(listed)] == ["你好。", "今天不错。"]
    manifest, _ = prepare_dataset(listed, recordings.folder.parent / "out", WANTED)
    assert [clip.source for clip in manifest.clips] == ["a.wav", "b.wav"]


def test_a_list_with_a_line_that_is_none_is_refused_and_one_that_misses_a_file_not(recordings):
    listed = recordings.folder / "list.txt"
    listed.write_text("a|你好\nb\n")
    with pytest.raises(VoiceError, match="line 2"):
        sources.find_recordings(listed)
    listed.write_text("nowhere|你好\n")
    assert "not there" in str(sources.find_recordings(listed)[0].fault)
    with pytest.raises(VoiceError, match="holds no recordings"):
        sources.find_recordings(recordings.folder)
    with pytest.raises(VoiceError, match="nothing at"):
        sources.find_recordings(recordings.folder / "x")


def test_the_command_writes_a_report_to_read_to_parse_and_to_look_at(recordings, capsys):
    recordings("a<b.wav")
    recordings("silent.wav", samples=np.zeros(32_000))
    out = recordings.folder.parent / "out"
    words = ["voice", "prepare", str(recordings.folder), "--out", str(out)]
    assert cli.main([*words, "--rate", "16000", "--hop", "200", "--window", "800"]) == 0
    output = capsys.readouterr().out
    assert "1 of 2 recordings of 李华" in output and "left out: silent.wav: it is silent." in output
    report = json.loads((out / "report.json").read_text())
    assert report["kept"] == 1 and report["recordings"][1]["fault"] == "it is silent"
    page = (out / "report.html").read_text()
    assert "<svg" in page and "it is silent" in page and "<script" not in page
    assert (out / "consent.toml").read_text() == (recordings.folder / "consent.toml").read_text()
    assert cli.main([*words, "--rate", "5"]) == 1
    assert "8000 to 48000" in capsys.readouterr().err
    assert cli.main([*words, "--cleaner", "x"]) == 2


def test_a_damaged_manifest_is_a_sentence(recordings, tmp_path):
    recordings("a.wav")
    prepare_folder(recordings)
    path = tmp_path / "out" / "manifest.json"
    right = path.read_text()
    for wrong in (
        right[:50],
        right.replace("wavs/00001.wav", "../../etc/passwd"),
        '{"clips": []}',
        "[]",
    ):
        path.write_text(wrong)
        with pytest.raises(VoiceError, match="damaged"):
            ClipManifest.read(tmp_path / "out")


def test_a_consent_that_is_too_large_is_none(tmp_path):
    (tmp_path / "consent.txt").write_text(
        "speaker: x\nallows: y\n" + "z" * sources.MAX_CONSENT_BYTES
    )
    with pytest.raises(VoiceError, match="larger"):
        sources.read_consent(tmp_path / "consent.txt")
