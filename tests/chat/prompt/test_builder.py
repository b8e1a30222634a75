"""One reply's prompt: what enters it, what finds no room, and a receipt that says both."""

from __future__ import annotations

import pytest

from elysia.chat.prompt.builder import PromptSources, TokenBudget, build_prompt
from elysia.chat.prompt.character_state import CharacterState
from elysia.core.card_file import parse_card
from elysia.core.errors import EngineError
from elysia.core.messages import Message
from elysia.core.persona import UserPersona
from elysia.knowledge.base import SearchHit
from elysia.memory.base import Memory, MemoryHit, ReasonKind, RecallReason

CARD = b"""{"name": "Mira", "description": "A clockmaker.", "personality": "", "scenario": "",
"first_mes": "", "mes_example": "<START>\\n{{user}}: tick?\\n{{char}}: tock!\\nand again\\n<START>\\n{{char}}: second"}"""


def count(messages):
    return sum(len(message.text) + 2 for message in messages)


SAID_THAT_DAY = RecallReason(ReasonKind.DAY)


def memory(id, text, message_id=None, score=1.0):
    return MemoryHit(Memory(id, "fact", text, 0.0, message_id=message_id), score, (SAID_THAT_DAY,))


def build_hit(name, text):
    return SearchHit("d1", name, 10, 10 + len(text), text, 0.5, page=3, lexical_rank=2)


def compose(texts, *, context=1000, reply=100, sources=None, **kwargs):
    character = CharacterState(parse_card(CARD, "card"), UserPersona("Tom"))
    messages = [
        Message("assistant" if number % 2 else "user", text) for number, text in enumerate(texts)
    ]
    ids = [f"m{number}" for number in range(len(messages))]
    return build_prompt(
        character, messages, ids, count=count, budget=TokenBudget(context, reply),
        sources=sources or PromptSources(), **kwargs,
    )  # fmt: skip


def test_examples_stand_before_the_talk_and_leave_first():
    messages = compose(["hello"]).messages
    assert [(m.role, m.text) for m in messages[1:]] == [
        ("user", "tick?"),
        ("assistant", "tock!\nand again"),
        ("assistant", "second"),
        ("user", "hello"),
    ]
    assert [m.text for m in compose(["hello"], examples=False).messages[1:]] == ["hello"]
    tight = compose(["hello"], context=count(messages) + 20 - 1, reply=20)
    assert [m.text for m in tight.messages[1:]] == ["tick?", "tock!\nand again", "hello"]


def test_what_is_recalled_and_looked_up_is_told_with_numbers_and_dates():
    composed = compose(
        ["what about springs?"],
        sources=PromptSources(
            recall=lambda question, without: [memory("a", "Tom likes springs.")],
            search=lambda question: [build_hit("springs.md", "Springs are coiled.")],
        ),
    )
    system = composed.messages[0].text
    assert "What Mira remembers of Tom:\n- (1970-01-01) Tom likes springs." in system
    assert "[1] springs.md: Springs are coiled." in system
    breakdown = composed.breakdown
    assert breakdown["memories"][0]["id"] == "a" and breakdown["memories"][0]["why"] == "that day"
    assert breakdown["memories"][0]["reasons"]["params"]["reasons"] == [
        {"code": "memory.reason_day", "params": {"value": ""}}
    ]
    assert breakdown["documents"][0]["why"] == "words #2"
    assert breakdown["documents"][0]["start"] == 10 and breakdown["documents"][0]["page"] == 3
    assert breakdown["documents"][0]["number"] == 1


def test_what_finds_no_room_is_named():
    composed = compose(
        ["and?"],
        context=400,
        sources=PromptSources(
            recall=lambda question, without: [memory("short", "x"), memory("long", "y" * 300)],
            search=lambda question: [build_hit("big.md", "z" * 500)],
        ),
    )
    assert [item["id"] for item in composed.breakdown["memories"]] == ["short"]
    assert [item["id"] for item in composed.breakdown["memories_dropped"]] == ["long"]
    assert [item["name"] for item in composed.breakdown["documents_dropped"]] == ["big.md"]
    assert "z" * 500 not in composed.messages[0].text


def test_what_stands_in_the_talk_is_not_asked_for_again():
    asked = {}

    def recall(question, without):
        asked["without"] = list(without)
        return []

    compose(["a", "b", "c"], sources=PromptSources(recall=recall))
    assert asked["without"] == ["m0", "m1", "m2"]


def test_what_left_the_talk_is_asked_for_and_summed_up():
    asked = {}

    def recall(question, without):
        asked["without"] = list(without)
        return [memory("old", "An old thing.", message_id="m0")]

    def summarize(left_out, budget):
        asked["left_out"] = list(left_out)
        return "They spoke of old things."

    texts = [letter * 60 for letter in "abcdefg"]
    composed = compose(
        texts, context=500, sources=PromptSources(recall=recall, summarize=summarize)
    )
    assert "m0" not in asked["without"] and "m6" in asked["without"]
    assert asked["left_out"][0] == "m0"
    assert "Earlier in this talk:\nThey spoke of old things." in composed.messages[0].text
    assert composed.breakdown["left_out"] >= 2
    assert composed.messages[1].role == "user"
    assert count(composed.messages) + 100 <= 500


@pytest.mark.parametrize("context", range(220, 900, 37))
def test_a_prompt_leaves_room_for_the_reply_whatever_the_context(context):
    texts = [f"{number} " + "w" * (7 * number % 60) for number in range(31)]
    composed = compose(
        texts,
        context=context,
        sources=PromptSources(
            recall=lambda question, without: [memory(str(n), "m" * 20) for n in range(8)],
            search=lambda question: [build_hit("d", "k" * 40)] * 4,
            summarize=lambda left_out, budget: "s" * budget,
        ),
    )
    assert count(composed.messages) + min(100, context // 2) <= context
    assert composed.messages[-1].text == texts[-1]
    assert composed.breakdown["tokens"]["prompt"] == count(composed.messages)


def test_a_message_that_cannot_fit_is_refused_with_both_numbers():
    with pytest.raises(EngineError, match=r"\d+ tokens and the model's context is 300"):
        compose(["w" * 400], context=300)


def test_things_are_told_in_the_language_of_the_newest_message():
    sources = PromptSources(recall=lambda question, without: [memory("a", "汤姆喜欢弹簧。")])
    assert "Mira记得关于Tom的这些事：" in compose(["你好"], sources=sources).messages[0].text


def test_what_has_changed_since_is_not_told_as_current():
    old = MemoryHit(Memory("a", "turn", "I live in Oslo.", 0.0, current=False), 1.0)
    system = compose(["where?"], sources=PromptSources(recall=lambda q, w: [old])).messages[0].text
    assert "I live in Oslo. (has changed since)" in system
