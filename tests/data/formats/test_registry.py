"""Dataset formats: the turns that XTuner makes of a row, and a sentence for a row that is wrong."""

from __future__ import annotations

import copy
import json

import pytest

from elysia.core.errors import DataError
from elysia.core.messages import Message
from elysia.core.templates import SYSTEM_TEMPLATES
from elysia.data.formats.registry import FORMATS, detect_format, is_same_shape

XTUNERS = [
    "alpaca",
    "alpaca_zh",
    "arxiv",
    "code_alpaca",
    "colors",
    "crime_kg_assitan",
    "default",
    "law_reference",
    "llava",
    "llava_image_only",
    "medical",
    "msagent_react",
    "oasst1",
    "openai",
    "openorca",
    "pretrain",
    "sql",
    "stack_exchange",
    "tiny_codes",
    "wizardlm",
]

TALK = [{"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}]
IMAGE_TALK = [{"from": "human", "value": "<image>\n问"}, {"from": "gpt", "value": "答"}]
MESSAGES = [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]

ROWS = {
    "alpaca": {"instruction": "问", "input": "", "output": "答"},
    "alpaca_zh": {"instruction_zh": "问", "input_zh": "", "output_zh": "答"},
    "arxiv": {"abstract": "问", "title": "答"},
    "code_alpaca": {"prompt": "问", "completion": "答"},
    "colors": {"description": "x: 问", "color": "答"},
    "crime_kg_assitan": {"input": "问", "output": "答"},
    "crime_kg_assitant": {"input": "问", "output": "答"},
    "default": {"input": "问", "output": "答"},
    "law_reference": {"question": "问", "answer": "答"},
    "llava": {"image": "1.png", "conversations": IMAGE_TALK},
    "llava_image_only": {"image": "1.png", "conversations": IMAGE_TALK},
    "medical": {"instruction": "问", "input": "", "output": "答"},
    "msagent_react": {
        "conversations": [{"from": "user", "value": "问"}, {"from": "assistant", "value": "答"}]
    },
    "oasst1": {"text": "### Human: 问 ### Assistant: 答"},
    "openai": {"messages": MESSAGES},
    "openorca": {"system_prompt": "S", "question": "问", "response": "答"},
    "pretrain": {"text": "答"},
    "sharegpt": {"conversations": TALK},
    "sql": {"context": "表", "question": "问", "answer": "答"},
    "stack_exchange": {"question": "问", "response": "答"},
    "tiny_codes": {"prompt": "问", "response": "答"},
    "wizardlm": {"conversations": TALK},
    "xtuner": {"conversation": [{"input": "问", "output": "答"}]},
}
SYSTEMS = {
    "arxiv": "arxiv_gentile",
    "code_alpaca": "coder",
    "colors": "colorist",
    "crime_kg_assitan": "lawyer",
    "crime_kg_assitant": "lawyer",
    "law_reference": "lawyer",
    "medical": "medical",
    "sql": "sql",
    "tiny_codes": "coder",
}

every_format = pytest.mark.parametrize("name", FORMATS)


def test_all_of_xtuners_formats_and_two_more_are_there():
    assert set(XTUNERS) | {"xtuner", "sharegpt", "crime_kg_assitant"} == set(FORMATS) == set(ROWS)
    assert len(XTUNERS) == 20


@every_format
def test_a_row_becomes_a_question_and_a_learned_reply_and_stays_as_it_was(name):
    row = copy.deepcopy(ROWS[name])
    messages = FORMATS[name](row)
    assert row == ROWS[name]
    assert messages[-1].role == "assistant" and "答" in messages[-1].text
    assert [m for m in messages if m.learned] == messages[-1:]
    if name not in ("pretrain", "llava_image_only"):
        assert "问" in messages[-2].text
    system = SYSTEM_TEMPLATES[SYSTEMS[name]] if name in SYSTEMS else None
    systems = [m.text for m in messages if m.role == "system"]
    assert systems == ([system] if system else ["S"] if name == "openorca" else [])


@every_format
def test_a_row_looks_like_its_own_format(name):
    guess = detect_format(ROWS[name])
    assert guess is not None and is_same_shape(guess, name)


def _break(value, change):
    """A copy of a row with `change` put in the place of the reply."""
    if isinstance(value, dict):
        return {key: _break(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_break(item, change) for item in value]
    return change if value == "答" else value


@every_format
@pytest.mark.parametrize(
    ("change", "sentence"),
    [(None, "is null"), ("", "is empty"), (" \n", "is empty"), (7, "must be text, not int")],
)
def test_a_null_empty_or_mistyped_reply_is_refused(name, change, sentence):
    if name == "oasst1":
        pytest.skip("its replies lie inside one text; see the test below")
    with pytest.raises(DataError, match=sentence):
        FORMATS[name](_break(ROWS[name], change))


@every_format
@pytest.mark.parametrize(
    ("damage", "sentence"), [("好\ufffd吗", r"U\+FFFD"), ("好\ud83d", "surrogate")]
)
def test_damaged_text_is_refused_wherever_it_stands(name, damage, sentence):
    row = json.loads(
        json.dumps(ROWS[name]).replace(json.dumps("答")[1:-1], json.dumps(damage)[1:-1])
    )
    with pytest.raises(DataError, match=sentence) as error:
        FORMATS[name](row)
    assert "'" in str(error.value)  # the key is named


@every_format
def test_a_row_of_no_format_names_what_is_missing(name):
    with pytest.raises(DataError, match=r"missing|must hold"):
        FORMATS[name]({"foo": "bar"})


def test_a_misspelt_key_names_the_nearest():
    with pytest.raises(DataError, match="Did you mean 'ouput'"):
        FORMATS["alpaca"]({"instruction": "a", "input": "", "ouput": "b"})


def test_the_path_to_a_bad_value_is_spelt_out():
    row = {"conversation": [{"input": "a", "output": "b"}, {"input": "c", "output": None}]}
    with pytest.raises(DataError, match=r"'conversation\[2\].output' is null"):
        FORMATS["xtuner"](row)


@pytest.mark.parametrize(
    ("name", "row", "sentence"),
    [
        ("xtuner", {"conversation": []}, "is an empty list"),
        ("xtuner", {"conversation": {"input": "a"}}, "must be a list, not dict"),
        ("xtuner", {"conversation": ["a"]}, r"'conversation\[1\]' must be an object"),
        ("xtuner", {"conversation": [{"output": "a", "output_with_loss": "no"}]}, "true or false"),
        ("openai", {"messages": [{"role": "usr", "content": "a"}]}, "Did you mean 'user'"),
        ("openai", {"messages": [{"role": "user", "content": "a"}]}, "no reply after a question"),
        (
            "openai",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "not text",
        ),
        ("sharegpt", {"conversations": [{"value": "a"}]}, "role' is missing"),
        ("wizardlm", {"conversations": [{"from": "system", "value": "a"}]}, "'human' or 'gpt'"),
        ("llava_image_only", {"conversations": TALK}, "must hold <image>"),
        ("oasst1", {"text": "no marks"}, "holds no '### Human:'"),
        ("oasst1", {"text": "### Human: a ### Human: b"}, "take turns"),
        ("oasst1", {"text": "### Human: a ### Assistant: "}, "empty answer"),
        ("msagent_react", {"conversations": "no list"}, "does not spell a list"),
    ],
)
def test_what_is_wrong_is_said(name, row, sentence):
    with pytest.raises(DataError, match=sentence):
        FORMATS[name](row)


def test_native_rows_keep_systems_context_and_empty_inputs():
    row = {
        "conversation": [
            {"system": "S", "input": "a", "output": "b", "output_with_loss": False},
            {"output": "d", "system": None},
        ]
    }
    assert FORMATS["xtuner"](row) == [
        Message("system", "S"),
        Message("user", "a"),
        Message("assistant", "b", learn=False),
        Message("user", ""),
        Message("assistant", "d"),
    ]


def test_openai_follows_xtuner_on_loss_order_and_loose_ends():
    talk = [
        {"role": "assistant", "content": "开场"},
        {"role": "system", "content": "S"},
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c", "loss": "False"},
        {"role": "user", "content": "d"},
        {"role": "assistant", "content": "e", "loss": True},
        {"role": "user", "content": "loose"},
    ]
    messages = FORMATS["openai"]({"messages": talk})
    assert [(m.role, m.text, m.learned) for m in messages] == [
        ("system", "S", False),
        ("user", "ab", False),
        ("assistant", "c", False),
        ("user", "d", False),
        ("assistant", "e", True),
    ]


def test_openai_takes_lists_of_text_parts_and_loss_weights():
    talk = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "value": "b"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "c"}], "loss_weight": 0.0},
        {"role": "user", "content": "d", "loss_weight": 0.0},
        {"role": "assistant", "content": "e", "loss_weight": 1.0},
    ]
    messages = FORMATS["openai"]({"messages": talk})
    assert [m.text for m in messages] == ["ab", "c", "d", "e"]
    assert [m.learned for m in messages] == [False, False, False, True]


def test_sharegpt_takes_both_spellings_and_a_system_beside():
    beside = FORMATS["sharegpt"]({"system": "S", "conversations": TALK})
    messages = [{"role": "system", "content": "S"}, *MESSAGES]
    assert beside == FORMATS["sharegpt"]({"conversations": messages})


def test_questions_in_a_row_keep_their_images():
    talk = [{"from": "human", "value": "先"}, *IMAGE_TALK]
    first = FORMATS["llava"]({"image": "1.png", "conversations": talk})[0]
    assert first == Message("user", "先<image>\n问", images=("1.png",))


def test_a_tool_call_becomes_thought_action_response_and_answer():
    called = (
        '想想<|startofthink|>```JSON\n{"api_name": "calc", "parameters": {"x": 1}}\n```<|endofthink|>'
        '```<|startofexec|>```JSON\n{"r": 2}\n```<|endofexec|>好了'
    )
    tool = '{"name": "bare", "description": "光"} {"name": "calc", "description": "算", "paths": [{"parameters": [{"name": "x", "description": "数"}]}]}'
    talk = [
        {"from": "system", "value": f"tools: {tool} {{broken"},
        {"from": "user", "value": "1+1?"},
        {"from": "assistant", "value": called},
    ]
    messages = FORMATS["msagent_react"]({"conversations": str(talk)})
    assert [m.role for m in messages] == ["system", "user", "assistant", "system", "assistant"]
    assert "calc" in messages[0].text and "输入参数: {'x': '数'}" in messages[0].text
    assert messages[2].text.startswith("Thought:想想\nAction:calc\nAction Input:{'x': 1}\n")
    assert messages[3].text == "Response:{'r': 2}\n"
    assert messages[4].text == "Final Answer:好了\n"


@pytest.mark.parametrize(
    "reply",
    [
        "<|startofthink|>not json<|endofthink|>",
        '<|startofthink|>{"no": "name"}<|endofthink|>',
        "a<|startofexec|>b<|startofexec|>",
    ],
)
def test_a_tool_call_that_cannot_be_read_leaves_the_row_out(reply):
    talk = [{"from": "user", "value": "a"}, {"from": "assistant", "value": reply}]
    assert FORMATS["msagent_react"]({"conversations": talk}) == []


def test_a_tool_result_without_an_answer_adds_no_turn():
    talk = [
        {"from": "user", "value": "a"},
        {"from": "assistant", "value": 'b<|startofexec|>{"r": 1}<|endofexec|>'},
        {"from": "user", "value": "c"},
        {"from": "assistant", "value": "d<|startofexec|>not json<|endofexec|>e"},
    ]
    messages = FORMATS["msagent_react"]({"conversations": talk})
    assert [m.role for m in messages] == ["user", "assistant"] * 2


def test_a_talk_of_one_message_leaves_the_row_out():
    assert FORMATS["msagent_react"]({"conversations": [{"from": "user", "value": "a"}]}) == []


def test_rows_that_alpaca_marks_as_unanswered_are_left_out():
    assert FORMATS["alpaca"]({"instruction": "a", "input": "", "output": "<nooutput>"}) == []


def test_preference_pairs_look_like_no_format():
    assert detect_format({"conversations": TALK, "chosen": {}, "rejected": {}}) is None
    assert detect_format({"foo": 1}) is None
