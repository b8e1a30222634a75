"""Another server behind the protocol: here, our own gateway."""

import io
import json
import sys
import threading
from dataclasses import replace

import pytest

pytest.importorskip("fastapi", reason="requirements/serve.lock is not installed")

import httpx

from elysia.app import ModelConfig, load_engine
from elysia.cli import main
from elysia.core.errors import EngineError, UsageError
from elysia.core.messages import Message
from elysia.core.templates import get_template
from elysia.engines import openai
from elysia.engines.base import GenerationRequest, Sampling
from tests.gateway.parrot import KEY, MANNER, ParrotEngine, running

TEMPLATE = get_template("default")


@pytest.fixture(scope="module")
def parrot():
    return ParrotEngine()


@pytest.fixture(scope="module")
def url(parrot):
    with running([("parrot", parrot, MANNER)]) as client:
        yield str(client.base_url)


@pytest.fixture(scope="module")
def engine(url):
    engine = openai.build_engine(url)
    yield engine
    engine.close()


def ask(text, stop=(), **sampling):
    return GenerationRequest([Message("user", text)], TEMPLATE, stop, Sampling(**sampling))


def test_a_reply_comes_in_pieces_with_its_usage(engine):
    *pieces, last = engine.stream(ask("Hello 你好"))
    assert "".join(piece.text for piece in pieces) + last.text == "Hello 你好"
    assert (last.finish, last.usage.reply_tokens) == ("stop", 8)
    assert engine.model == "parrot" and engine.context_length == 512


def test_characters_that_some_take_for_line_ends_come_through(engine):
    odd = "a\u2028b\x85c\u2029d\x1ce\x0bf"
    assert "".join(delta.text for delta in engine.stream(ask(odd))) == odd


def test_stop_texts_beyond_what_servers_take_are_watched_here(engine):
    stops = ("1", "2", "3", "4", "你")
    assert "".join(d.text for d in engine.stream(ask("Hello 你好", stops))) == "Hello "


def test_thoughts_of_the_server_are_apart(engine):
    *pieces, last = engine.stream(ask("<think>Hm.</think>Hi"))
    assert "".join(piece.text for piece in [*pieces, last]) == "Hi"
    assert "".join(piece.reasoning for piece in [*pieces, last]) == "Hm."
    assert last.usage.reasoning_tokens == 11


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "Hm.", "content": "Hi"},
        {"reasoning": "Hm.", "content": "Hi"},
        {"content": "<think>Hm.</think>Hi"},
    ],
)
def test_thoughts_come_under_any_of_their_names(delta):
    def answer(request):
        bodies.append(json.loads(request.content))
        event = {"choices": [{"index": 0, "delta": delta, "finish_reason": "stop"}]}
        return httpx.Response(200, text=f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n")

    bodies = []
    client = httpx.Client(base_url="http://there/v1", transport=httpx.MockTransport(answer))
    engine = openai.OpenAIEngine(client, "m", 512, thinking=False)
    pieces = list(engine.stream(replace(ask("x"), thinking=True, reasoning_effort="low")))
    assert "".join(piece.text for piece in pieces) == "Hi"
    assert "".join(piece.reasoning for piece in pieces) == "Hm."
    list(engine.stream(ask("x")))
    assert [body["chat_template_kwargs"]["enable_thinking"] for body in bodies] == [True, False]
    assert bodies[0]["reasoning_effort"] == "low" and "reasoning_effort" not in bodies[1]


def test_limits_and_cancelling(engine, parrot):
    *_, last = engine.stream(ask("Hello", max_new_tokens=2))
    assert last.finish == "length"
    cancel = threading.Event()
    replies = engine.stream(ask("forever"), cancel)
    next(replies)
    cancel.set()
    assert list(replies)[-1].finish == "cancelled"


def test_faults_are_sentences(engine, url):
    with pytest.raises(EngineError, match="The engine broke"):
        list(engine.stream(ask("fail")))
    with pytest.raises(EngineError, match="no model 'x', only parrot"):
        openai.build_engine(url, model="x")
    with pytest.raises(EngineError, match="Nobody answers"):
        openai.build_engine("http://127.0.0.1:9")
    with running([("parrot", ParrotEngine(), MANNER)], keys=(KEY,)) as client:
        with pytest.raises(EngineError, match="refused the key") as caught:
            openai.build_engine(str(client.base_url), key="wrong-key-of-somebody")
        assert "wrong-key" not in str(caught.value)
        openai.build_engine(str(client.base_url), key=KEY).close()


def test_a_url_is_opened_by_this_engine_and_no_other(url):
    engine, manner = load_engine(ModelConfig(model=url, system="Be kind."))
    engine.close()
    assert manner.system == "Be kind."
    with pytest.raises(UsageError, match="cannot serve"):
        load_engine(ModelConfig(model=url, engine="llama_cpp"))
    with pytest.raises(UsageError, match="no adapter"):
        load_engine(ModelConfig(model=url, adapter="a"))


@pytest.mark.parametrize("verb", ["client", "chat"])
def test_the_terminal_talks_to_a_server(url, verb, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello 你好\nagain\n"))
    assert main([verb, url]) == 0
    assert capsys.readouterr().out.splitlines() == ["Hello 你好", "again"]
