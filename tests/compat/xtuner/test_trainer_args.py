"""Configs of XTuner's second shape, for Hugging Face's Trainer."""

import pytest

from elysia.compat.xtuner.convert import convert_config
from elysia.train.config.settings import build_settings

CONFIG = """
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

from xtuner.dataset import process_hf_dataset
from xtuner.dataset.map_fns import alpaca_map_fn, template_map_fn_factory
from xtuner.utils import PROMPT_TEMPLATE

model = dict(type=AutoModelForCausalLM.from_pretrained, pretrained_model_name_or_path='owner/base')
lora = dict(type=LoraConfig, r=16, lora_alpha=8, lora_dropout=0.05, bias='none', task_type='CAUSAL_LM')
tokenizer = dict(type=AutoTokenizer.from_pretrained, pretrained_model_name_or_path='owner/base')
training_args = dict(
    type=TrainingArguments, output_dir='x', do_train=True, num_train_epochs=2, learning_rate=3e-4,
    per_device_train_batch_size=2, gradient_accumulation_steps=4, warmup_steps=5, lr_scheduler_type='cosine',
    optim='adamw_torch', logging_steps=3, save_steps=50, save_total_limit=1, gradient_checkpointing=True,
)
train_dataset = dict(
    type=process_hf_dataset, dataset=dict(type='load_dataset', path='json', data_files=dict(train='rows.json')),
    tokenizer=tokenizer, max_length=128, dataset_map_fn=alpaca_map_fn,
    template_map_fn=dict(type=template_map_fn_factory, template=PROMPT_TEMPLATE.internlm2_chat),
    pack_to_max_length=True,
)
"""


@pytest.fixture
def judged(tmp_path):
    def write(old="", new=""):
        assert old in CONFIG
        path = tmp_path / "theirs.py"
        path.write_text(CONFIG.replace(old, new) if old else CONFIG)
        return convert_config(path, device="cuda")

    return write


def test_the_trainers_arguments_become_settings(judged):
    report = judged()
    assert not report.reasons and "trainer" in report.changes
    settings = build_settings(report.values, "c")
    assert (settings.method, settings.lora_r, settings.lora_alpha) == ("lora", 16, 8)
    assert (settings.lr, settings.max_epochs, settings.batch_size) == (3e-4, 2, 2)
    assert (settings.accumulative_counts, settings.warmup_steps) == (4, 5)
    assert (settings.save_steps, settings.logging_interval) == (50, 3)
    assert (settings.save_total_limit, settings.lr_schedule) == (1, "cosine")
    assert settings.gradient_checkpointing and settings.max_length == 128


@pytest.mark.parametrize(
    ("old", "new", "name", "value"),
    [
        ("num_train_epochs=2", "max_steps=30", "max_steps", 30),
        ("'cosine'", "'linear'", "lr_schedule", "linear"),
        ("'cosine'", "'constant_with_warmup'", "lr_schedule", "constant"),
        ("warmup_steps=5", "warmup_ratio=0.1", "warmup_ratio", 0.1),
        ("learning_rate=3e-4", "bf16=True", "lr", 5e-5),
        ("save_steps=50", "save_strategy='no'", "save_steps", 0),
    ],
)
def test_what_is_said_otherwise_is_read_otherwise(judged, old, new, name, value):
    report = judged(old, new)
    assert not report.reasons, report.reasons
    assert getattr(build_settings(report.values, "c"), name) == value


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("'cosine'", "'polynomial'", "lr_scheduler_type = 'polynomial'"),
        ("'adamw_torch'", "'magic'", "optim = 'magic'"),
        ("num_train_epochs=2", "num_train_epochs=2.5", "epochs are whole"),
        ("do_train=True", "colour='red'", "training_args.colour"),
    ],
)
def test_what_the_trainer_may_do_and_we_do_not_is_a_reason(judged, old, new, reason):
    assert any(reason in text for text in judged(old, new).reasons)
