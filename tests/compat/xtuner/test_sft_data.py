"""Data of XTuner's configs: folders of InternLM's own trainer, and samplers."""

import pytest

from elysia.compat.xtuner.convert import convert_config
from elysia.train.config.settings import build_settings

CONFIG = """
from mmengine.hooks import LoggerHook
from mmengine.optim import AmpOptimWrapper
from torch.optim import AdamW
from torch.utils.data import BatchSampler
from transformers import AutoModelForCausalLM, AutoTokenizer

from xtuner.dataset.intern_repo import build_packed_dataset, {kind}
from xtuner.dataset.map_fns import template_map_fn_factory
from xtuner.dataset.samplers import InternRepoSampler
from xtuner.engine.runner import TrainLoop
from xtuner.model import SupervisedFinetune
from xtuner.utils import PROMPT_TEMPLATE

model = dict(
    type=SupervisedFinetune, use_varlen_attn=True,
    llm=dict(type=AutoModelForCausalLM.from_pretrained, pretrained_model_name_or_path='owner/base'),
)
train_dataset = dict(
    type=build_packed_dataset, packed_length=512, seed=1024,
    dataset_cfg=dict(type={kind}, folder={folder!r}, {more}),
)
train_dataloader = dict(
    batch_size=1, dataset=train_dataset, sampler=dict(type=InternRepoSampler, shuffle=True, seed=1024),
    batch_sampler=dict(type=BatchSampler, drop_last=True, batch_size=2),
)
optim_wrapper = dict(type=AmpOptimWrapper, optimizer=dict(type=AdamW, lr=1e-5), dtype='bfloat16')
param_scheduler = []
train_cfg = dict(type=TrainLoop, max_epochs=1)
"""
TOKENS, TEXT = "load_intern_repo_tokenized_dataset", "load_intern_repo_untokenized_dataset"


@pytest.fixture
def judged(tmp_path):
    def write(kind, more="", folder=None, **files):
        (tmp_path / "rows").mkdir()
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        path = tmp_path / "theirs.py"
        path.write_text(
            CONFIG.format(kind=kind, folder=folder or str(tmp_path / "rows"), more=more)
        )
        return convert_config(path, device="cuda")

    return write


def test_a_folder_of_tokens_is_a_source_of_tokens(judged, tmp_path):
    report = judged(TOKENS, "min_length=10, file_type='.bin'")
    assert not report.reasons, report.reasons
    settings = build_settings(report.values, "c")
    (source,) = settings.sources
    assert source["format"] == "tokens" and source["files"] == ["*.bin"]
    assert source["path"] == str(tmp_path / "rows") and source["min_length"] == 10
    assert settings.max_length == 512 and settings.pack_to_max_length
    assert settings.batch_size == 2 and settings.sampler == "shuffled"
    assert "drop-last" in report.changes and "order" in report.changes
    assert "no longer see" not in report.changes["packing"]  # they did not with use_varlen_attn


def test_a_folder_of_text_has_its_template(judged):
    template = (
        "template_map_fn=dict(type=template_map_fn_factory, template=PROMPT_TEMPLATE.llama3_chat)"
    )
    report = judged(TEXT, f"{template}, max_length=512, file_type='.json'")
    assert not report.reasons, report.reasons
    settings = build_settings(report.values, "c")
    assert settings.sources[0]["format"] == "openai_lines"
    assert settings.prompt_template == "llama3_chat"


def test_an_order_of_files_is_kept(judged, tmp_path):
    order = tmp_path / "order.txt"
    order.write_text("b.bin\n\na.bin\n")
    report = judged(TOKENS, f"data_order_path={str(order)!r}")
    rows = tmp_path / "rows"
    assert report.values["data_path"][0]["path"] == [str(rows / "b.bin"), str(rows / "a.bin")]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("data_order_path='nowhere.txt'", "there is no file nowhere.txt"),
        ("processed_dataset_dict_path='x'", "Arrow folders are not read"),
        ("colour='red'", "colour"),
    ],
)
def test_what_is_not_read_is_a_reason(judged, more, reason):
    assert any(reason in text for text in judged(TOKENS, more).reasons)
