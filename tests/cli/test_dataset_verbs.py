"""`elysia list-dataset-format`, `log-dataset` and `check-custom-dataset`, on a tiny tokenizer."""

import json

import pytest

from elysia import cli

ROWS = [
    {"conversation": [{"system": "Be kind.", "input": f"问题 {n}", "output": f"回答 {n}。"}]}
    for n in range(12)
]


@pytest.fixture
def config(tmp_path, tiny_internlm2):
    """A config on twelve short rows."""
    (tmp_path / "rows.json").write_text(json.dumps(ROWS, ensure_ascii=False), encoding="utf-8")
    path = tmp_path / "small.py"
    path.write_text(
        f"pretrained_model_name_or_path = {str(tiny_internlm2)!r}\n"
        f"data_path = {str(tmp_path / 'rows.json')!r}\n"
        "dataset_format = 'xtuner'\nprompt_template = 'internlm2_chat'\nmax_length = 128\n"
    )
    return path


def test_every_format_is_listed(capsys):
    from elysia.data.formats.preference_pairs import PREFERENCES
    from elysia.data.formats.pretokenized import PRETOKENIZED
    from elysia.data.formats.registry import FORMATS

    assert cli.main(["list-dataset-format"]) == 0
    assert capsys.readouterr().out.split() == [*FORMATS, *PRETOKENIZED, *PREFERENCES]


def test_the_first_samples_are_shown_as_training_sees_them(config, capsys):
    assert cli.main(["log-dataset", str(config), "-n", "2"]) == 0
    shown = capsys.readouterr().out
    assert "<|im_start|>user\n问题 0<|im_end|>" in shown
    assert "rows.json, row 1:" in shown
    assert "回答 1。" in shown
    assert "问题 2" not in shown


def test_learned_text_is_coloured_where_colours_show(config, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    cli.main(["log-dataset", str(config)])
    shown = capsys.readouterr().out
    assert "\033[32m回答 0。" in shown
    assert "\033[32m问题" not in shown


def test_masked_text_hides_what_is_not_learned(config, capsys):
    cli.main(["log-dataset", str(config), "--show", "masked_text"])
    shown = capsys.readouterr().out
    assert "问题" not in shown
    assert "[-100 x " in shown
    assert "]回答 0。" in shown


def test_all_shows_ids_and_labels_of_one_length(config, capsys):
    cli.main(["log-dataset", str(config), "--show", "all"])
    lists = [
        json.loads(x)
        for x in capsys.readouterr().out.splitlines()
        if x.startswith("[") and "x" not in x
    ]
    ids, labels = lists
    assert len(ids) == len(labels)
    assert -100 in labels
    assert -100 not in ids


def test_a_whole_dataset_is_reported(config, capsys):
    assert cli.main(["check-custom-dataset", str(config), "--cfg-options", "heldout=2"]) == 0
    shown = capsys.readouterr().out
    assert "(xtuner): 10 rows to train on" in shown
    assert "held out       2 samples" in shown
    assert "% of them learned" in shown


def test_a_bad_row_is_a_sentence_with_file_and_row(config, tmp_path, capsys):
    (tmp_path / "rows.json").write_text(json.dumps([*ROWS, {"conversation": [{"input": "x"}]}]))
    assert cli.main(["check-custom-dataset", str(config)]) == 1
    error = capsys.readouterr().err
    assert "rows.json" in error
    assert "13" in error
    assert "output" in error


def test_a_misspelt_option_is_a_sentence(config, capsys):
    assert cli.main(["log-dataset", str(config), "--cfg-options", "max_lenght=5"]) == 1
    assert "max_length" in capsys.readouterr().err


def test_a_count_of_none_is_refused(config, capsys):
    assert cli.main(["log-dataset", str(config), "-n", "0"]) == 2
