"""Building a config with a tiny model and three rows in place of what it names."""

import json
from pathlib import Path

import pytest

from elysia.core.errors import DataError
from elysia.train.config.settings import build_settings
from elysia.train.verify.smoke_model import SAMPLE_ROWS, build_smoke_run, substitute_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all: the models in it are made once."""
    return tmp_path_factory.mktemp("standin")


def values(source, **more):
    return {
        "pretrained_model_name_or_path": "owner/base",
        "data_path": [{"path": "owner/rows", **source}],
        "max_length": 512,
        **more,
    }


def test_columns_that_a_config_renames_are_renamed_in_the_rows(folder):
    values_built = substitute_tiny_model(
        values({"format": "alpaca", "columns": {"ask": "instruction"}}), folder
    )
    (source,) = values_built["data_path"]
    (row, *_) = json.loads(Path(source["path"]).read_text())
    assert row["ask"] == SAMPLE_ROWS["alpaca"]["instruction"] and "instruction" not in row
    assert build_settings(values_built, "c").max_steps == 1


@pytest.mark.parametrize("format", ["openai_lines", "moss_sft", "tokens", "pretrain"])
def test_rows_of_every_shape_build(folder, format):
    build_smoke_run(values({"format": format}, method="lora"), folder, format)


@pytest.mark.parametrize(
    ("objective", "format", "method"),
    [
        ("dpo", "orpo_dpo_mix_40k", "full"),
        ("dpo", "intel_orca_dpo", "lora"),
        ("orpo", "preference", "lora"),
        ("reward", "preference_sharegpt", "full"),
    ],
)
def test_preference_pairs_build_under_every_objective(folder, objective, format, method):
    build_smoke_run(
        values({"format": format}, method=method, objective=objective), folder, objective
    )


def test_a_family_with_other_layers_builds_with_adapters_on_them(folder):
    more = {"lora_target_modules": ["c_attn", "c_proj"], "tokenizer_name_or_path": "owner/words"}
    build_smoke_run(values({"format": "alpaca"}, method="lora", **more), folder, "code")
    assert (
        json.loads((folder / "gpt_bigcode" / "config.json").read_text())["model_type"]
        == "gpt_bigcode"
    )


def test_questions_of_mmlu_are_stood_in_for(folder):
    build_smoke_run(
        values({"format": "alpaca"}, mmlu_path="owner/mmlu", method="lora"), folder, "mmlu"
    )
    assert len(json.loads((folder / "mmlu.json").read_text())) == 3


def test_rows_of_a_users_own_function_are_theirs_to_give(folder, tmp_path):
    own = {"format": f"{tmp_path}/f.py:alpaco", "path": str(tmp_path / "rows.json")}
    with pytest.raises(DataError, match="only its author"):
        substitute_tiny_model(values(own), folder)
    (tmp_path / "rows.json").write_text("[]")
    assert substitute_tiny_model(values(own), folder)["data_path"][0]["path"] == own["path"]


def test_a_config_whose_rows_teach_nothing_does_not_build(tmp_path, monkeypatch):
    monkeypatch.setitem(SAMPLE_ROWS, "pretrain", {"text": " "})
    with pytest.raises(DataError):
        build_smoke_run(values({"format": "pretrain"}, method="lora"), tmp_path, "empty")
