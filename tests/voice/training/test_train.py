"""A voice learns, stops and goes on to the same bits, and speaks; what cannot be is a sentence."""

import json
import wave
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from elysia import cli
from elysia.core.errors import CheckpointError, ConfigError, DeviceError, ElysiaError, VoiceError
from elysia.train import checkpoint
from elysia.voice import registry
from elysia.voice.engines.vits import VitsEngine
from elysia.voice.training import hooks
from elysia.voice.training.export import export_voice
from elysia.voice.training.launch import find_config, train
from elysia.voice.training.settings import VoiceSettings, load_settings
from tests.exact import STATE, same
from tests.voice.training.conftest import SMALL


def last(work_dir):
    return checkpoint.load(checkpoint.last_checkpoint(work_dir))


def losses(work_dir, name="mel"):
    curve = hooks.read_curves(work_dir)[name]
    return [curve[step] for step in sorted(curve)]


def test_a_voice_learns_goes_on_to_the_same_bits_and_speaks(
    tmp_path, settings, config, monkeypatch, capsys
):
    """Two clips a step, so that an epoch is cut in the middle; dropout, noise and places are drawn."""
    run = config(settings | {"batch_size": 2, "max_steps": 5, "save_steps": 3, "warmup_steps": 2,
                             "lr_schedule": "cosine", "max_norm": 5.0, "listen_steps": 2})  # fmt: skip
    train(run, work_dir=str(tmp_path / "whole"))
    train(run, work_dir=str(tmp_path / "cut"), cfg_options={"max_epochs": 2})
    (tmp_path / "cut" / "iter_5.pth").unlink()
    (tmp_path / "cut" / "last_checkpoint").unlink()
    train(run, work_dir=str(tmp_path / "cut"), resume="auto")
    whole, resumed = last(tmp_path / "whole"), last(tmp_path / "cut")
    assert whole["progress"]["step"] == 5 and whole["progress"]["step_in_epoch"] == 1
    for part in STATE:
        assert same(whole[part], resumed[part]), part
    assert (
        set(whole["optimizer"]) == set(whole["param_schedulers"]) == {"generator", "discriminator"}
    )
    begun = torch.load(tmp_path / "whole" / "iter_3.pth", weights_only=True)["state_dict"]
    assert not same(begun, whole["state_dict"])
    assert (tmp_path / "whole" / "curves.png").stat().st_size > 1000
    assert len(list((tmp_path / "whole").glob("*/vis_data/step_*_0.wav"))) == 3  # after 2, 4, 5

    heard = EventAccumulator(str(next((tmp_path / "whole").glob("*/vis_data")))).Reload()
    assert [event.step for event in heard.Audio("listen/0")] == [2, 4, 5]
    assert {"mel", "kl", "duration", "discriminator"} <= set(heard.Tags()["scalars"])

    monkeypatch.setenv("ELYSIA_VOICES", str(tmp_path / "voices"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["voice", "export", str(tmp_path / "cut"), "--name", "tiny"]) == 0
    assert "chinese_cleaners" in capsys.readouterr().out
    assert registry.find_voice("tiny").settings["speaker"] == 0
    assert cli.main(["voice", "say", "你好。", "--voice", "tiny", "-o", "a.wav"]) == 0
    with wave.open("a.wav") as file:
        assert file.getframerate() == 8000 and file.getnframes() > 0
    card = json.loads((tmp_path / "work_dirs/voices/tiny/voice.json").read_text())
    assert card["source"]["consent"]["speaker"] == "A program" and card["speakers"] == {"tiny": 0}


def overfit(tmp_path, settings, config, steps):
    run = config(settings | {"max_steps": steps, "save_steps": 0})
    train(run, work_dir=str(tmp_path / "w"))
    return losses(tmp_path / "w")


def test_the_mel_loss_on_four_clips_falls_by_two_fifths(tmp_path, settings, config):
    mel = overfit(tmp_path, settings, config, 14)
    assert len(mel) == 14
    assert sum(mel[-3:]) / 3 < 0.6 * mel[0]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_it_goes_on_falling_when_the_first_steps_are_not_counted(tmp_path, spoken):
    options = {"data_path": str(spoken), "logging_interval": 1, "save_steps": 0, "listen_steps": 0}
    train("tiny_voice", work_dir=str(tmp_path / "w"), cfg_options=options)
    mel = losses(tmp_path / "w")
    assert len(mel) == 500
    assert sum(mel[-20:]) < 0.6 * sum(mel[20:40])


def test_a_base_with_several_speakers_and_its_discriminators_is_trained_on(
    tmp_path, settings, config, noises, make_checkpoint
):
    weights, base_config, tensors = make_checkpoint(3, stochastic=False)
    run = config(
        settings
        | {"data_path": str(noises), "base": str(weights), "base_config": str(base_config),
           "architecture": {}, "speaker": "s1", "max_steps": 1, "segment_frames": 40}
    )  # fmt: skip
    train(run, work_dir=str(tmp_path / "w"))
    result, number = export_voice(tmp_path / "w", tmp_path / "v", name="new")
    assert number == 1 and result.config.speakers == {"s0": 0, "s2": 2, "new": 1}
    trained = last(tmp_path / "w")["state_dict"]["generator.embed_speaker.weight"]
    assert not torch.equal(trained[1], tensors["emb_g.weight"][1]), "the place learns"
    assert (trained[1] - tensors["emb_g.weight"][1]).abs().max() < 0.01, "from where it was"
    assert list(VitsEngine(tmp_path / "v", speaker="new").synthesize("你好。"))


@pytest.mark.slow
def test_the_whole_discriminators_of_a_base_are_where_training_begins(
    tmp_path, settings, config, noises, make_checkpoint
):
    from elysia.voice.training.discriminators import VitsDiscriminators

    weights, base_config, _ = make_checkpoint(3)
    original = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in VitsDiscriminators().state_dict().items()
    }
    torch.save({"model": original}, tmp_path / "D.pth")
    run = config(
        settings
        | {"data_path": str(noises), "base": str(weights), "base_config": str(base_config),
           "base_discriminator": str(tmp_path / "D.pth"), "discriminator_scale": 1.0, "lr": 1e-6,
           "architecture": {}, "max_steps": 1, "segment_frames": 40}
    )  # fmt: skip
    train(run, work_dir=str(tmp_path / "w"))
    state = last(tmp_path / "w")["state_dict"]
    for name, tensor in VitsDiscriminators().state_dict().items():
        short = name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        )
        assert (state[f"discriminator.{name}"] - original[short]).abs().max() < 1e-4, tensor.shape


def test_bfloat16_products_learn_and_weights_stay_in_float32(tmp_path, settings, config):
    train(config(settings | {"dtype": "bfloat16", "max_steps": 1}), work_dir=str(tmp_path / "w"))
    state = last(tmp_path / "w")["state_dict"]
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert all(value == value for value in losses(tmp_path / "w"))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"learning_rate": 1}, ConfigError, "no setting named 'learning_rate'"),
        ({"lr": 0.0}, ConfigError, "lr is 0.0"),
        ({"batch_size": 0}, ConfigError, "batch_size is 0"),
        ({"batch_size": "many"}, ConfigError, "should be int"),
        ({"data_path": ""}, ConfigError, "does not set data_path"),
        ({"data_path": "/nowhere"}, VoiceError, "has no manifest.json"),
        ({"cleaner": "x"}, ConfigError, "one of"),
        ({"architecture": {"hiden_size": 4}}, ConfigError, "Did you mean 'hidden_size'"),
        ({"architecture": SMALL | {"upsample_rates": [5, 5, 1], "upsample_kernel_sizes": [11, 11, 3]}}, ConfigError, "multiply to 25"),
        ({"architecture": SMALL | {"num_attention_heads": 3}}, ConfigError, "makes no VITS"),
        ({"architecture": SMALL | {"upsample_kernel_sizes": [10, 11, 8]}}, ConfigError, "an even number"),
        ({"discriminator_scale": 2.0}, ConfigError, "discriminator_scale"),
        ({"speaker": "nobody"}, VoiceError, "no speaker 'nobody'"),
        ({"base": "/x/G.pth"}, ConfigError, "base_config"),
        ({"segment_frames": 500}, VoiceError, "segment_frames asks for 500"),
        ({"dtype": "float16"}, DeviceError, "needs a GPU"),
        ({"report_to": "nothing"}, ConfigError, "not a known tracker"),
        ({"lr": 1e9, "max_steps": 9}, ElysiaError, "loss became|fewer frames"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_a_sentence(
    tmp_path, settings, config, changes, error, words, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(error, match=words):
        train(config(settings | changes), work_dir=str(tmp_path / "w"))
    assert not list((tmp_path / "w").glob("iter_[5-9].pth"))


def test_a_base_of_other_sound_is_refused_with_what_to_do(
    tmp_path, settings, config, make_checkpoint
):
    weights, base_config, _ = make_checkpoint(0)
    run = config(
        settings | {"base": str(weights), "base_config": str(base_config), "architecture": {}}
    )
    with pytest.raises(VoiceError, match="--rate 16000 --hop 16 --window 128"):
        train(run, work_dir=str(tmp_path / "w"))
    tensors = torch.load(weights, weights_only=True)
    saved = {n: t for n, t in tensors["model"].items() if not n.startswith("enc_q.")}
    torch.save({"model": saved}, weights)
    with pytest.raises(VoiceError, match="no posterior encoder"):
        train(run, work_dir=str(tmp_path / "w"))


def test_what_is_no_trained_voice_is_not_exported(tmp_path, capsys):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        export_voice(tmp_path, tmp_path / "v", name="x")
    torch.save({"state_dict": {}}, tmp_path / "iter_1.pth")
    with pytest.raises(CheckpointError, match="no checkpoint of a voice"):
        export_voice(tmp_path / "iter_1.pth", tmp_path / "v", name="x")
    assert cli.main(["voice", "export", str(tmp_path), "--name", "a b"]) == 2


def test_the_page_names_every_setting():
    page = (Path(__file__).resolve().parents[3] / "docs" / "voice.md").read_text(encoding="utf-8")
    table = page.split("| name | default |")[1].split("\n\n")[0]
    assert not [name for name in VoiceSettings.model_fields if f"`{name}`" not in table]


def test_the_bundled_configs_are_read_and_found_by_name():
    for name in ("elysia_voice", "tiny_voice"):
        path = find_config(name)
        assert isinstance(load_settings(path), VoiceSettings)
        first = path.read_text().splitlines()[0]
        assert first == f"# elysia voice train configs/voice/{name}.py"
    with pytest.raises(ConfigError, match="Did you mean 'tiny_voice'"):
        find_config("tiny_voise")
