"""Calls of functions: what may be called, what the model reads, and the call back from its words."""

import json
import subprocess
import sys

import pytest

from elysia.core.messages import Message
from elysia.engines import json_grammar
from elysia.engines.base import Delta, TokenUsage
from elysia.engines.tool_calling import get_tool_set, render_tool_messages

WEATHER = {
    "name": "weather",
    "description": "Weather of a place.",
    "parameters": {"properties": {"place": {"type": "string"}}, "required": ["place"]},
}
TOOLS = [{"type": "function", "function": f} for f in (WEATHER, {"name": "dice"})]
USAGE = TokenUsage(3, 4)


def heard(offer, *texts, finish="stop"):
    *pieces, last = texts
    return list(offer.parse_stream([*map(Delta, pieces), Delta(last, finish, USAGE)]))


def test_who_may_be_called_follows_tool_choice():
    assert get_tool_set(None) is None
    assert get_tool_set({"tools": TOOLS, "tool_choice": "none"}) is None
    free, bound = (
        get_tool_set({"tools": TOOLS}),
        get_tool_set({"tools": TOOLS, "tool_choice": "required"}),
    )
    assert not free.required and bound.required and list(free.functions) == ["weather", "dice"]
    choice = {"type": "function", "function": {"name": "dice"}}
    named = get_tool_set({"tools": TOOLS, "tool_choice": choice})
    assert named.required and list(named.functions) == ["dice"]


def test_functions_are_described_behind_the_persona():
    talk = [Message("system", "You are Elysia."), Message("user", "Rain?")]
    first, description, last = get_tool_set({"tools": TOOLS}).describe_tools(talk)
    assert (first, last) == tuple(talk)
    assert (
        description.role == "system"
        and "Weather of a place." in description.text
        and '"dice"' in description.text
    )


def test_a_call_is_found_however_its_text_is_cut():
    offer = get_tool_set({"tools": TOOLS})
    text = '{"name": "weather", "arguments": {"place": "上海"}}'
    for size in (1, 7, len(text)):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        call, last = heard(offer, "\n", *pieces, "")
        (only_call,) = call.tool_calls
        assert call.text == "" and only_call["function"]["name"] == "weather" and only_call["id"]
        assert json.loads(only_call["function"]["arguments"]) == {"place": "上海"}
        assert (last.finish, last.usage) == ("stop", USAGE)


def test_words_pass_as_they_come():
    deltas = heard(get_tool_set({"tools": TOOLS}), " ", "你", "好 {", "}", "")
    assert [delta.text for delta in deltas] == [" ", "你", "好 {", "}", ""]
    assert not any(delta.tool_calls for delta in deltas) and deltas[-1].usage == USAGE


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "weather", "argum',  # cut short
        '{"name": "delete_all", "arguments": {}}',
        '{"name": "dice", "arguments": {}, "more": 1}',
        '{"a": 1}',
        '{"name": ["dice"], "arguments": {}}',
        "{}",
        "",
    ],
)
def test_what_is_no_call_stays_text(text):
    deltas = heard(get_tool_set({"tools": TOOLS}), text, "", finish="length")
    assert "".join(delta.text for delta in deltas) == text
    assert not any(delta.tool_calls for delta in deltas) and deltas[-1].finish == "length"


def test_a_schema_that_refers_to_its_own_parts_makes_a_grammar():
    pytest.importorskip("llguidance", reason="requirements/serve.lock is not installed")
    place = {"type": "object", "properties": {"city": {"type": "string"}}}
    parameters = {"properties": {"where": {"$ref": "#/$defs/Place"}}, "$defs": {"Place": place}}
    tool = {"type": "function", "function": {"name": "rain", "parameters": parameters}}
    for choice in ("auto", "required"):
        grammar = get_tool_set({"tools": [*TOOLS, tool], "tool_choice": choice}).grammar()
        assert json_grammar.check_grammar(grammar) == grammar


def test_earlier_calls_and_their_results_are_spelled_out():
    called = {"id": "c1", "function": {"name": "dice", "arguments": '{"sides": 6}'}}
    talk = [
        Message("user", "Roll."),
        Message("assistant", "", calls=(called,)),
        Message("tool", "4", answers="c1"),
    ]
    _, call, result = render_tool_messages(talk)
    assert json.loads(call.text) == {"name": "dice", "arguments": {"sides": 6}}
    assert (result.role, result.text) == ("tool", "dice returned: 4")
    assert render_tool_messages(talk[:1]) is not None and render_tool_messages(talk[:1]) == talk[:1]


def test_training_and_chat_do_without_what_serving_alone_needs():
    blocked = "llguidance", "xllamacpp", "gguf", "fastapi", "prometheus_client"
    code = f"""if True:
        import sys
        sys.modules.update(dict.fromkeys({blocked!r}))  # an import of one fails
        import elysia.app, elysia.cli.chat, elysia.engines.transformers, elysia.train.engine.runner
    """
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
