"""Functions and images through the gateway: on to an engine that can, refused where none can."""

import json

import pytest

from elysia.engines import openai
from elysia.engines.base import Delta, TokenUsage
from elysia.engines.tool_calling import get_tool_set
from tests.gateway.parrot import MANNER, ParrotEngine, running

CHAT = "/v1/chat/completions"
TOOL = {"type": "function", "function": {"name": "weather", "strict": True, "parameters": {}}}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


class ToolEngine(ParrotEngine):
    """Calls the first function that it must call; says how many images it was shown."""

    capabilities = ParrotEngine.capabilities | {"tools", "images"}

    def _iter_reply(self, request, cancel):
        offer = get_tool_set(request.tools)
        shown = sum(len(message.images) for message in request.messages)
        if offer and offer.required:
            call = {"name": next(iter(offer.functions)), "arguments": {"place": "上海"}}
            text = json.dumps(call, ensure_ascii=False)
            deltas = [*map(Delta, text), Delta("", "stop", TokenUsage(1, 2))]
            yield from offer.parse_stream(deltas)
        elif shown:
            yield Delta(f"{shown} images", "stop", TokenUsage(1, 2))
        else:
            yield from super()._iter_reply(request, cancel)


@pytest.fixture(scope="module")
def able():
    return ToolEngine()


@pytest.fixture(scope="module")
def passing(able):
    """A gateway whose engine is another gateway, over an engine that can."""
    with running([("able", able, MANNER)]) as behind:
        engine = openai.build_engine(str(behind.base_url))
        with running([("m", engine, MANNER)]) as front:
            yield front
        engine.close()


def ask(text="hi", **more):
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def test_a_call_comes_through_whole_and_in_pieces(passing, able):
    body = ask(tools=[TOOL], tool_choice="required")
    (choice,) = passing.post(CHAT, json=body).json()["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
    assert call["type"] == "function" and call["id"]
    assert json.loads(call["function"]["arguments"]) == {"place": "上海"}
    assert able.requests[-1].tools["tools"] == [TOOL]
    lines = passing.post(CHAT, json=body | {"stream": True}).text.split("\n\n")
    choices = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
    assert choices[-1]["finish_reason"] == "tool_calls"
    assert any("tool_calls" in event["delta"] for event in choices)


def test_what_a_call_returned_reaches_the_engine_with_its_id(passing, able):
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    talk = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "Rain."},
    ]
    answer = passing.post(CHAT, json={"model": "m", "messages": talk, "tools": [TOOL]})
    assert answer.json()["choices"][0]["message"]["content"] == "Rain."
    *_, called, result = able.requests[-1].messages
    assert called.calls == (call,) and result.answers == "c1"


def test_images_are_shown_to_an_engine_that_sees(passing, client):
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
    ]
    body = ask(parts)
    content = passing.post(CHAT, json=body).json()["choices"][0]["message"]["content"]
    assert content == "1 images"
    refused = client.post(CHAT, json=body | {"model": "parrot"})
    assert refused.status_code == 400 and "images" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tools": [{"type": "web_search"}]}, "function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "pattern"),
        ({"tools": [TOOL, TOOL]}, "two tools"),
        ({"tool_choice": "required"}, "no tools"),
        ({"tools": [TOOL], "tool_choice": "weather"}, "required"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "not in tools",
        ),
        ({"messages": [{"role": "user", "content": "a", "tool_call_id": "c"}]}, "a tool's"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]},
            "pattern",
        ),
    ],
)  # fmt: skip
def test_what_is_no_tool_or_image_is_400(passing, changes, words):
    answer = passing.post(CHAT, json=ask() | changes)
    assert answer.status_code == 400 and words in answer.json()["error"]["message"]


def test_a_check_of_others_passes(passing):
    """PyPI's llm-comply; what it skips asks for models that reason."""
    comply = pytest.importorskip("llm_comply.cli")
    url = f"{str(passing.base_url).rstrip('/')}/v1"
    words = ["--format", "openai-chat", "--base-url", url, "--model", "m", "--api-key", "x"]
    assert comply.main([*words, "--json"]) == 0
