"""Composition: how a model wants to be spoken to, and what is refused before anything is loaded."""

import json
import logging
import os

import pytest

from elysia.app import model_loading as app
from elysia.app import refuse_lone_adapter, resolve_chat_format
from elysia.core.errors import ModelError, RunCardError, TemplateError, UsageError
from elysia.core.run_card import RunCard
from elysia.core.templates import get_template
from elysia.models.jinja_template import JinjaTemplate


def card(name="internlm2_chat", **values):
    template = get_template(name)
    return RunCard(
        stage="merged",
        base_model="base",
        template=template.to_dict(),
        stop_words=["<stop>"],
        system="You are Elysia.",
        **values,
    )


def test_the_run_card_says_how_to_speak():
    manner = resolve_chat_format(card(), model_type="internlm2", name="m")
    assert manner.template == get_template("internlm2_chat")
    assert manner.system == "You are Elysia."
    assert set(manner.stop) >= {"<|im_end|>", "<stop>"}


def test_a_template_that_no_table_knows_is_taken_from_the_card():
    own = card()
    own.template["name"] = "my_own"
    own.template["instruction"] = "Q: {input}\nA:"
    assert (
        resolve_chat_format(own, model_type="llama", name="m").template.instruction
        == "Q: {input}\nA:"
    )


def test_what_is_asked_for_wins_over_the_card():
    manner = resolve_chat_format(
        card(), model_type="internlm2", name="m", system="", stop_words=["END"]
    )
    assert manner.system == ""
    assert "END" in manner.stop


def test_a_template_that_contradicts_the_card_is_warned_of_with_both_names(caplog):
    with caplog.at_level(logging.WARNING):
        manner = resolve_chat_format(
            card(), model_type="internlm2", name="m", prompt_template="llama3_chat"
        )
    assert manner.template.name == "llama3_chat"
    assert "<stop>" not in manner.stop
    assert "internlm2_chat" in caplog.text
    assert "llama3_chat" in caplog.text


def test_a_template_of_another_model_family_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        resolve_chat_format(None, model_type="internlm2", name="m", prompt_template="llama3_chat")
    assert "internlm2_chat" in caplog.text
    assert "llama3_chat" in caplog.text


def test_a_fitting_template_is_no_reason_to_warn(caplog):
    with caplog.at_level(logging.WARNING):
        resolve_chat_format(
            None, model_type="internlm2", name="m", prompt_template="internlm2_chat"
        )
    assert caplog.text == ""


OWN = JinjaTemplate(
    "own", "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}", "", "</s>"
)


def test_without_a_card_the_model_speaks_by_its_own_template():
    manner = resolve_chat_format(None, model_type="internlm2", name="m", own=OWN)
    assert manner.template == OWN
    assert manner.stop == ("</s>",)
    assert resolve_chat_format(card(), model_type="", name="m", own=OWN).template.name != "own"
    chosen = resolve_chat_format(
        None, model_type="internlm2", name="m", own=OWN, prompt_template="qwen_chat"
    )
    assert chosen.template.name == "qwen_chat"


def test_without_a_card_or_a_template_of_its_own_the_family_decides(caplog):
    manner = resolve_chat_format(None, model_type="internlm2", name="m")
    assert manner.template.name == "internlm2_chat"
    assert "carries no chat template" in caplog.text
    with pytest.raises(UsageError, match="--prompt-template"):
        resolve_chat_format(None, model_type="nosuch", name="m")


def test_a_misspelt_template_names_the_nearest():
    with pytest.raises(TemplateError, match="internlm2_chat"):
        resolve_chat_format(None, model_type="", name="m", prompt_template="internlm2_chta")


def test_an_adapter_given_as_the_model_says_what_to_type(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    card().write(tmp_path)
    with pytest.raises(ModelError, match=f"elysia chat base --adapter {tmp_path}"):
        refuse_lone_adapter(tmp_path, None)


def test_a_model_given_as_the_adapter_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="not an adapter folder"):
        refuse_lone_adapter(tmp_path, tmp_path)


def folder_with_gguf(tmp_path, older=False):
    folder = tmp_path / "merged"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    file = tmp_path / "merged.q8_0.gguf"
    file.write_bytes(b"GGUF")
    if older:
        os.utime(file, (1, 1))
    return folder, file


def test_the_engine_follows_from_the_model_and_the_device(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "_has_gpu", lambda: False)
    folder, file = folder_with_gguf(tmp_path)

    def chosen(**values):
        return app.choose_engine(app.ModelConfig(**values))

    assert chosen(model=str(folder)) == ("llama_cpp", str(file))
    assert chosen(model=str(file)) == ("llama_cpp", str(file))
    assert chosen(model="https://example.org/v1")[0] == "openai"
    for values in ({"adapter": "a"}, {"bits": 4}, {"engine": "transformers"}, {"dtype": "float32"}):
        assert chosen(model=str(folder), **values) == ("transformers", str(folder))
    monkeypatch.setattr(app, "_has_gpu", lambda: True)
    assert chosen(model=str(folder))[0] == "transformers"


def test_a_gguf_older_than_its_model_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "_has_gpu", lambda: False)
    folder, _ = folder_with_gguf(tmp_path, older=True)
    assert app.choose_engine(app.ModelConfig(model=str(folder)))[0] == "transformers"
    with pytest.raises(UsageError, match="elysia quantize gguf"):
        app.choose_engine(app.ModelConfig(model=str(folder), engine="llama_cpp"))


def test_the_card_beside_a_gguf_comes_before_the_one_inside(tmp_path):
    file = tmp_path / "m.q8_0.gguf"
    inside = {"elysia.run_card": json.dumps(card().to_dict())}
    assert app.read_gguf_run_card(file, inside).system == "You are Elysia."
    (tmp_path / "m.q8_0.run_card.json").write_text(json.dumps(card().updated(system="B").to_dict()))
    assert app.read_gguf_run_card(file, inside).system == "B"
    with pytest.raises(RunCardError, match="inside"):
        app.read_gguf_run_card(tmp_path / "other.gguf", {"elysia.run_card": "{"})
