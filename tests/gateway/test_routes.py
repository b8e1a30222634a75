"""OpenAI's endpoints: what a well-meaning client gets."""

import asyncio
import base64
import json

import openai
import pytest

from elysia.app import ChatFormat
from elysia.core.templates import render_prompt
from elysia.engines.base import Sampling
from elysia.gateway.admission_queue import AdmissionQueue
from elysia.gateway.model_registry import ServedModel
from elysia.gateway.request_mapping import build_chat_request
from elysia.gateway.schemas import ChatRequest
from elysia.models.jinja_template import JinjaTemplate
from tests.gateway.parrot import MANNER, ParrotEngine, running

ASK = {"model": "parrot", "messages": [{"role": "user", "content": "Hello 你好🌸"}]}


def chat(client, **changes):
    return client.post("/v1/chat/completions", json=ASK | changes)


def events(answer):
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"], lines[-1]


def test_a_chat_completion_is_openais_object(client):
    body = chat(client).json()
    choice = body["choices"][0]
    message = choice["message"]
    assert (message["role"], message["content"]) == ("assistant", "Hello 你好🌸")
    assert choice["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    assert body["object"] == "chat.completion" and body["model"] == "parrot"


def test_a_stream_says_the_same_in_pieces_and_counts_when_asked(client):
    stream_events, last = events(chat(client, stream=True, stream_options={"include_usage": True}))
    assert last == "[DONE]"
    assert stream_events[0]["choices"][0]["delta"]["role"] == "assistant"
    texts = [c["delta"].get("content", "") for event in stream_events for c in event["choices"]]
    assert "".join(texts) == "Hello 你好🌸"
    assert [c["finish_reason"] for event in stream_events for c in event["choices"]][-1] == "stop"
    assert (
        stream_events[-1]["choices"] == [] and stream_events[-1]["usage"]["completion_tokens"] == 9
    )
    assert all(event["usage"] is None for event in stream_events[:-1])


def test_characters_that_some_take_for_line_ends_are_escaped_in_events(client):
    odd = "a\u2028b\x85c\u2029d"
    answer = chat(client, stream=True, messages=[{"role": "user", "content": odd}])
    raw = answer.content.decode()
    assert not any(mark in raw for mark in "\u2028\x85\u2029")
    stream_events, _ = events(answer)
    texts = [c["delta"].get("content", "") for event in stream_events for c in event["choices"]]
    assert "".join(texts) == odd


THOUGHT = [{"role": "user", "content": "<think>Hm, 你.</think>\n\nHi <think>"}]


def test_thoughts_are_reasoning_content_and_counted(client):
    body = chat(client, messages=THOUGHT).json()
    message = body["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hi <think>", "Hm, 你.")
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 14}
    stream_events, _ = events(chat(client, messages=THOUGHT, stream=True))
    deltas = [choice["delta"] for event in stream_events for choice in event["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == "Hi <think>"
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Hm, 你."
    assert "reasoning_content" not in chat(client).json()["choices"][0]["message"]


QWEN3, GPT_OSS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n" + ending + "{% endif %}"
    for ending in (
        "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}",
        "Reasoning: {{ reasoning_effort or 'medium' }}",
    )
)


@pytest.mark.parametrize(
    ("source", "asked", "end"),
    [
        (QWEN3, {}, "</think>\n\n"),
        (QWEN3, {"chat_template_kwargs": {"enable_thinking": True}}, "assistant\n"),
        (QWEN3, {"chat_template_kwargs": {"thinking": True}}, "assistant\n"),
        (QWEN3, {"chat_template_kwargs": {"enable_thinking": False}}, "</think>\n\n"),
        (QWEN3, {"thinking": {"type": "enabled"}}, "assistant\n"),
        (QWEN3, {"reasoning_effort": "low"}, "assistant\n"),
        (QWEN3, {"reasoning_effort": "none"}, "</think>\n\n"),
        (GPT_OSS, {}, "Reasoning: medium"),
        (GPT_OSS, {"reasoning_effort": "high"}, "Reasoning: high"),
        (GPT_OSS, {"chat_template_kwargs": {"reasoning_effort": "minimal"}}, "Reasoning: low"),
    ],
)
def test_a_request_asks_the_template_for_thoughts(source, asked, end):
    body = ChatRequest(**ASK, **asked)
    template = JinjaTemplate("own", source, "", "<|im_end|>")
    served = ServedModel("parrot", ParrotEngine(), ChatFormat(template), AdmissionQueue(1, 1))
    request = asyncio.run(build_chat_request(body, served, Sampling()))
    assert render_prompt(request.messages, request.template).endswith(end)


def test_a_wrong_way_to_ask_for_thoughts_is_named(client):
    answer = chat(client, chat_template_kwargs={"enable_thinking": "maybe"})
    assert answer.status_code == 400 and "enable_thinking" in answer.text
    answer = chat(client, reasoning_effort="huge")
    assert answer.status_code == 400 and "reasoning_effort" in answer.text


def test_a_stop_text_and_a_limit_end_the_reply(client):
    stopped = chat(client, stop=["你"]).json()["choices"][0]
    assert (stopped["message"]["content"], stopped["finish_reason"]) == ("Hello ", "stop")
    cut = chat(client, max_completion_tokens=3).json()["choices"][0]
    assert (cut["message"]["content"], cut["finish_reason"]) == ("Hel", "length")


def test_several_choices_have_seeds_of_their_own(client, parrot):
    body = chat(client, n=3, seed=7).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert [request.sampling.seed for request in parrot.requests[-3:]] == [7, 8, 9]
    stream_events, _ = events(chat(client, n=2, stream=True))
    assert {c["index"] for event in stream_events for c in event["choices"]} == {0, 1}


def test_the_persona_and_its_stop_words_come_from_the_model(client, parrot):
    chat(client)
    assert parrot.requests[-1].messages[0].text == "你是爱莉希雅。"
    assert "<|im_end|>" in parrot.requests[-1].stop
    own = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}]
    chat(client, messages=own)
    assert [m.text for m in parrot.requests[-1].messages] == ["Be brief.", "x"]


def test_parts_of_a_message_are_joined(client):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = chat(client, messages=[{"role": "user", "content": parts}]).json()
    assert body["choices"][0]["message"]["content"] == "a\nb"


def test_plain_completions(client):
    body = client.post("/v1/completions", json={"model": "parrot", "prompt": "abc"}).json()
    assert body["choices"][0]["text"] == "abc" and body["object"] == "text_completion"
    ask = {"model": "parrot", "prompt": "abc", "stream": True}
    stream_events, last = events(client.post("/v1/completions", json=ask))
    assert (
        "".join(c["text"] for e in stream_events for c in e["choices"]) == "abc"
        and last == "[DONE]"
    )


def test_the_simple_endpoint_keeps_the_history(client):
    body = client.post("/", json={"prompt": "b", "history": [["a", "A"]]}).json()
    assert body["response"] == "b"
    assert body["history"] == [["a", "A"], ["b", "b"]] and body["status"] == 200


def test_models_health_and_metrics(client):
    listed = client.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["parrot"]
    assert client.get("/v1/models/parrot").json()["max_model_len"] == 512
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json()["models"] == ["parrot"]
    chat(client)
    page = client.get("/metrics").text
    assert 'elysia_reply_tokens_total{model="parrot"}' in page
    assert 'elysia_requests_total{path="/v1/chat/completions",status="200"}' in page


class EmbeddingEngine(ParrotEngine):
    capabilities = frozenset({"embeddings"})

    def embed(self, texts):
        return [[1.0, 0.5, float(len(text))] for text in texts], sum(map(len, texts))


def test_embeddings_in_both_encodings():
    with running([("e", EmbeddingEngine(), MANNER)]) as client:
        body = client.post("/v1/embeddings", json={"model": "e", "input": ["ab", "c"]}).json()
        assert [entry["embedding"] for entry in body["data"]] == [[1.0, 0.5, 2.0], [1.0, 0.5, 1.0]]
        assert body["usage"]["prompt_tokens"] == 3
        ask = {"model": "e", "input": "ab", "encoding_format": "base64"}
        packed = client.post("/v1/embeddings", json=ask).json()["data"][0]["embedding"]
        assert len(base64.b64decode(packed)) == 12


def test_several_models_answer_under_their_names():
    first, second = ParrotEngine(), ParrotEngine()
    with running([("one", first, MANNER), ("two", second, MANNER)]) as client:
        chat(client, model="two")
        assert (len(first.requests), len(second.requests)) == (0, 1)


@pytest.fixture(scope="module")
def openai_client(client):
    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0) as api:
        yield api


def test_openais_own_client_is_content(openai_client):
    messages = ASK["messages"]
    whole = openai_client.chat.completions.create(model="parrot", messages=messages)
    assert whole.choices[0].message.content == "Hello 你好🌸"
    stream = openai_client.chat.completions.create(
        model="parrot", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    texts = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(texts) == "Hello 你好🌸" and chunks[-1].usage.total_tokens == 18
    assert [model.id for model in openai_client.models.list()] == ["parrot"]
    assert openai_client.completions.create(model="parrot", prompt="x").choices[0].text == "x"
    with pytest.raises(openai.NotFoundError, match="There is no model"):
        openai_client.chat.completions.create(model="gpt", messages=messages)
