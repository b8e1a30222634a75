"""`elysia list-cfg` and `elysia copy-cfg`."""

import pytest

from elysia import cli
from elysia.core import paths


@pytest.fixture
def configs(tmp_path, monkeypatch):
    folder = tmp_path / "configs"
    (folder / "_base_").mkdir(parents=True)
    (folder / "_base_" / "common.py").write_text("lr = 1\n")
    (folder / "small.py").write_text("# small\n_base_ = './_base_/common.py'\nseed = 1\n")
    (folder / "large.py").write_text("_base_ = [\n    'small.py',\n]\nseed = 2\n")
    monkeypatch.setattr(paths, "get_configs_folder", lambda: folder)
    return folder


def test_configs_are_listed_without_their_bases(configs, capsys):
    assert cli.main(["list-cfg"]) == 0
    assert capsys.readouterr().out.split() == ["large", "small"]


def test_a_pattern_narrows_the_list_and_exits_1_when_nothing_fits(configs, capsys):
    assert cli.main(["list-cfg", "-p", "LAR"]) == 0
    assert capsys.readouterr().out.split() == ["large"]
    assert cli.main(["list-cfg", "-p", "nosuch"]) == 1


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
