import pytest
import torch
from mmengine.config import Config

from elysia.core.errors import ConfigError, DeviceError, ModelError
from elysia.core.paths import list_bundled_configs
from elysia.core.templates import TEMPLATES
from elysia.models import loading
from elysia.train.config.builder import build_optimizer_config, build_runner_config
from elysia.train.config.provenance import build_run_card
from elysia.train.config.settings import Settings, build_settings, load_settings
from elysia.train.config.validation import describe_template_mismatch
from elysia.train.engine.runner import RunnerConfig


@pytest.mark.parametrize("name", sorted(list_bundled_configs()))
def test_every_bundled_config_becomes_a_runner_config_and_a_card(name, tiny_internlm2, tmp_path):
    settings = load_settings(name, {"pretrained_model_name_or_path": str(tiny_internlm2)})
    config = build_runner_config(settings, name=name, work_dir=str(tmp_path))
    assert config["model"]["llm"]["bits"] == (4 if settings.method == "qlora" else None)
    assert config["optim_wrapper"]["optimizer"]["lr"] == settings.lr
    card = config["default_hooks"]["checkpoint"]["card"]
    assert card["template"] == TEMPLATES[settings.prompt_template].to_dict()
    assert all(len(d["sha256"]) == 64 for d in card["datasets"]) and card["datasets"]


@pytest.mark.parametrize(
    "name, value",
    [("dtype", "float16"), ("attention", "flash_attention_2"), ("liger_kernel", True)],
)
def test_what_a_cpu_cannot_do_is_told_before_anything_is_loaded(name, value, plain_settings):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here, which may do it")
    nowhere = {"pretrained_model_name_or_path": "no/such-model"}
    settings = build_settings(plain_settings | nowhere | {name: value}, "c")
    with pytest.raises(DeviceError, match=f"{name} = {value!r}"):
        build_runner_config(settings, name="x", work_dir="w")


def test_a_tokenizer_of_more_tokens_than_the_model_has_is_refused(
    plain_settings, tiny_tokenizer, tiny_internlm2, tmp_path
):
    own = plain_settings | {"tokenizer_name_or_path": str(tiny_tokenizer)}
    config = build_runner_config(build_settings(own, "c"), name="x", work_dir="w")
    assert config["train_dataloader"]["dataset"]["tokenizer"] == str(tiny_tokenizer)
    words = loading.load_tokenizer(tiny_tokenizer)
    words.add_tokens(["one more"])
    words.save_pretrained(tmp_path / "larger")
    larger = build_settings(own | {"tokenizer_name_or_path": str(tmp_path / "larger")}, "c")
    with pytest.raises(ModelError, match=r"tokens and .* embeddings"):
        build_runner_config(larger, name="x", work_dir="w")


def test_an_optimizer_gets_what_it_takes_and_an_unknown_one_is_refused(plain_settings):
    plain = build_settings(plain_settings | {"optimizer": "torch.optim.SGD"}, "c")
    assert build_optimizer_config(plain, False) == {
        "type": "torch.optim.SGD", "lr": 1e-2, "weight_decay": 0.0, "fused": True
    }  # fmt: skip
    for name in ("torch.optim.Adamw", "AdamW", "no.such.Thing"):
        with pytest.raises(ConfigError, match=name):
            build_optimizer_config(build_settings(plain_settings | {"optimizer": name}, "c"), False)


def test_what_a_setting_says_is_what_the_runner_config_does(plain_settings, tmp_path, monkeypatch):
    monkeypatch.setattr("elysia.train.config.builder.check_device", lambda settings: None)
    settings = build_settings(
        plain_settings | {"dtype": "float16", "max_norm": 0.5, "attention": "sdpa"}, "c"
    )
    config = build_runner_config(settings, name="x", work_dir=str(tmp_path), launcher="pytorch")
    assert config["optim_wrapper"]["type"] == "AmpOptimWrapper"
    assert config["optim_wrapper"]["clip_grad"]["max_norm"] == 0.5
    assert config["train_dataloader"]["collate_fn"]["type"].endswith("collate_padded")
    assert config["strategy"]["type"].endswith("DDPStrategy")
    zero = build_runner_config(
        settings, name="x", work_dir=str(tmp_path), deepspeed="deepspeed_zero2"
    )
    assert (
        zero["optim_wrapper"]["type"] == "OptimWrapper" and "clip_grad" not in zero["optim_wrapper"]
    )
    assert zero["strategy"]["max_norm"] == 0.5 and zero["strategy"]["dtype"] == "float16"


def test_the_system_text_is_the_configs_else_the_cards_line_else_none(plain_settings):
    card = "configs/personas/elysia.json"
    settings = build_settings(plain_settings | {"persona": card, "SYSTEM": "Be brief."}, "c")
    assert settings.load_system_text() == "Be brief."
    assert "爱莉希雅" in build_settings(plain_settings | {"persona": card}, "c").load_system_text()
    assert not build_settings(
        plain_settings | {"persona": card, "SYSTEM": ""}, "c"
    ).load_system_text()
    assert build_settings(plain_settings, "c").load_system_text() == ""


def test_a_template_of_another_family_is_warned_about_with_both_names(plain_settings):
    settings = build_settings(plain_settings | {"prompt_template": "llama3_chat"}, "c")
    warning = describe_template_mismatch(settings, "internlm2")
    assert "llama3_chat" in str(warning) and "internlm2_chat" in str(warning)
    fitting = build_settings(plain_settings, "c")
    assert describe_template_mismatch(fitting, "internlm2") is None
    assert describe_template_mismatch(fitting, "some_new_model") is None


def test_the_card_names_the_bases_weights(plain_settings, tiny_internlm2, tiny_llama):
    settings = build_settings(plain_settings, "c")
    first, second = (
        build_run_card(settings, str(f)).base_weights for f in (tiny_internlm2, tiny_llama)
    )
    assert first["sha256"] != second["sha256"]


def test_a_runner_config_is_written_as_a_file_that_reads_back_equal(plain_settings, tmp_path):
    settings = Settings(**plain_settings, SYSTEM="你是'爱莉'，\n\"她\"。" * 40, weight_decay=1e-9)
    content = build_runner_config(settings, name="x", work_dir=str(tmp_path))
    RunnerConfig(content).dump(tmp_path / "x.py")
    assert Config.fromfile(str(tmp_path / "x.py")).to_dict() == Config(content).to_dict()


def test_lora_plus_goes_with_any_optimizer(plain_settings):
    chosen = {"optimizer": "torch.optim.SGD", "loraplus_lr_ratio": 16.0}
    settings = build_settings(plain_settings | chosen, "c")
    wrapper = build_runner_config(settings, name="c", work_dir="w")["optim_wrapper"]
    assert wrapper["loraplus_lr_ratio"] == 16
    assert wrapper["optimizer"]["type"] == "torch.optim.SGD"
