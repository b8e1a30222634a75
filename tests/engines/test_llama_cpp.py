"""llama.cpp behind the protocol: what transformers says, and a child that dies is replaced."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("xllamacpp", reason="requirements/serve.lock is not installed")

from elysia.core.errors import ContextError, EngineError, ModelError, RequestError
from elysia.core.messages import Message
from elysia.core.templates import get_template
from elysia.engines import llama_cpp, transformers
from elysia.engines.base import GenerationRequest, Sampling
from elysia.export import gguf_writer
from elysia.models.gguf import gguf_reader
from elysia.models.gguf.gguf_reader import read_gguf_header
from elysia.models.gguf.llama_server import LlamaServer

TEMPLATE = get_template("internlm2_chat")
TALK = [Message("system", "你是爱莉希雅。"), Message("user", "Hello! 你好呀 🌸 <|im_end|> <s>")]


@pytest.fixture(scope="module")
def file(tiny_internlm2, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    gguf_writer.quantize_gguf(tiny_internlm2, path, file_type="f32")
    return path


@pytest.fixture(scope="module")
def engine(file):
    engine = llama_cpp.build_engine(file, slots=2, threads=1, context=512)
    yield engine
    engine.close()


def ask(**changes):
    values = {"max_new_tokens": 24, "temperature": 0.0} | changes
    return GenerationRequest(TALK, TEMPLATE, ("<|im_end|>",), Sampling(**values))


def text_of(engine, request):
    return "".join(delta.text for delta in engine.stream(request))


def test_greedy_replies_and_prompt_ids_are_those_of_transformers(engine, tiny_internlm2):
    reference = transformers.build_engine(tiny_internlm2, dtype="float32", device="cpu")
    assert engine.count_tokens(TALK, TEMPLATE) == reference.count_tokens(TALK, TEMPLATE)
    assert engine._encode(TALK, TEMPLATE) == reference.fit_prompt(ask())[0]
    assert text_of(engine, ask()) == text_of(reference, ask())


def test_a_prompt_with_characters_that_some_take_for_line_ends_is_answered(engine):
    # llama.cpp sends the prompt back in its last event.
    talk = [Message("user", "a\u2028b\x85c\u2029d")]
    *_, last = engine.stream(GenerationRequest(talk, TEMPLATE, (), Sampling(max_new_tokens=3)))
    assert last.usage.reply_tokens >= 1


def test_the_last_delta_tells_why_and_how_much(engine):
    *_, last = engine.stream(ask(max_new_tokens=5))
    assert last.finish == "length"
    assert last.usage.reply_tokens == 5
    assert last.usage.prompt_tokens == engine.count_tokens(TALK, TEMPLATE)


def test_equal_seeds_give_equal_replies_and_others_do_not(engine):
    def reply_of(seed):
        return text_of(engine, ask(temperature=1.5, top_k=0, top_p=1.0, seed=seed))

    assert reply_of(3) == reply_of(3) != reply_of(4)


def test_a_stop_text_ends_the_reply_and_is_not_shown(engine):
    whole = text_of(engine, ask())
    stop = whole[4:6]
    request = GenerationRequest(TALK, TEMPLATE, (stop,), ask().sampling)
    assert text_of(engine, request) == whole[: whole.index(stop)]


def test_cancelling_ends_the_reply_and_frees_the_slot(engine):
    for _ in range(6):  # more often than there are slots
        cancel = threading.Event()
        replies = engine.stream(ask(max_new_tokens=400), cancel)
        next(replies)
        cancel.set()
        assert list(replies)[-1].finish == "cancelled"
    assert text_of(engine, ask())


def test_a_schema_binds_the_reply_and_probabilities_are_told(engine):
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    request = GenerationRequest(TALK, TEMPLATE, (), ask().sampling, json_schema=schema, logprobs=3)
    deltas = list(engine.stream(request))
    assert "".join(d.text for d in deltas).startswith("{")
    scores = [score for delta in deltas for score in delta.logprobs]
    assert scores and all(s.logprob <= 0 and len(s.alternatives) == 3 for s in scores)


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"properties": {"rain": {"type": "boolean"}}, "required": ["rain"]},
    },
}


def called(engine, choice, **changes):
    tools = {"tools": [TOOL], "tool_choice": choice}
    sampling = ask(max_new_tokens=60, **changes).sampling
    deltas = list(
        engine.stream(GenerationRequest(TALK, TEMPLATE, ("<|im_end|>",), sampling, tools=tools))
    )
    return "".join(d.text for d in deltas), [call for d in deltas for call in d.tool_calls]


def test_a_function_that_must_be_called_is_called_by_a_model_that_knows_nothing(engine):
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        text, (call,) = called(engine, choice)
        assert text == "" and call["function"]["name"] == "weather"
        assert isinstance(json.loads(call["function"]["arguments"])["rain"], bool)


def test_a_function_that_may_be_called_leaves_words_free(engine):
    for seed in range(4):
        text, calls = called(engine, "auto", temperature=1.0, top_k=0, top_p=1.0, seed=seed)
        assert bool(text) != bool(calls)
    assert called(engine, "none") == (text_of(engine, ask(max_new_tokens=60)), [])


def test_a_form_that_cannot_be_is_refused_and_the_next_is_served(engine):
    schema = {"type": "no such type"}
    with pytest.raises(RequestError, match="no such type"):
        text_of(engine, GenerationRequest(TALK, TEMPLATE, (), ask().sampling, json_schema=schema))
    assert text_of(engine, ask())


def test_a_prompt_beyond_the_context_is_refused(engine):
    long = [Message("user", "你好" * 600)]
    with pytest.raises(ContextError, match="no room"):
        list(engine.stream(GenerationRequest(long, TEMPLATE)))


def test_a_killed_child_ends_the_stream_with_a_sentence_and_serves_the_next(engine):
    replies = engine.stream(ask(max_new_tokens=400, temperature=1.0, top_k=0))
    next(replies)
    os.kill(engine.server.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="started again"):
        list(replies)
    before = text_of(engine, ask())
    for _ in range(3):
        os.kill(engine.server.pid, signal.SIGKILL)
        assert text_of(engine, ask()) == before


def test_the_child_does_not_outlive_a_parent_that_was_killed(file):
    code = (
        "import sys, time; from pathlib import Path; from elysia.models.gguf.llama_server import LlamaServer\n"
        "s = LlamaServer(Path(sys.argv[1]), context=64, threads=1); print(s.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(1200):  # a minute
        if not running(child):
            break
        time.sleep(0.05)
    assert not running(child)


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_file_without_our_tokenizer_is_encoded_by_llama_cpp(engine, file):
    header = {k: v for k, v in read_gguf_header(file).items() if k != gguf_reader.TOKENIZER_KEY}
    foreign = gguf_reader.GgufTokenizer(header, engine.server)
    for text in ("你好 hello <|im_end|>", "<s>"):
        for split in (False, True):
            expected = engine.tokenizer([text], split_special_tokens=split)
            assert foreign([text], split_special_tokens=split) == expected
    assert (
        foreign.find_control_token("<|im_end|>")
        == engine.tokenizer.find_control_token("<|im_end|>")
        is not None
    )


def test_what_cannot_be_served_is_a_sentence(tmp_path, file):
    with pytest.raises(ModelError, match="cannot be read"):
        LlamaServer(tmp_path / "none.gguf", context=64)
    with pytest.raises(ModelError, match="tokens of context"):
        llama_cpp.build_engine(file, context=10**6)


def test_the_engine_needs_no_torch(file):
    code = "import sys; import elysia.engines.llama_cpp; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
