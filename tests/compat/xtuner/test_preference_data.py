"""Configs of XTuner's for DPO, ORPO and reward models."""

import pytest

from elysia.compat.xtuner.convert import convert_config
from elysia.compat.xtuner.map_functions import load_pair_function
from elysia.compat.xtuner.report import render_flat_config
from elysia.core.errors import DataError
from elysia.data.formats.conversion import RowConverter, iter_sample_groups
from elysia.train.config.settings import build_settings, load_settings

ORPO = (
    "type=DPO, use_varlen_attn=True, beta=0.2, loss_type='sigmoid', label_smoothing=0.1",
    "type=ORPO, use_varlen_attn=True, beta=0.3",
)
REWARD = (
    (ORPO[0], "type=RewardModel, use_varlen_attn=True, reward_token_id=9"),
    ("is_dpo=True, is_reward=False, reward_token_id=-1", "is_dpo=False, is_reward=True, reward_token_id=9"),
)  # fmt: skip
UNPACKED = ("reward_token_id=-1, num_proc=32, use_varlen_attn=True", "reward_token_id=-1")


def settled(report):
    assert report.status == "runs with changes", report.reasons
    return build_settings(report.values, "c")


def test_dpo_and_its_pairs_become_settings(pairs_config):
    report = convert_config(pairs_config(), device="cuda")
    settings = settled(report)
    assert (settings.objective, settings.method) == ("dpo", "full")
    assert (settings.dpo_beta, settings.dpo_loss_type) == (0.2, "sigmoid")
    assert settings.dpo_label_smoothing == 0.1
    (source,) = settings.sources
    assert source["path"] == "owner/pairs" and source["format"] == "orpo_dpo_mix_40k"
    assert (settings.prompt_template, settings.SYSTEM) == ("internlm2_chat", "")
    assert {"reference", "chat-template", "same-replies", "pair-weighted"} <= set(report.changes)
    assert "token-weighted" not in report.changes


OTHER = "dict(train_dataset, dataset_map_fn=intel_orca_dpo_map_fn, dataset=dict(type=load_dataset, path='owner/more'))"


def both(other=OTHER, more=""):
    """Two sources of pairs in one config."""
    return (
        "dataset=train_dataset",
        f"dataset=dict(type='xtuner.dataset.ConcatDataset', datasets=[train_dataset, {other}]{more})",
    )


def test_several_sources_of_pairs_are_trained_on_together(pairs_config, tmp_path):
    settings = settled(convert_config(pairs_config(both(more=", weights=[1, 0.5]"))))
    first, second = settings.sources
    assert (first["path"], first["format"]) == ("owner/pairs", "orpo_dpo_mix_40k")
    assert (second["path"], second["format"]) == ("owner/more", "intel_orca_dpo")
    assert (first.get("repeat", 1), second["repeat"]) == (1, 0.5)
    assert (settings.max_length, settings.pack_to_max_length) == (256, True)
    inner = f"dict(type='xtuner.dataset.ConcatDataset', datasets=[{OTHER}], weights=[2])"
    nested = settled(convert_config(pairs_config(both(inner, ", weights=[1, 3]"))))
    assert [source.get("repeat", 1) for source in nested.sources] == [1, 6]


@pytest.mark.parametrize(
    ("other", "more", "reason"),
    [
        ("dict(train_dataset, max_packed_length=512)", "", "differ in max_length"),
        ("dict(train_dataset, use_varlen_attn=False)", "", "differ in pack_to_max_length"),
        ("dict(train_dataset, tokenizer=dict(tokenizer, eos_token='x'))", "", "another tokenizer"),
        ("dict(train_dataset, is_dpo=False, is_reward=True)", "", "datasets[1]: is_dpo = False"),
        (OTHER, ", weights=[1]", "2 datasets and 1 weights"),
        ("dict(type='MOSSSFTDataset')", "", "not read here"),
    ],
)
def test_sources_of_pairs_that_do_not_go_together_are_a_reason(pairs_config, other, more, reason):
    report = convert_config(pairs_config(both(other, more)))
    assert reason in "; ".join(report.reasons)


def test_lengths_are_of_a_pair_together_packed_or_alone(pairs_config):
    report = convert_config(pairs_config())
    settings = settled(report)
    assert (settings.max_length, settings.pack_to_max_length) == (256, True)
    assert settings.overlong == "drop"
    assert "max_length = 128: XTuner cuts" in report.changes["pair-length"]
    report = convert_config(pairs_config(UNPACKED, ("max_packed_length=256, ", "")))
    settings = settled(report)
    assert (settings.max_length, settings.pack_to_max_length) == (256, False)
    assert not {"pair-packs", "pair-weighted"} & set(report.changes)
    loose = convert_config(pairs_config(("max_packed_length=256, ", ""), ("shuffle_before_pack=True", "shuffle_before_pack=False")))  # fmt: skip
    assert loose.values["max_length"] == 16384 and "shuffle-before-pack" in loose.changes


def test_an_adapters_reference_is_the_base_as_in_xtuner(pairs_config):
    adapter = ("base))\ntrain", "base), lora=dict(type=LoraConfig, r=4))\ntrain")
    report = convert_config(pairs_config(adapter))
    assert settled(report).method == "lora" and "reference" not in report.changes


def test_orpo_becomes_settings(pairs_config):
    report = convert_config(pairs_config(ORPO))
    settings = settled(report)
    assert (settings.objective, settings.orpo_lambda) == ("orpo", 0.3)
    assert "orpo-mean" in report.changes and "reference" not in report.changes
    padded = convert_config(pairs_config((ORPO[0], "type=ORPO, use_varlen_attn=False")))
    assert settled(padded).orpo_lambda == 0.1 and "orpo-padded" in padded.changes


def test_a_reward_model_has_xtuners_defaults_and_is_asked_nothing(pairs_config):
    report = convert_config(pairs_config(*REWARD))
    settings = settled(report)
    assert (settings.objective, settings.evaluation_inputs) == ("reward", [])
    assert (settings.reward_loss_type, settings.reward_penalty) == ("ranking", "log_barrier")
    assert settings.reward_penalty_weight == 0.01
    assert {"reward-head", "reward-token", "reward-chats"} <= set(report.changes)
    assert "reward_token_id = 9" in report.changes["reward-token"]


def test_a_reward_models_loss_and_penalty_are_taken_over(pairs_config):
    replaced = (
        REWARD[0][0],
        "type=RewardModel, loss_type='focal', penalty_type='L2', penalty_weight=0.5",
    )
    settings = settled(convert_config(pairs_config(replaced, REWARD[1])))
    assert (settings.reward_loss_type, settings.reward_penalty) == ("focal", "l2")
    assert settings.reward_penalty_weight == 0.5


@pytest.mark.parametrize(
    ("base", "template"),
    [("internlm/internlm2-chat-7b", "internlm2_chat"), ("meta-llama/Meta-Llama-3-8B", "llama3_chat"),
     ("owner/unheard-of", "default")],
)  # fmt: skip
def test_a_config_without_a_template_has_its_bases(pairs_config, base, template):
    bare = ("prompt_template=PROMPT_TEMPLATE.internlm2_chat, ", "")
    report = convert_config(pairs_config(("owner/internlm2-base", base), bare))
    assert settled(report).prompt_template == template
    assert any("'default' is taken" in need for need in report.needs) == (template == "default")


@pytest.mark.parametrize(
    ("rows", "source"),
    [
        ("data_files='a.jsonl'", {"path": "a.jsonl"}),
        ("data_files=['a.jsonl', 'b.jsonl']", {"path": ["a.jsonl", "b.jsonl"]}),
        ("data_dir='rows', suffix='.jsonl'", {"path": "rows", "files": ["*.jsonl"]}),
    ],
)
def test_files_of_json_lines_are_read_without_a_map_function(pairs_config, rows, source):
    report = convert_config(
        pairs_config(
            (
                "dict(type=load_dataset, path='owner/pairs')",
                f"dict(type=load_jsonl_dataset, {rows})",
            ),
            ("dataset_map_fn=orpo_dpo_mix_40k_map_fn", "dataset_map_fn=None"),
        )
    )
    settled(report)
    assert report.values["data_path"] == [source | {"format": "preference"}]
    assert "one-reply" in report.changes


OWN = """

def swapped(row):
    return {'prompt': [{'role': 'user', 'content': row['q'].upper()}], 'chosen': row['good'],
            'rejected': row['bad']}
"""


def test_a_map_function_of_ones_own_is_called_for_pairs(pairs_config, tmp_path):
    source_config = pairs_config(("dataset_map_fn=orpo_dpo_mix_40k_map_fn", "dataset_map_fn=swapped"),
                          ("\nbase = ", f"{OWN}\nbase = "))  # fmt: skip
    (source,) = settled(convert_config(source_config)).sources
    assert source["format"] == f"{source_config}:swapped"
    convert = load_pair_function(source["format"])
    good, bad = convert({"q": "why", "good": "a", "bad": "b"})
    assert [m.text for m in good] == ["WHY", "a"] and bad[-1].text == "b"
    rows = tmp_path / "rows.json"
    rows.write_text('[{"q": "why", "good": "a", "bad": "b"}, {"q": "why"}]')
    with pytest.raises(DataError, match=r"row 2: the map function swapped of .* KeyError: 'good'"):
        list(iter_sample_groups(rows, RowConverter(convert, pairs=True)))


def test_the_other_map_function_is_a_format_too(pairs_config):
    report = convert_config(
        pairs_config(("dataset_map_fn=orpo_dpo_mix_40k", "dataset_map_fn=intel_orca_dpo"))
    )
    assert settled(report).sources[0]["format"] == "intel_orca_dpo"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("loss_type='sigmoid'", "loss_type='kto_pair'", "share a micro-batch"),
        ("loss_type='sigmoid'", "loss_type='nca_pair'", "'nca_pair' is not offered"),
        ("label_smoothing=0.1", "label_smoothing=0.5", "below 0.5"),
        ("label_smoothing=0.1", "ref_llm=dict(pretrained_model_name_or_path='o/other')", "no other model"),
        ("label_smoothing=0.1", "colour='red'", "model.colour = 'red' is not honoured"),
        ("num_proc=32", "colour='red'", "dataset.colour = 'red' is not honoured"),
        ("is_dpo=True, is_reward=False", "is_dpo=False, is_reward=True", "do not fit the model"),
        ("num_proc=32", "is_reference=True", "POLAR"),
        ("orpo_dpo_mix_40k_map_fn,\n    is", "lambda row: row,\n    is", "is a lambda"),
        ("orpo_dpo_mix_40k_map_fn,\n    is", "TrainLoop,\n    is", "which is not read here"),
        ("path='owner/pairs'", "data_dir='a', data_files='b'", "names no path"),
        ("type=load_dataset, path='owner/pairs'", "type=load_jsonl_dataset", "either data_files"),
        ("type=build_preference_dataset", "type='MOSSSFTDataset'", "not read here"),
    ],
)  # fmt: skip
def test_what_pairs_are_not_trained_with_is_a_reason(pairs_config, old, new, reason):
    report = convert_config(pairs_config((old, new)))
    assert reason in "; ".join(report.reasons)


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        ("loss_type='margin'", "'margin' is not offered"),
        ("penalty_type='L1'", "'L1' is not offered"),
    ],
)
def test_rewards_that_are_not_offered_are_reasons(pairs_config, new, reason):
    report = convert_config(pairs_config((REWARD[0][0], f"type=RewardModel, {new}"), REWARD[1]))
    assert reason in "; ".join(report.reasons)


def test_losses_that_read_no_smoothing_have_none(pairs_config):
    settings = settled(convert_config(pairs_config(("'sigmoid'", "'ipo'"))))
    assert (settings.dpo_loss_type, settings.dpo_label_smoothing) == ("ipo", 0.0)
    robust = settled(convert_config(pairs_config(("'sigmoid'", "'robust'"))))
    assert (robust.dpo_loss_type, robust.dpo_label_smoothing) == ("robust", 0.1)


@pytest.mark.parametrize(
    "replacements", [(), (ORPO,), REWARD, (both(),)], ids=["dpo", "orpo", "reward", "several"]
)
def test_a_migrated_config_of_pairs_has_the_same_settings(pairs_config, tmp_path, replacements):
    source_config = pairs_config(*replacements)
    report = convert_config(source_config)
    flat = tmp_path / "flat.py"
    settings = build_settings(report.values, "c")
    flat.write_text(
        render_flat_config(report, settings.non_defaults(), str(source_config), str(flat))
    )
    assert load_settings(flat) == settings
    assert f"objective = '{report.values['objective']}'" in flat.read_text()
