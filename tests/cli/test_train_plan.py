import json

import pytest

from elysia.cli import main
from elysia.cli.train import format_duration, parse_size
from elysia.core.errors import UsageError


def test_the_plan_is_printed_and_left_for_the_training(tiny_internlm2, tmp_path, capsys):
    rows = [{"conversation": [{"input": f"你好 {i}", "output": "你好呀" * 4}]} for i in range(6)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    config = tmp_path / "c.py"
    config.write_text(
        f"pretrained_model_name_or_path = {str(tiny_internlm2)!r}\n"
        f"data_path = {str(tmp_path / 'rows.json')!r}\nmethod = 'lora'\nmax_length = 128\n"
    )
    words = ["plan", str(config), "--work-dir", str(tmp_path / "w")]
    assert main(words) == 0
    printed_text = capsys.readouterr().out
    assert (
        "It fits." in printed_text
        and "6 rows: 0.0 % left out" in printed_text
        and "tokens a second" in printed_text
    )
    stored = json.loads((tmp_path / "w" / "plan.json").read_text())
    assert stored["peak"] == sum(stored["memory"].values())
    assert main([*words, "--memory", "1MB", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert not printed["fits"] and "No setting" in printed["advice"]


def test_sizes_and_times_are_read_and_written():
    assert (
        parse_size("24GB") == parse_size("24 GiB") == 24 * 2**30
        and parse_size("800M") == 800 * 2**20
    )
    for text in ("", "lots", "-1GB", "0"):
        with pytest.raises(UsageError, match="24GB"):
            parse_size(text)
    assert [format_duration(s) for s in (5, 90, 5400, 90000)] == [
        "5 seconds", "1.5 minutes", "1.5 hours", "1.04 days",
    ]  # fmt: skip
