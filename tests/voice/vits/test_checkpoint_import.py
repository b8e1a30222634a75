"""Checkpoints of the original layout: brought exactly, or refused with the reason."""

import json
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch.nn import functional as F  # noqa: E402

from elysia import cli  # noqa: E402
from elysia.core.errors import VoiceError  # noqa: E402
from elysia.voice.engines.vits import VitsEngine  # noqa: E402
from elysia.voice.frontend.cleaners import CJKE2  # noqa: E402
from elysia.voice.vits import weight_mapping  # noqa: E402
from elysia.voice.vits.checkpoint_import import import_checkpoint, read_checkpoint  # noqa: E402
from elysia.voice.vits.modules import load_backend, load_vits_model  # noqa: E402


@pytest.mark.parametrize(
    ("speakers", "stochastic"), [(0, True), (0, False), (1, False), (3, True), (999, True)]
)
def test_there_and_back_loses_nothing(make_checkpoint, tmp_path, speakers, stochastic):
    weights, config, tensors = make_checkpoint(speakers, stochastic)
    result = import_checkpoint(weights, config, tmp_path / "v")
    back = weight_mapping.to_original(load_vits_model(tmp_path / "v").state_dict())
    if speakers == 1:  # transformers has no table of one row
        back["emb_g.weight"] = back["emb_g.weight"][:1]
    assert set(back) == set(tensors)
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    assert result.config.speaker_count == max(1, speakers)
    assert result.config.cleaner == "chinese_cleaners" and result.config.rate == 16000


def original_decoder(t, latents, speaker, sizes):
    """The original's decoder, straight from its tensors."""

    def weight(name):
        return torch._weight_norm(t[f"{name}.weight_v"], t[f"{name}.weight_g"], 0), t[
            f"{name}.bias"
        ]

    x = F.conv1d(latents, t["dec.conv_pre.weight"], t["dec.conv_pre.bias"], padding=3)
    x = x + F.conv1d(speaker, t["dec.cond.weight"], t["dec.cond.bias"])
    block = 0
    for i, (rate, kernel) in enumerate(
        zip(sizes["upsample_rates"], sizes["upsample_kernel_sizes"], strict=True)
    ):
        x = F.conv_transpose1d(
            F.leaky_relu(x, 0.1), *weight(f"dec.ups.{i}"), rate, (kernel - rate) // 2
        )
        total = 0
        for size, steps in zip(
            sizes["resblock_kernel_sizes"], sizes["resblock_dilation_sizes"], strict=True
        ):
            y = x
            for j, step in enumerate(steps):
                z = F.conv1d(
                    F.leaky_relu(y, 0.1),
                    *weight(f"dec.resblocks.{block}.convs1.{j}"),
                    1,
                    step * (size - 1) // 2,
                    step,
                )
                y = y + F.conv1d(
                    F.leaky_relu(z, 0.1), *weight(f"dec.resblocks.{block}.convs2.{j}"), 1, size // 2
                )
            total, block = total + y, block + 1
        x = total / len(sizes["resblock_kernel_sizes"])
    return torch.tanh(F.conv1d(F.leaky_relu(x), t["dec.conv_post.weight"], padding=3))[0, 0]


def test_the_decoder_sounds_as_the_originals_does(make_checkpoint, tmp_path):
    weights, config, tensors = make_checkpoint(3)
    import_checkpoint(weights, config, tmp_path / "v")
    latents = torch.randn(1, 16, 12)
    speaker = tensors["emb_g.weight"][2][None, :, None]
    right = original_decoder(tensors, latents, speaker, json.loads(config.read_text())["model"])
    samples = load_backend(tmp_path / "v").decode(latents.numpy(), speaker.numpy(), 0, 0)
    assert np.abs(samples - right.numpy()).max() < 1e-5


def test_a_voice_speaks_and_windows_join_to_the_whole(make_checkpoint, tmp_path):
    weights, config, _ = make_checkpoint(3)
    import_checkpoint(weights, config, tmp_path / "v")
    voice = VitsEngine(tmp_path / "v", speaker="s2")
    ids = voice.config.encode_symbols(
        voice.config.clean_text("今天天气不错我们一起去公园散步").symbols
    )
    whole = np.concatenate(list(voice.samples(ids, window=0)))
    parts = list(voice.samples(ids))
    assert len(parts) > 1
    assert np.abs(np.concatenate(parts) - whole).max() < 1e-4
    pieces = list(voice.synthesize("**你好**😊，世界。"))
    assert pieces and {p.rate for p in pieces} == {16000}
    slow = sum(p.seconds for p in voice.synthesize("你好，世界。", 0.5))
    assert slow > 1.3 * sum(p.seconds for p in voice.synthesize("你好，世界。", 2.0))
    assert list(voice.synthesize("😊")) == []
    other = VitsEngine(tmp_path / "v", speaker=0)
    assert b"".join(p.data for p in other.synthesize("好")) != b"".join(
        p.data for p in voice.synthesize("好")
    )
    voice.close()
    assert list(voice.synthesize("好")), "a closed voice starts anew"


@pytest.mark.parametrize(
    ("speakers", "stochastic"), [(3, True), pytest.param(0, False, marks=pytest.mark.slow)]
)
def test_the_exported_model_says_the_same(make_checkpoint, tmp_path, speakers, stochastic):
    pytest.importorskip("onnxruntime")
    weights, config, _ = make_checkpoint(speakers, stochastic)
    result = import_checkpoint(weights, config, tmp_path / "v", onnx=True)
    assert result.difference <= 1e-3
    ids = list(range(40))
    a, b = (
        np.concatenate(list(VitsEngine(tmp_path / "v", backend=backend).samples(ids)))
        for backend in ("torch", "onnx")
    )
    assert a.shape == b.shape and np.abs(a - b).max() < 1e-3


def test_a_symbol_set_of_ipa_is_recognised_whatever_the_config_calls_it(make_checkpoint, tmp_path):
    weights, config, _ = make_checkpoint(2, symbols=CJKE2, cleaner="chinese_cleaners")
    result = import_checkpoint(weights, config, tmp_path / "v")
    assert result.config.cleaner == "cjke_cleaners2"
    assert any("names the cleaner 'chinese_cleaners'" in str(remark) for remark in result.remarks)


def test_a_checkpoint_without_its_posterior_encoder_still_speaks(make_checkpoint, tmp_path):
    weights, config, tensors = make_checkpoint(3)
    torch.save({k: v.half() for k, v in tensors.items() if not k.startswith("enc_q.")}, weights)
    result = import_checkpoint(weights, config, tmp_path / "v")
    assert any("posterior" in str(remark) for remark in result.remarks)
    assert list(VitsEngine(tmp_path / "v").synthesize("好"))


class ExplodingObject:
    def __reduce__(self):
        return (print, ("ran",))


def spoil(weights, how, tensors):
    if how == "code":
        torch.save({"model": {**tensors, "x": ExplodingObject()}}, weights)
    elif how == "plain pickle":
        weights.write_bytes(pickle.dumps(ExplodingObject()))
    elif how == "cut":
        weights.write_bytes(weights.read_bytes()[:-5000])
    elif how == "half":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif how == "empty":
        weights.write_bytes(b"")
    elif how == "noise":
        weights.write_bytes(bytes(range(256)) * 40)
    elif how == "bert":
        torch.save({"model": {**tensors, "enc_p.bert_proj.weight": torch.zeros(2)}}, weights)
    elif how == "discriminator":
        torch.save({"model": {"discriminators.0.convs.0.weight_g": torch.zeros(2)}}, weights)
    elif how == "sovits":
        torch.save({"weight": {**tensors, "ssl_proj.weight": torch.zeros(2)}}, weights)
    elif how == "language model":
        torch.save({"model.layers.0.weight": torch.zeros(2)}, weights)
    elif how == "nan":
        torch.save(
            {"model": {**tensors, "enc_p.proj.bias": tensors["enc_p.proj.bias"] / 0}}, weights
        )
    elif how == "missing":
        torch.save(
            {"model": {k: v for k, v in tensors.items() if k != "flow.flows.2.pre.bias"}}, weights
        )
    elif how == "strange":
        torch.save({"model": {**tensors, "extra.weight": torch.zeros(2)}}, weights)
    elif how == "no tensors":
        torch.save([1, 2], weights)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("code", "refused.*Python objects or code"),
        ("plain pickle", "refused.*Python objects or code"),
        ("cut", "damaged or cut short"),
        ("half", "damaged or cut short"),
        ("empty", "damaged or cut short"),
        ("noise", "damaged|refused"),
        ("bert", "BERT-VITS2"),
        ("discriminator", "generator, G_"),
        ("sovits", "GPT-SoVITS"),
        ("language model", "no VITS generator"),
        ("nan", "NaN"),
        ("missing", "missing flow.flows.2.pre.bias"),
        ("strange", "unknown extra.weight"),
        ("no tensors", "no tensors by name"),
    ],
)
def test_what_is_no_vits_generator_is_refused_and_nothing_is_written(
    make_checkpoint, tmp_path, capsys, how, words
):
    weights, config, tensors = make_checkpoint(3)
    spoil(weights, how, tensors)
    with pytest.raises(VoiceError, match=words):
        import_checkpoint(weights, config, tmp_path / "v")
    assert "ran" not in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["G_latest.pth", "finetune_speaker.json"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"symbols": list("_abc")}, "lists 4 symbols and the checkpoint has 50"),
        ({"symbols": [chr(0x400 + i) for i in range(50)]}, "fit no cleaner"),
        ({"symbols": None}, "no list 'symbols'"),
        ({"speakers": {"x": 9}}, "number 9"),
        ({"model": {"hidden_channels": 32}}, "does not fit its config"),
        ({"model": {"n_layers": 3}}, "missing enc_p.encoder"),
        ({"model": {"resblock": "2"}}, "only kind 1"),
        ({"model": {"n_layers": None}}, "section 'model'"),
    ],
)
def test_a_config_of_another_checkpoint_is_refused(make_checkpoint, tmp_path, changes, words):
    weights, config, _ = make_checkpoint(3, config=changes)
    with pytest.raises(VoiceError, match=words):
        import_checkpoint(weights, config, tmp_path / "v")
    assert not (tmp_path / "v").exists()


def test_a_compressed_archive_is_refused_before_it_unfolds(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data/0", bytes(10_000_000))
    with pytest.raises(VoiceError, match="compressed inside"):
        read_checkpoint(tmp_path / "x.pth")


def test_a_hugging_face_folder_speaks_letters(tmp_path):
    from safetensors.torch import save_file
    from transformers import VitsConfig, VitsModel

    folder = tmp_path / "hf"
    folder.mkdir()
    config = VitsConfig(
        vocab_size=28, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, flow_size=16,
        spectrogram_bins=9, upsample_initial_channel=16, upsample_rates=[4], upsample_kernel_sizes=[8],
        resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]], sampling_rate=8000,
    )  # fmt: skip
    model = VitsModel(config)
    config.save_pretrained(folder)
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()},
        str(folder / "model.safetensors"),
    )
    letters = "_ abcdefghijklmnopqrstuvwxyz"
    (folder / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(letters)}))
    (folder / "tokenizer_config.json").write_text('{"add_blank": true, "normalize": true}')
    result = import_checkpoint(folder, None, tmp_path / "v")
    assert result.config.cleaner == "characters"
    assert {p.rate for p in VitsEngine(tmp_path / "v").synthesize("Hello there")} == {8000}
    (folder / "tokenizer_config.json").write_text('{"is_uroman": true}')
    with pytest.raises(VoiceError, match="uroman"):
        import_checkpoint(folder, None, tmp_path / "w")


def test_the_verb_brings_a_voice_that_say_finds(make_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ELYSIA_VOICES", str(tmp_path / "voices"))
    weights, config, _ = make_checkpoint(3)
    out = str(tmp_path / "m")
    words = [
        "voice",
        "import",
        str(weights),
        str(config),
        "--name",
        "her",
        "--speaker",
        "s1",
        "--out",
        out,
    ]
    assert cli.main(words) == 0
    assert (
        cli.main(
            ["voice", "say", "你好", "--voice", "her", "-o", str(tmp_path / "o.wav"), "--explain"]
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert "chinese_cleaners" in shown and (tmp_path / "o.wav").stat().st_size > 44
    assert cli.main([*words[:-4], "--speaker", "s7", "--out", out]) == 1
    assert "no speaker 's7'" in capsys.readouterr().err
    assert cli.main(["voice", "import", str(weights), str(config), "--name", "../x"]) == 2


@pytest.mark.parametrize("damage", ["gone", "cut", "card"])
def test_a_damaged_model_folder_is_a_sentence(make_checkpoint, tmp_path, damage):
    weights, config, _ = make_checkpoint(0)
    import_checkpoint(weights, config, tmp_path / "v")
    if damage == "gone":
        (tmp_path / "v" / "model.safetensors").unlink()
    elif damage == "cut":
        path = tmp_path / "v" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
    else:
        (tmp_path / "v" / "voice.json").write_text("{}")
    with pytest.raises(VoiceError, match=r"no model.safetensors|damaged"):
        list(VitsEngine(tmp_path / "v").synthesize("好"))


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(VoiceError, match=r"no VITS model.*voice import"):
        VitsEngine(tmp_path)


def test_a_warm_voice_loads_nothing_and_reads_each_sentence_once(
    make_checkpoint, tmp_path, monkeypatch
):
    from elysia.voice.engines import vits
    from elysia.voice.vits import modules

    weights, config, _ = make_checkpoint(3)
    import_checkpoint(weights, config, tmp_path / "v")
    loaded, read = [], []
    monkeypatch.setattr(
        modules, "load_backend", lambda folder: loaded.append(folder) or load_backend(folder)
    )
    voice = VitsEngine(tmp_path / "v")
    voice.warm()
    assert loaded == [tmp_path / "v"]
    prepare = vits.normalize_text
    monkeypatch.setattr(vits, "normalize_text", lambda text: read.append(text) or prepare(text))
    for sentence in ("你好。", "世界。"):
        assert list(voice.synthesize(sentence))
    assert loaded == [tmp_path / "v"] and read == ["你好。", "世界。"]
