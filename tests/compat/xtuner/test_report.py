import pytest

from elysia.compat.xtuner.convert import convert_config
from elysia.compat.xtuner.report import render_flat_config
from elysia.train.config.settings import build_settings, load_settings


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_migrated_config_has_the_same_settings_and_lists_every_change(config, tmp_path, device):
    source = config()
    report = convert_config(source, device=device)
    flat = tmp_path / "flat.py"
    settings = build_settings(report.values, "c")
    flat.write_text(render_flat_config(report, settings.non_defaults(), str(source), str(flat)))
    assert load_settings(flat) == settings
    text = flat.read_text()
    assert text.startswith(f"# xtuner train {flat}\n")
    head = " ".join(line.removeprefix("#").strip(" -") for line in text.splitlines())
    for change in report.changes.values():
        assert change in head
    assert "max_epochs = 2" in text and "max_steps" not in text.split("\n\n", 1)[1]
