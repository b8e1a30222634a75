"""Where bundled files are found, from any folder."""

from pathlib import Path

import pytest

from elysia.core import paths
from elysia.core.errors import ConfigError


def test_the_bundled_folders_are_there():
    for folder in (paths.get_configs_folder(), paths.get_data_folder(), paths.get_voices_folder()):
        assert folder.is_dir()


def test_a_config_is_a_path_or_a_bundled_name(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text("")
    assert paths.find_config(str(own)) == own
    for name in ("demo_qlora", "demo_qlora.py", "configs/demo_qlora.py"):
        assert paths.find_config(name).name == "demo_qlora.py"
    with pytest.raises(ConfigError, match="Did you mean 'demo_qlora'") as caught:
        paths.find_config("demo_qlra")
    assert "demo_qlora" in caught.value.render("zh")


def test_a_bundled_file_is_found_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(paths.resolve_bundled("data/probes.json")).is_file()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "probes.json").write_text("[]")
    assert paths.resolve_bundled("data/probes.json") == "data/probes.json"  # the user's own wins
    assert paths.resolve_bundled("data/none.json") == "data/none.json"
    assert paths.resolve_all_bundled(["data/none.json"]) == ["data/none.json"]


def test_voices_lie_where_the_environment_says_else_here_else_with_the_project(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ELYSIA_VOICES", raising=False)
    assert paths.get_voices_folder() == paths.get_root() / "tts" / "voices"
    (tmp_path / "tts" / "voices").mkdir(parents=True)
    assert paths.get_voices_folder() == Path("tts/voices")
    monkeypatch.setenv("ELYSIA_VOICES", "/elsewhere")
    assert paths.get_voices_folder() == Path("/elsewhere")
