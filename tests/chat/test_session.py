"""One turn of a conversation: history, context, cancelling. The engine is the scripted one."""

import threading

import pytest

from elysia.chat.session import ChatSession
from elysia.core.errors import EngineError
from elysia.core.templates import get_template, render_prompt
from elysia.engines.base import Sampling
from elysia.engines.scripted import ScriptedEngine

TEMPLATE = get_template("internlm2_chat")


def reply_to(session, text, cancel=None):
    return "".join(delta.text for delta in session.reply(text, cancel))


def turns(request):
    return [(message.role, message.text) for message in request.messages]


def test_a_turn_is_remembered_and_sent_with_the_next():
    engine = ScriptedEngine(["hello there", "again"])
    session = ChatSession(engine, TEMPLATE, system="Be kind.")
    assert reply_to(session, "hi") == "hello there"
    assert reply_to(session, "more") == "again"
    assert turns(engine.requests[1]) == [
        ("system", "Be kind."),
        ("user", "hi"),
        ("assistant", "hello there"),
        ("user", "more"),
    ]


def test_the_last_delta_says_how_it_ended_and_what_it_took():
    session = ChatSession(ScriptedEngine(["abc"]), TEMPLATE)
    *middle, last = session.reply("hi")
    assert [delta.finish for delta in middle] == [None] * len(middle)
    assert last.finish == "stop"
    assert last.usage.reply_tokens == 3


def test_stop_texts_are_handed_on_and_never_shown():
    engine = ScriptedEngine(["fine<|im_end|>and on"])
    session = ChatSession(engine, TEMPLATE, stop=["<|im_end|>", "<|im_end|>"])
    assert reply_to(session, "hi") == "fine"
    assert engine.requests[0].stop == ("<|im_end|>",)


def test_a_cancelled_reply_is_remembered_as_far_as_it_came():
    session = ChatSession(ScriptedEngine(["abcdefgh", "x"]), TEMPLATE)
    cancel, shown = threading.Event(), ""
    for delta in session.reply("hi", cancel):
        shown += delta.text
        if len(shown) >= 4:
            cancel.set()
        last = delta
    assert last.finish == "cancelled"
    assert shown == "abcd"
    assert session.history[-1].text == "abcd"


def test_a_reader_who_leaves_keeps_what_was_read():
    session = ChatSession(ScriptedEngine(["abcdefgh"]), TEMPLATE)
    reply = session.reply("hi")
    next(reply)
    reply.close()
    assert [message.text for message in session.history] == ["hi", "ab"]


def test_a_turn_without_a_word_is_forgotten():
    session = ChatSession(ScriptedEngine(["never"]), TEMPLATE)
    cancel = threading.Event()
    cancel.set()
    assert reply_to(session, "hi", cancel) == ""
    assert session.history == []


def test_a_turn_that_fails_is_forgotten():
    session = ChatSession(ScriptedEngine([]), TEMPLATE)
    with pytest.raises(EngineError):
        reply_to(session, "hi")
    assert session.history == []


def test_reset_forgets_everything_but_the_system():
    engine = ScriptedEngine(["a", "b"])
    session = ChatSession(engine, TEMPLATE, system="S")
    reply_to(session, "one")
    session.reset()
    reply_to(session, "two")
    assert turns(engine.requests[1]) == [("system", "S"), ("user", "two")]


def test_whole_oldest_turns_are_left_out_and_the_system_stays():
    engine = ScriptedEngine(["r" * 30] * 8, context_length=400)
    session = ChatSession(engine, TEMPLATE, system="SYS", sampling=Sampling(max_new_tokens=60))
    for number in range(8):
        reply_to(session, f"question {number}")
    for request in engine.requests:
        roles = [role for role, _ in turns(request)]
        assert roles == ["system", *["user", "assistant"] * ((len(roles) - 2) // 2), "user"]
        assert len(render_prompt(request.messages, TEMPLATE)) + 60 <= 400
    sent = turns(engine.requests[-1])
    assert ("user", "question 0") not in sent
    assert ("user", "question 6") in sent
    assert len(session.history) == 16  # what does not fit is not forgotten


def test_no_turn_is_left_out_that_would_fit():
    engine = ScriptedEngine(["r"] * 3, context_length=400)
    session = ChatSession(engine, TEMPLATE, sampling=Sampling(max_new_tokens=60))
    for number in range(3):
        reply_to(session, f"question {number}")
    assert len(engine.requests[-1].messages) == 5


def test_a_limit_as_long_as_the_context_still_leaves_a_memory():
    engine = ScriptedEngine(["fine"] * 2, context_length=300)
    session = ChatSession(engine, TEMPLATE, sampling=Sampling(max_new_tokens=2048))
    reply_to(session, "one")
    reply_to(session, "two")
    assert ("user", "one") in turns(engine.requests[1])


def test_a_message_that_cannot_fit_is_a_sentence_with_the_numbers():
    session = ChatSession(ScriptedEngine(["x"], context_length=100), TEMPLATE, system="S")
    with pytest.raises(EngineError, match="the model's context is 100"):
        reply_to(session, "很" * 200)
    assert session.history == []


def test_each_turn_draws_anew_and_a_conversation_can_be_repeated():
    def seeds():
        engine = ScriptedEngine(["a"] * 3)
        session = ChatSession(engine, TEMPLATE, sampling=Sampling(seed=5))
        for _ in range(3):
            reply_to(session, "same")
        return [request.sampling.seed for request in engine.requests]

    assert seeds() == seeds() == [5, 6, 7]
