import pytest

from elysia.compat.xtuner.convert import convert_config
from elysia.core.errors import ConfigError
from elysia.core.templates import SYSTEM_TEMPLATES
from elysia.train.config.settings import build_settings, load_settings


def test_what_a_config_builds_becomes_settings(config):
    report = convert_config(config(), device="cuda")
    settings = build_settings(report.values, "c")
    assert settings.pretrained_model_name_or_path == "owner/base"
    assert (settings.method, settings.lora_r, settings.lora_alpha) == ("qlora", 4, 8)
    assert settings.sources[0]["path"] == "rows.json" and settings.sources[0]["format"] == "openai"
    assert (settings.prompt_template, settings.max_length) == ("internlm2_chat", 256)
    assert (settings.lr, settings.betas, settings.weight_decay) == (2e-4, (0.9, 0.95), 0.1)
    assert (settings.max_norm, settings.accumulative_counts) == (0.5, 4)
    assert (settings.warmup_ratio, settings.min_lr) == (0.1, 1e-6)
    assert (settings.max_epochs, settings.seed, settings.dtype) == (2, 7, "float16")
    assert settings.overlong == "truncate" and settings.pack_to_max_length


def test_counts_of_micro_batches_become_counts_of_steps_and_it_is_said(config):
    report = convert_config(config())
    assert report.values["save_steps"] == 100  # 400 iterations of 4 to a step
    assert report.values["evaluation_freq"] == 2 and report.values["logging_interval"] == 1
    assert "of 4 of XTuner's iterations" in report.changes["steps"]


def test_the_hooks_system_text_is_asked_with_and_not_trained_with(config):
    values = convert_config(config()).values
    assert values["SYSTEM"] == "" and values["evaluation_system"] == SYSTEM_TEMPLATES["coder"]


def test_changes_are_named_and_depend_on_the_device(config):
    there, here = convert_config(config(), device="cuda"), convert_config(config(), device="cpu")
    assert here.status == there.status == "runs with changes"
    assert "AmpOptimWrapper on a CPU" in here.changes["float16"] and here.values["dtype"] == "auto"
    assert "float16" not in there.changes
    assert "no longer see each other" in here.changes["packing"]


def test_isolated_packing_is_no_news_for_a_config_with_varlen_attention(config):
    report = convert_config(config(("use_varlen_attn=False", "use_varlen_attn=True")))
    assert "see each other" not in report.changes["packing"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("bias='none'", "bias='all'", "model.lora.bias"),
        ("bias='none'", "use_rslora=True", "model.lora.use_rslora = True is not honoured"),
        ("'nf4'", "'fp4'", "only nf4"),
        ("end=max_epochs", "end=1", "ends at 1 and the run at 2"),
        ("type=CosineAnnealingLR", "type='StepLR'", r"param_scheduler\[1\].type is 'StepLR'"),
        ("by_epoch=False, interval=400", "interval=400", "counts epochs"),
        ("type=AdamW", "type='torch.optim.Adamx'", "torch.optim.Adamx, which cannot be imported"),
        ("shuffle_before_pack=True", "with_image_token=True", "images are not trained"),
        ("dict(seed=7", "dict(deterministic=True, seed=7", None),
        ("pack_to_max_length=True", "colour='red'", "dataset.colour = 'red' is not honoured"),
    ],
)
def test_what_is_not_honoured_is_a_reason_and_never_dropped(config, old, new, reason):
    import re

    if reason is None:
        new, reason = "dict(deterministic=True, seed=7", "deterministic"
        path = config((old + ", deterministic=False", "dict(seed=7, deterministic=True"))
    else:
        path = config((old, new))
    report = convert_config(path)
    assert report.status == "not supported"
    assert re.search(reason, "; ".join(report.reasons))


def test_an_unknown_symbol_is_named_with_the_nearest_and_its_line(config):
    report = convert_config(config(("SupervisedFinetune", "SupervisdFinetune")))
    text = "; ".join(report.reasons)
    assert "SupervisdFinetune" in text and "Did you mean 'SupervisedFinetune'" in text
    assert "theirs.py, line" in text
    report = convert_config(
        config(("PROMPT_TEMPLATE.internlm2_chat", "PROMPT_TEMPLATE.internlm2_chatt"))
    )
    assert "Did you mean 'internlm2_chat'" in "; ".join(report.reasons)
    report = convert_config(config(("from xtuner.model import", "from xtuner.models import")))
    assert "SupervisedFinetune is in xtuner.model" in "; ".join(report.reasons)


@pytest.mark.parametrize(("kind", "why"), [("LLaVAModel", "images"), ("InternVL_V1_5", "images")])
def test_other_kinds_of_training_say_why_not(config, kind, why):
    report = convert_config(config(("SupervisedFinetune", kind)))
    assert report.status == "not supported" and why in report.reasons[0]


def test_an_option_by_the_name_of_a_setting_is_the_value_that_trains(config):
    assert load_settings(config(), {"lr": 1e-5, "seed": 3}).lr == 1e-5
    deep = {"optim_wrapper.optimizer.lr": 3e-5, "train_dataloader.dataset.max_length": 99}
    settings = load_settings(config(), deep)
    assert (settings.lr, settings.max_length) == (3e-5, 99)
    assert load_settings(config(), {"data_path": "b.json"}).sources[0]["format"] == "openai"
    with pytest.raises(ConfigError, match=r"prompt_templat: .* change nothing"):
        load_settings(config(), {"prompt_templat": "default"})


def test_what_cannot_be_trained_is_refused_before_anything_is_loaded(config):
    with pytest.raises(
        ConfigError, match=r"theirs\.py cannot be trained here: it trains on images"
    ):
        load_settings(config(("SupervisedFinetune", "LLaVAModel")))


def test_sequence_parallelism_is_taken_over(config):
    report = convert_config(
        config(
            ("sequence_parallel_size = 1", "sequence_parallel_size = 2"),
            ("type=DefaultSampler", "type=SequenceParallelSampler"),
        )
    )
    assert report.values["accumulative_counts"] == 4
    assert report.values["sequence_parallel_size"] == 2


def test_length_grouping_and_order_are_taken_over(config):
    grouped = (
        "type=DefaultSampler, shuffle=True",
        "type=LengthGroupedSampler, per_device_batch_size=1",
    )
    assert convert_config(config(grouped)).values["sampler"] == "length_grouped"
    plain = convert_config(config(("shuffle=True)", "shuffle=False)")))
    assert plain.values["sampler"] == "sequential"


def test_concatenated_datasets_are_sources_with_their_weights(config):
    report = convert_config(
        config(
            ("dataset=train_dataset", "dataset=dict(type=ConcatDataset, weights=[2, 0.5], datasets=[train_dataset, other])"),
            ("train_dataloader =", "other = dict(train_dataset, dataset_map_fn=oasst1_map_fn, max_dataset_length=10,"
             " dataset=dict(type=load_dataset, path='owner/rows', name='en', split='test'))\ntrain_dataloader ="),
        )
    )  # fmt: skip
    assert report.values["data_path"] == [
        {"path": "rows.json", "format": "openai", "repeat": 2},
        {"path": "owner/rows", "split": "test", "subset": "en", "format": "oasst1", "limit": 10,
         "repeat": 0.5},
    ]  # fmt: skip
    assert "the dataset owner/rows of the Hugging Face Hub" in report.needs


def test_datasets_that_differ_in_what_a_run_has_once_are_refused(config):
    report = convert_config(
        config(
            ("dataset=train_dataset", "dataset=dict(type=ConcatDataset, datasets=[train_dataset, other])"),
            ("train_dataloader =", "other = dict(train_dataset, max_length=99)\ntrain_dataloader ="),
        )
    )  # fmt: skip
    assert "differ in max_length" in report.reasons[0]


def test_a_dumped_config_that_spells_its_symbols_means_the_same(config, tmp_path):
    from mmengine.config import Config

    dumped = tmp_path / "dumped.py"
    Config.fromfile(str(config())).dump(str(dumped))
    assert "xtuner.model.SupervisedFinetune" in dumped.read_text()
    assert convert_config(dumped).to_dict() == convert_config(config()).to_dict()
    assert convert_config(dumped).values == convert_config(config()).values


def test_a_template_written_out_is_used_as_it_stands(config):
    written = "dict(SYSTEM='S {system}', INSTRUCTION='U {input}', SUFFIX='<end>', SUFFIX_AS_EOS=True, STOP_WORDS=['<end>'])"
    values = convert_config(config(("PROMPT_TEMPLATE.internlm2_chat", written))).values
    assert values["prompt_template"]["instruction"] == "U {input}"
    build_settings(values, "c")
    report = convert_config(
        config(("PROMPT_TEMPLATE.internlm2_chat", "dict(INSTRUCTION='no field')"))
    )
    assert "lacks the field {input}" in "; ".join(report.reasons)


def test_two_tokenizers_in_one_config_are_refused(config):
    other = ("custom_hooks = [\n    dict(type=DatasetInfoHook, tokenizer=tokenizer),\n    dict(type=EvaluateChatHook, tokenizer=tokenizer",
             "custom_hooks = [\n    dict(type=EvaluateChatHook, tokenizer=dict(tokenizer, eos_token='x')")  # fmt: skip
    assert "another tokenizer" in "; ".join(convert_config(config(other)).reasons)


def test_a_script_among_configs_is_no_config(tmp_path):
    script = tmp_path / "convert.py"
    script.write_text("import torch\n\ndef main():\n    pass\n")
    assert "builds no model" in convert_config(script).reasons[0]


def test_mosss_own_dataset_is_a_source_whose_long_rows_lose_last_turns(config, tmp_path):
    moss = "dict(type=MOSSSFTDataset, data_file='moss.jsonl', bot_name='Her', tokenizer=tokenizer, max_length=99)"
    report = convert_config(config(("dataset=train_dataset", f"dataset={moss}")))
    assert report.values["data_path"] == [
        {"path": "moss.jsonl", "format": "moss_sft", "bot_name": "Her"}
    ]
    assert report.values["max_length"] == 99 and report.values["overlong"] == "cut"
    assert "the dataset moss.jsonl, which is not there" in report.needs


def test_moss_beside_rows_that_are_cut_is_a_named_change(config):
    moss = "dict(type=MOSSSFTDataset, data_file='m', tokenizer=tokenizer, max_length=256)"
    both = f"dict(type=ConcatDataset, datasets=[dict(train_dataset, pack_to_max_length=False), {moss}])"
    report = convert_config(config(("dataset=train_dataset", f"dataset={both}")))
    assert not report.reasons and "moss-length" in report.changes


@pytest.mark.parametrize(
    "old, new, reason",
    [
        ("remove_unused_columns=True", "input_ids_with_output=False", "replies are what is learned"),
        ("remove_unused_columns=True", "with_image_token=True", "images are not trained on"),
        ("dataset_map_fn=openai_map_fn", "dataset_map_fn=lambda row: row", "is a lambda"),
        ("dataset_map_fn=openai_map_fn", "dataset_map_fn=torch.float16", "not read here"),
        ("dataset=train_dataset", "dataset=dict(type=ConcatDataset, datasets=[train_dataset], weights=[1, 2])",
         "1 datasets and 2 weights"),
    ],
)  # fmt: skip
def test_data_that_is_not_honoured_is_a_reason(config, old, new, reason):
    assert reason in "; ".join(convert_config(config((old, new))).reasons)


MMLU = """
from xtuner.evaluation import MMLUMetric
questions = dict(type=process_hf_dataset, dataset=dict(type=load_dataset, path='json', data_files=dict(val={files})),
                 tokenizer=tokenizer)
val_dataloader = dict(batch_size=1, dataset=questions)
val_evaluator = dict(type={metric}, tokenizer=tokenizer)
test_dataloader = val_dataloader
"""


def test_mmlus_questions_are_scored_while_training(config):
    report = convert_config(config(more=MMLU.format(files="'mmlu_val.json'", metric="MMLUMetric")))
    assert report.values["mmlu_path"] == "mmlu_val.json" and not report.reasons
    assert "test" in report.changes


@pytest.mark.parametrize(
    "files, metric, reason",
    [("'q.json'", "LengthGroupedSampler", "only MMLUMetric"), ("['a', 'b']", "MMLUMetric", "one file")],
)  # fmt: skip
def test_other_evaluations_are_refused(config, files, metric, reason):
    report = convert_config(config(more=MMLU.format(files=files, metric=metric)))
    assert reason in "; ".join(report.reasons)


def test_layers_that_transformers_joined_lose_their_adapters_and_it_is_said(config):
    mixtral = ("base = 'owner/base'", "base = 'mistralai/Mixtral-8x7B-v0.1'")
    targets = ("task_type='CAUSAL_LM'", "target_modules=['q_proj', 'w1', 'w2']")
    report = convert_config(config(mixtral, targets))
    assert report.values["lora_target_modules"] == ["q_proj"]
    assert "w1, w2: its experts' weights are joined" in report.changes["targets"]


def test_a_config_that_an_earlier_version_dumped_is_read_by_its_settings(tmp_path):
    """It names modules of that version, which are not imported."""
    values = {"pretrained_model_name_or_path": "owner/base", "data_path": "a.json", "lr": 3e-5}
    dumped = tmp_path / "run.py"
    dumped.write_text(
        "model = {'type': 'elysia.train.sft.SupervisedFinetune', 'llm': {'path': 'base'}}\n"
        "train_dataloader = {'dataset': {'type': 'elysia.train.dataset.PackedDialogues'}}\n"
        "custom_hooks = [{'type': 'elysia.train.hooks.plan_hook.PlanHook'}]\n"
        f"settings = {values!r}\n"
    )
    assert load_settings(dumped).non_defaults() == values
