"""Voice files: every bundled one loads, and a wrong one says what is wrong."""

from pathlib import Path

import pytest

from elysia import cli
from elysia.core.errors import VoiceError
from elysia.voice import registry

BUNDLED = Path(__file__).resolve().parents[2] / "tts" / "voices"


@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*.toml")), ids=lambda path: path.stem)
def test_every_bundled_voice_opens(path):
    file = registry.VoiceFile.load(path)
    assert file.description
    file.open().close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('engine = "espek"', "Did you mean 'espeak'"),
        ("", "engine"),
        ('engine = "espeak"\npich = 3', "unknown key 'pich'. Did you mean 'pitch'"),
        ('engine = "espeak"\npitch = "high"', "key 'pitch'.*wrong type"),
        ('engine = "espeak"\nspeed = 9', "key 'speed'"),
        ("engine = ", "not TOML"),
        ('engine = "http"', "needs a url"),
    ],
)
def test_a_wrong_file_is_a_sentence_with_its_name(tmp_path, text, words):
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(VoiceError, match=rf"(?s)x\.toml.*{words}"):
        registry.VoiceFile.load(path).open()


@pytest.mark.parametrize("name", ["nope", "../espeak", "", "a/b", "x" * 200])
def test_a_name_that_is_no_voice_is_refused(name):
    with pytest.raises(VoiceError, match="There is no voice"):
        registry.find_voice(name, BUNDLED)


def test_say_writes_a_file_and_list_names_the_voices(tmp_path, capsys):
    out = tmp_path / "o.wav"
    assert cli.main(["voice", "say", "你好。", "--voice", "silent", "-o", str(out)]) == 0
    assert out.read_bytes()[:4] == b"RIFF"
    assert cli.main(["voice", "list"]) == 0
    assert "espeak" in capsys.readouterr().out


def test_a_voice_that_fails_leaves_no_file(tmp_path, capsys):
    out = tmp_path / "o.wav"
    assert cli.main(["voice", "say", "好", "--voice", "openai", "-o", str(out)]) == 1
    assert "did not answer" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_explain_shows_the_steps(capsys):
    assert cli.main(["voice", "explain", "你好", "--cleaner", "pinyin"]) == 0
    assert "ni2hao3" in capsys.readouterr().out
    assert cli.main(["voice", "explain", "你好", "--cleaner", "x"]) == 2
