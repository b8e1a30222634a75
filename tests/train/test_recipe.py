import pytest
import torch
from mmengine.config import Config

from elysia.core.errors import ConfigError, DeviceError, ModelError
from elysia.core.templates import TEMPLATES
from elysia.models import load
from elysia.train.bundled import bundled_configs
from elysia.train.card import run_card, system_text
from elysia.train.optimizer import optimizer
from elysia.train.recipe import recipe, unfitting_template
from elysia.train.runner import Recipe
from elysia.train.settings import Settings, load_settings, settings_from


@pytest.mark.parametrize("name", sorted(bundled_configs()))
def test_every_bundled_config_becomes_a_recipe_and_a_card(name, tiny_internlm2, tmp_path):
    settings = load_settings(name, {"pretrained_model_name_or_path": str(tiny_internlm2)})
    made = recipe(settings, name=name, work_dir=str(tmp_path))
    assert made["model"]["llm"]["bits"] == (4 if settings.method == "qlora" else None)
    assert made["optim_wrapper"]["optimizer"]["lr"] == settings.lr
    card = made["default_hooks"]["checkpoint"]["card"]
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
    settings = settings_from(plain_settings | nowhere | {name: value}, "c")
    with pytest.raises(DeviceError, match=f"{name} = {value!r}"):
        recipe(settings, name="x", work_dir="w")


def test_a_tokenizer_of_more_tokens_than_the_model_has_is_refused(
    plain_settings, tiny_tokenizer, tiny_internlm2, tmp_path
):
    own = plain_settings | {"tokenizer_name_or_path": str(tiny_tokenizer)}
    made = recipe(settings_from(own, "c"), name="x", work_dir="w")
    assert made["train_dataloader"]["dataset"]["tokenizer"] == str(tiny_tokenizer)
    words = load.load_tokenizer(tiny_tokenizer)
    words.add_tokens(["one more"])
    words.save_pretrained(tmp_path / "larger")
    larger = settings_from(own | {"tokenizer_name_or_path": str(tmp_path / "larger")}, "c")
    with pytest.raises(ModelError, match=r"tokens and .* embeddings"):
        recipe(larger, name="x", work_dir="w")


def test_an_optimizer_gets_what_it_takes_and_an_unknown_one_is_refused(plain_settings):
    plain = settings_from(plain_settings | {"optimizer": "torch.optim.SGD"}, "c")
    assert optimizer(plain, False) == {
        "type": "torch.optim.SGD", "lr": 1e-2, "weight_decay": 0.0, "fused": True
    }  # fmt: skip
    for name in ("torch.optim.Adamw", "AdamW", "no.such.Thing"):
        with pytest.raises(ConfigError, match=name):
            optimizer(settings_from(plain_settings | {"optimizer": name}, "c"), False)


def test_what_a_setting_says_is_what_the_recipe_does(plain_settings, tmp_path, monkeypatch):
    monkeypatch.setattr("elysia.train.recipe.check_device", lambda settings: None)
    settings = settings_from(
        plain_settings | {"dtype": "float16", "max_norm": 0.5, "attention": "sdpa"}, "c"
    )
    made = recipe(settings, name="x", work_dir=str(tmp_path), launcher="pytorch")
    assert made["optim_wrapper"]["type"] == "AmpOptimWrapper"
    assert made["optim_wrapper"]["clip_grad"]["max_norm"] == 0.5
    assert made["train_dataloader"]["collate_fn"]["type"].endswith("collate_padded")
    assert made["strategy"]["type"].endswith("DataParallel")
    zero = recipe(settings, name="x", work_dir=str(tmp_path), deepspeed="deepspeed_zero2")
    assert (
        zero["optim_wrapper"]["type"] == "OptimWrapper" and "clip_grad" not in zero["optim_wrapper"]
    )
    assert zero["strategy"]["max_norm"] == 0.5 and zero["strategy"]["dtype"] == "float16"


def test_the_system_text_is_the_configs_else_the_cards_line_else_none(plain_settings):
    card = "configs/personas/elysia.json"
    said = settings_from(plain_settings | {"persona": card, "SYSTEM": "Be brief."}, "c")
    assert system_text(said) == "Be brief."
    assert "爱莉希雅" in system_text(settings_from(plain_settings | {"persona": card}, "c"))
    assert system_text(settings_from(plain_settings | {"persona": card, "SYSTEM": ""}, "c")) == ""
    assert system_text(settings_from(plain_settings, "c")) == ""


def test_a_template_of_another_family_is_warned_about_with_both_names(plain_settings):
    settings = settings_from(plain_settings | {"prompt_template": "llama3_chat"}, "c")
    warning = unfitting_template(settings, "internlm2")
    assert warning and "llama3_chat" in warning and "internlm2_chat" in warning
    fitting = settings_from(plain_settings, "c")
    assert unfitting_template(fitting, "internlm2") is None
    assert unfitting_template(fitting, "some_new_model") is None


def test_the_card_names_the_bases_weights(plain_settings, tiny_internlm2, tiny_llama):
    settings = settings_from(plain_settings, "c")
    first, second = (run_card(settings, str(f)).base_weights for f in (tiny_internlm2, tiny_llama))
    assert first["sha256"] != second["sha256"]


def test_a_recipe_is_written_as_a_file_that_reads_back_equal(plain_settings, tmp_path):
    settings = Settings(**plain_settings, SYSTEM="你是'爱莉'，\n\"她\"。" * 40, weight_decay=1e-9)
    content = recipe(settings, name="x", work_dir=str(tmp_path))
    Recipe(content).dump(tmp_path / "x.py")
    assert Config.fromfile(str(tmp_path / "x.py")).to_dict() == Config(content).to_dict()


def test_lora_plus_goes_with_any_optimizer(plain_settings):
    chosen = {"optimizer": "torch.optim.SGD", "loraplus_lr_ratio": 16.0}
    settings = settings_from(plain_settings | chosen, "c")
    wrapper = recipe(settings, name="c", work_dir="w")["optim_wrapper"]
    assert wrapper["loraplus_lr_ratio"] == 16
    assert wrapper["optimizer"]["type"] == "torch.optim.SGD"
