import pytest

from elysia.train.settings import load_settings, settings_from
from elysia.train.xtuner.judge import judge
from elysia.train.xtuner.migrate import flat_text


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_migrated_config_has_the_same_settings_and_lists_every_change(config, tmp_path, device):
    theirs = config()
    report = judge(theirs, device=device)
    flat = tmp_path / "flat.py"
    flat.write_text(flat_text(report, str(theirs), str(flat)))
    assert load_settings(flat) == settings_from(report.values, "c")
    text = flat.read_text()
    assert text.startswith(f"# xtuner train {flat}\n")
    said = " ".join(line.removeprefix("#").strip(" -") for line in text.splitlines())
    for change in report.changes.values():
        assert change in said
    assert "max_epochs = 2" in text and "max_steps" not in text.split("\n\n", 1)[1]
