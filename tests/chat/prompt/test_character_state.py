"""A card in a conversation: its greeting, its prompt, its lore."""

import json

import pytest

from elysia.chat.prompt.character_state import CharacterState
from elysia.chat.session import ChatSession
from elysia.core.card_file import parse_card
from elysia.core.errors import PersonaError, UsageError
from elysia.core.persona import Persona, UserPersona
from elysia.core.templates import get_template
from elysia.engines.scripted import ScriptedEngine

TEMPLATE = get_template("internlm2_chat")


def entry(key, content, **more):
    return {
        "keys": [key],
        "content": content,
        "extensions": {},
        "enabled": True,
        "insertion_order": 0,
        **more,
    }


def card(*entries, **more):
    data = {
        "name": "Mira", "description": "{{char}} waits.", "personality": "calm", "scenario": "a harbour",
        "first_mes": "Hi, {{user}}.", "alternate_greetings": ["Again?"], "system_prompt": "You are {{char}}.",
        "character_book": {"entries": list(entries)}, **more,
    }  # fmt: skip
    return parse_card(
        json.dumps({"spec": "chara_card_v3", "spec_version": "3.0", "data": data}).encode(), "x"
    )


def prompts(character_card, *texts, user=None, system="", **more):
    """The prompt of every turn, as (role, text)."""
    engine = ScriptedEngine(["aye"] * len(texts))
    session = ChatSession(
        engine,
        TEMPLATE,
        system=system,
        character=CharacterState(character_card, user or UserPersona("Tom"), **more),
    )
    for text in texts:
        list(session.reply(text))
    return [[(m.role, m.text) for m in request.messages] for request in engine.requests]


def test_the_system_message_is_that_of_training_and_the_greeting_comes_first():
    greeting_card = card()
    (turns,) = prompts(greeting_card, "hello")
    assert turns == [
        ("system", Persona.from_card(greeting_card.document).system_text("Tom")),
        ("assistant", "Hi, Tom."),
        ("user", "hello"),
    ]


def test_another_greeting_is_chosen_and_one_that_is_not_there_refused():
    assert prompts(card(), "x", greeting=1)[0][1] == ("assistant", "Again?")
    with pytest.raises(UsageError, match="0 to 1"):
        CharacterState(card(), greeting=2)


def test_a_card_that_does_not_greet_lets_the_user_begin_and_reset_greets_again():
    assert prompts(card(first_mes=""), "x")[0][1:] == [("user", "x")]
    session = ChatSession(ScriptedEngine(["aye"]), TEMPLATE, character=CharacterState(card()))
    list(session.reply("x"))
    session.reset()
    assert [message.text for message in session.history] == ["Hi, 你."]


def test_lore_enters_the_turns_that_call_for_it_at_its_place():
    lore_card = card(
        entry("sea", "before"),
        entry("sea", "after", position="after_char"),
        entry("sea", "@@position personality\nmood"),
        entry("s.a", "@@depth 1\n@@role user\ndeep", use_regex=True),
    )
    (turns,) = prompts(lore_card, "the sea")
    assert turns[0][1].split("\n") == [
        "You are Mira.",
        "before",
        "Mira waits.",
        "calm",
        "mood",
        "a harbour",
        "after",
    ]
    assert turns[1:] == [("assistant", "Hi, Tom."), ("user", "deep"), ("user", "the sea")]


@pytest.mark.parametrize(("depth", "place"), [(0, 4), (1, 3), (2, 2), (3, 1), (99, 1)])
def test_depth_counts_from_the_newest_message(depth, place):
    turns = prompts(
        card(entry("x", f"@@depth {depth}\ndeep", constant=True), first_mes="", scenario=""),
        "a",
        "b",
    )[1]
    assert turns[place] == ("system", "deep")
    assert [text for _, text in turns[1:] if text != "deep"] == ["a", "aye", "b"]


def test_entries_at_one_depth_keep_their_order_and_a_last_reply_is_not_put_into_its_mouth():
    book = [entry("x", f"@@depth 1\n{n}", constant=True, insertion_order=n) for n in (2, 1)]
    assert [text for _, text in prompts(card(*book, first_mes=""), "a")[0][1:]] == ["1", "2", "a"]
    last = entry("x", "@@depth 0\n@@role assistant\nso be it", constant=True)
    assert prompts(card(last), "a")[0][-1] == ("system", "so be it")


def test_a_turn_that_took_place_is_what_decorators_look_back_at():
    once = card(entry("sea", "@@dont_activate_after_match\nsalt"))
    systems = [turns[0][1] for turns in prompts(once, "sea", "sea")]
    assert ["salt" in system for system in systems] == [True, False]


def test_the_users_own_prompt_and_description_have_their_place():
    user = UserPersona("Tom", "{{user}} is a sailor.")
    (turns,) = prompts(
        card(system_prompt="{{original}} Really."), "x", user=user, system="Be {{char}}."
    )
    assert turns[0][1].startswith("Be Mira. Really.") and turns[0][1].endswith("Tom is a sailor.")
    assert prompts(card(system_prompt=""), "x", system="Be kind.")[0][0][1].startswith("Be kind.")
    closing = prompts(card(post_history_instructions="{{original}}Stay {{char}}."), "x")[0][-1]
    assert closing == ("system", "Stay Mira.")


def test_a_user_persona_is_read_from_a_file(tmp_path):
    path = tmp_path / "me.json"
    path.write_text('{"name": "Tom", "description": "a sailor", "more": 1}')
    assert UserPersona.load(path) == UserPersona("Tom", "a sailor")
    for bad in ("[]", '{"name": ""}', '{"name": "a", "description": 5}', "{"):
        path.write_text(bad)
        with pytest.raises(PersonaError, match=path.name):
            UserPersona.load(path)
