"""`elysia list-cfg` and `elysia copy-cfg`."""

import pytest

from elysia import cli
from elysia.core import paths

LLAVA = "llava_internlm2_chat_7b_clip_vit_large_p14_336_e1_gpu8_pretrain"
ORPO = "internlm2_chat_7b_orpo_qlora_varlenattn_ultrafeedback_e5"


@pytest.fixture
def configs(tmp_path, monkeypatch):
    folder = tmp_path / "configs"
    (folder / "_base_").mkdir(parents=True)
    (folder / "_base_" / "common.py").write_text("lr = 1\n")
    (folder / "small.py").write_text("# small\n_base_ = './_base_/common.py'\nseed = 1\n")
    (folder / "large.py").write_text("_base_ = [\n    'small.py',\n]\nseed = 2\n")
    monkeypatch.setattr(paths, "get_configs_folder", lambda: folder)
    return folder


def test_our_configs_are_listed_first_and_without_their_bases(configs, capsys):
    assert cli.main(["list-cfg"]) == 0
    names = capsys.readouterr().out.split("\n\n")[0].split()
    assert names[:2] == ["large", "small"]
    assert len(names) == 2 + 529 and "internlm2_1_8b_qlora_alpaca_e3" in names[2:]


def test_a_pattern_narrows_the_list_and_exits_1_when_nothing_fits(configs, capsys):
    assert cli.main(["list-cfg", "-p", "SMALL"]) == 0
    assert capsys.readouterr().out.split() == ["small"]
    assert cli.main(["list-cfg", "-p", "internlm2_1_8b"]) == 0
    names = capsys.readouterr().out.split()
    assert {"internlm2_1_8b_full_alpaca_e3", "internlm2_1_8b_qlora_alpaca_e3"} <= set(names)
    assert cli.main(["list-cfg", "-p", "nosuch"]) == 1


def test_a_config_that_cannot_be_trained_is_listed_and_refused_with_its_reason(
    configs, tmp_path, capsys
):
    assert cli.main(["list-cfg", "-p", LLAVA]) == 0
    assert f"{LLAVA}: it trains on images" in capsys.readouterr().out
    assert cli.main(["copy-cfg", LLAVA, str(tmp_path / "x")]) == 1
    assert "it trains on images" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["internlm2_1_8b_qlora_alpaca_e3", ORPO])
def test_the_copy_of_a_config_of_xtuner_trains_as_its_name_does(configs, tmp_path, name):
    pytest.importorskip("mmengine")
    from elysia.train.config.settings import load_settings

    assert cli.main(["copy-cfg", name, str(tmp_path)]) == 0
    settings = load_settings(tmp_path / f"{name}_copy.py")
    assert settings == load_settings(name)
    assert load_settings(name, {"lr": 1e-5}).lr == 1e-5 != settings.lr


def test_a_config_of_xtuner_has_its_values():
    pytest.importorskip("mmengine")
    from elysia.train.config.settings import load_settings

    settings = load_settings("internlm2_1_8b_qlora_alpaca_e3")
    assert settings.pretrained_model_name_or_path == "internlm/internlm2-1_8b"
    assert settings.data_path == [
        {"path": "tatsu-lab/alpaca", "split": "train", "format": "alpaca"}
    ]
    assert (settings.method, settings.lora_r, settings.lr) == ("qlora", 64, 2e-4)
    assert (settings.max_length, settings.max_epochs, settings.accumulative_counts) == (2048, 3, 16)


def test_a_copy_means_the_same_elsewhere(configs, tmp_path):
    mmengine = pytest.importorskip("mmengine.config")
    for name in ("small", "large"):
        assert cli.main(["copy-cfg", name, str(tmp_path / "mine")]) == 0
        copied = mmengine.Config.fromfile(str(tmp_path / "mine" / f"{name}_copy.py"))
        assert copied.to_dict() == mmengine.Config.fromfile(str(configs / f"{name}.py")).to_dict()


def test_a_copy_keeps_every_other_line(configs, tmp_path):
    cli.main(["copy-cfg", "small", str(tmp_path / "mine")])
    lines = (tmp_path / "mine" / "small_copy.py").read_text().splitlines()
    assert lines[0] == "# small"
    assert lines[2] == "seed = 1"


def test_nothing_is_overwritten(configs, tmp_path, capsys):
    cli.main(["copy-cfg", "small", str(tmp_path)])
    (tmp_path / "small_copy.py").write_text("mine\n")
    assert cli.main(["copy-cfg", "small", str(tmp_path)]) == 1
    assert (tmp_path / "small_copy.py").read_text() == "mine\n"
    assert "exists already" in capsys.readouterr().err


def test_an_unknown_config_names_the_nearest(configs, tmp_path, capsys):
    assert cli.main(["copy-cfg", "smal", str(tmp_path / "x")]) == 1
    assert "Did you mean 'small'?" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
