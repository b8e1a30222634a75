"""Prompt templates: what is learned, what a prompt is a prefix of, and that people's words are data."""

from __future__ import annotations

import json

import pytest

from elysia.core.errors import TemplateError
from elysia.core.messages import Message
from elysia.core.templates import (
    SYSTEM_TEMPLATES,
    TEMPLATES,
    PromptTemplate,
    TextPiece,
    get_stop_words,
    get_template,
    is_document,
    render_prompt,
    render_prompt_pieces,
    render_training_pieces,
    suggest_templates,
)

every_template = pytest.mark.parametrize("name", TEMPLATES)


def talk(turns: int, system: str = "") -> list[Message]:
    messages = [Message("system", system)] if system else []
    for number in range(1, turns + 1):
        messages += [Message("user", f"问题{number}？"), Message("assistant", f"Answer {number}。")]
    return messages


def text_of(pieces: list[TextPiece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_there_are_27_templates_and_8_system_texts():
    assert len(TEMPLATES) == 27
    assert len(SYSTEM_TEMPLATES) == 8
    assert all(name == template.name for name, template in TEMPLATES.items())


@every_template
@pytest.mark.parametrize("system", ["", "你是爱莉希雅。"])
@pytest.mark.parametrize("turns", range(1, 6))
def test_a_chat_prompt_is_a_prefix_of_the_training_text(name, system, turns):
    template = get_template(name)
    messages = talk(turns, system)
    trained = render_training_pieces(messages, template)
    replies = [i for i, message in enumerate(messages) if message.role == "assistant"]
    for at in replies:
        prompt_text = messages[:at]
        assert text_of(trained).startswith(render_prompt(prompt_text, template))
        pieces = render_prompt_pieces(prompt_text, template)
        assert trained[: len(pieces)] == pieces
        following = trained[len(pieces)]
        assert following.learn and following.text.startswith(messages[at].text)


@every_template
def test_only_replies_and_what_ends_them_are_learned(name):
    template = get_template(name)
    messages = talk(3, "系统")
    learned = [p for p in render_training_pieces(messages, template) if p.learn]
    texts = [p.text for p in learned if p.special is None]
    assert texts == [f"Answer {n}。{template.suffix}" for n in (1, 2, 3)]
    assert all(p.special in (None, "eos") for p in learned)
    # Every reply ends in something that stops generation: its suffix, an eos, or both.
    eos = sum(p.special == "eos" for p in learned)
    assert eos == (0 if template.suffix_as_eos else 3)
    assert eos or template.suffix


@every_template
def test_a_reply_marked_as_context_is_not_learned_and_changes_no_text(name):
    template = get_template(name)
    messages = talk(2)
    context = [*messages[:1], Message("assistant", messages[1].text, learn=False), *messages[2:]]
    assert text_of(render_training_pieces(context, template)) == text_of(
        render_training_pieces(messages, template)
    )
    assert "Answer 1" not in "".join(
        p.text for p in render_training_pieces(context, template) if p.learn
    )
    assert "Answer 2" in "".join(
        p.text for p in render_training_pieces(context, template) if p.learn
    )


@every_template
def test_braces_that_people_type_pass_through(name):
    odd = "{input} {system} {round} {{ }} {0} { }"
    template = get_template(name)
    messages = [Message("system", odd), Message("user", odd), Message("assistant", odd)]
    assert text_of(render_training_pieces(messages, template)).count(odd) == 3
    assert render_prompt(messages[:2], template).count(odd) == 2


@every_template
def test_each_piece_knows_which_part_people_wrote(name):
    messages = [Message("system", "SYS"), Message("user", "USR"), Message("assistant", "REP")]
    pieces = render_training_pieces(messages, get_template(name))
    written = [p.text[start:end] for p in pieces for start, end in p.content]
    assert written == ["SYS", "USR", "REP"]


@every_template
def test_bos_comes_first_and_again_only_after_an_eos(name):
    template = get_template(name)
    specials = [p.special for p in render_training_pieces(talk(3), template) if p.special]
    assert specials == (["bos"] if template.suffix_as_eos else ["bos", "eos"] * 3)


def test_the_turns_are_numbered_from_one():
    text = text_of(render_training_pieces(talk(3), get_template("chatglm2")))
    assert [text.count(f"[Round {n}]") for n in range(5)] == [0, 1, 1, 1, 0]


def test_chatml_spelt_out():
    assert text_of(render_training_pieces(talk(1, "S"), get_template("internlm2_chat"))) == (
        "<|im_start|>system\nS<|im_end|>\n"
        "<|im_start|>user\n问题1？<|im_end|>\n"
        "<|im_start|>assistant\nAnswer 1。<|im_end|>\n"
    )


def test_a_system_message_in_the_middle_goes_before_its_own_turn():
    messages = [*talk(1), Message("system", "S2"), *talk(1)]
    text = text_of(render_training_pieces(messages, get_template("qwen_chat")))
    assert text.index("Answer 1") < text.index("system\nS2") < text.rindex("问题1")


def test_messages_in_a_row_are_one_turn():
    messages = [Message("user", "a"), Message("user", "b"), Message("tool", "c")]
    assert "user\na\nb\nc<|im_end|>" in render_prompt(messages, get_template("qwen_chat"))


@every_template
def test_minimal_prompts_can_be_rendered(name):
    template = get_template(name)
    assert render_prompt([], template) == render_prompt([Message("user", "")], template)
    assert render_prompt([Message("system", "人设")], template).count("人设") == 1
    assert render_prompt([Message("system", ""), Message("user", "a")], template) == render_prompt(
        [Message("user", "a")], template
    )


def test_a_prompt_that_is_already_answered_is_refused_with_a_sentence():
    with pytest.raises(TemplateError, match="nothing to answer"):
        render_prompt(talk(1), get_template("qwen_chat"))


def test_a_question_marked_to_be_learned_is_refused():
    with pytest.raises(TemplateError, match="only replies"):
        render_training_pieces(
            [Message("user", "a", learn=True), Message("assistant", "b")], TEMPLATES["default"]
        )


@every_template
def test_a_document_is_learned_whole_and_without_any_template(name):
    document = [Message("assistant", "从前有座山。")]
    assert is_document(document) and not is_document(talk(1))
    pieces = render_training_pieces(document, get_template(name))
    assert [(p.text, p.learn, p.special) for p in pieces] == [
        ("", False, "bos"),
        ("从前有座山。", True, None),
        ("", True, "eos"),
    ]


def test_a_greeting_answers_an_empty_input():
    messages = [Message("assistant", "嗨"), Message("user", "你好"), Message("assistant", "在")]
    template = get_template("qwen_chat")
    prompt_text = [Message("user", ""), *messages]
    assert text_of(render_training_pieces(messages, template)) == text_of(
        render_training_pieces(prompt_text, template)
    )


@every_template
def test_a_template_survives_being_written_as_json(name):
    template = get_template(name)
    again = PromptTemplate.from_dict(json.loads(json.dumps(template.to_dict())))
    assert again == template and hash(again) == hash(template)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sufix": "x"}, "Did you mean 'suffix'"),
        ({"system": None}, "'system' must be text"),
        ({"system": "no field"}, "lacks the field {system}"),
        ({"instruction": "no field"}, "lacks the field {input}"),
        ({"stop_words": "<|im_end|>"}, "'stop_words' must be a list"),
        ({"suffix": ""}, "needs a `suffix`"),
    ],
)
def test_a_damaged_template_is_refused_with_a_sentence(change, sentence):
    with pytest.raises(TemplateError) as error:
        PromptTemplate.from_dict({**get_template("internlm2_chat").to_dict(), **change})
    assert sentence in str(error.value)


def test_a_template_without_its_instruction_is_refused():
    with pytest.raises(TemplateError, match="needs the field 'instruction'"):
        PromptTemplate.from_dict({"name": "x", "system": "{system}"})


def test_an_unknown_template_names_the_nearest():
    with pytest.raises(TemplateError, match="Did you mean 'internlm2_chat'"):
        get_template("internlm2-chat")


@every_template
def test_stop_words_hold_the_suffix_once_and_nothing_empty(name):
    template = get_template(name)
    words = get_stop_words(template)
    assert len(set(words)) == len(words) and "" not in words
    assert not template.suffix or template.suffix in words
    assert set(template.stop_words) <= set(words)


@pytest.mark.parametrize(
    ("model_type", "name", "expected"),
    [
        ("internlm2", "/models/anything", "internlm2_chat"),
        ("internlm", "internlm/internlm-chat-7b", "internlm_chat"),
        ("qwen2", "Qwen/Qwen2.5-0.5B-Instruct", "qwen_chat"),
        ("llama", "meta-llama/Llama-2-7b-chat-hf", "llama2_chat"),
        ("llama", "meta-llama/Llama-3.2-1B-Instruct", "llama3_chat"),
        ("llama", "codellama/CodeLlama-7b-hf", "code_llama_chat"),
        ("llama", "lmsys/vicuna-7b-v1.5", "vicuna"),
        ("baichuan", "baichuan-inc/Baichuan2-7B-Chat", "baichuan2_chat"),
        ("baichuan", "baichuan-inc/Baichuan-13B-Chat", "baichuan_chat"),
        ("mixtral", "mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral"),
        ("gemma2", "google/gemma-2-2b-it", "gemma"),
        ("phi3", "microsoft/Phi-3-mini-4k-instruct", "phi3_chat"),
    ],
)
def test_a_known_model_names_its_template_first(model_type, name, expected):
    assert suggest_templates(model_type, name)[0] == expected


def test_only_existing_templates_are_said_to_fit_and_unknown_models_have_none():
    from elysia.core.templates import _SUGGESTIONS

    assert {name for *_, names in _SUGGESTIONS for name in names} <= set(TEMPLATES)
    assert suggest_templates("llama", "./tiny") == suggest_templates("gpt2", "gpt2") == ()


def test_the_template_strings_equal_the_golden_ones(shared_data):
    golden = json.loads((shared_data / "golden/xtuner_templates.json").read_text("utf-8"))
    assert golden["system_templates"] == SYSTEM_TEMPLATES
    assert len(golden["templates"]) == 15
    for name, entry in golden["templates"].items():
        own = {key.upper(): value for key, value in get_template(name).to_dict().items()}
        defaults = {"SUFFIX": "", "SUFFIX_AS_EOS": False, "SEP": "", "STOP_WORDS": []}
        assert {**defaults, **entry["template"], "NAME": name} == own
