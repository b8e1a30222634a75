"""Rows of a card's own examples and greetings."""

from pathlib import Path

from elysia.core.persona import Persona
from elysia.data.synthesis.persona_rows import example_rows

ROOT = Path(__file__).parents[3]


def talks(persona):
    return [[(turn.ask, turn.reply) for turn in row] for row in example_rows(persona)]


def test_examples_become_dialogues_and_greetings_answers():
    persona = Persona(
        "小满",
        mes_example="<START>\n{{char}}: 早。\n{{user}}: 在做什么？\n{{char}}: 浇水。\n要一起吗，{{user}}？\n{{User}}：好\n小满：走吧。\n"
        "<start>\n<USER>: Hi\n<BOT>: Hello!\n{{user}}: Bye",
        first_mes="你来啦，{{user}}。",
        extra={"alternate_greetings": ["Welcome back.", "", 3]},
    )
    assert talks(persona) == [
        [("在做什么？", "浇水。\n要一起吗，你？"), ("好", "走吧。")],
        [("Hi", "Hello!")],
        [("你好", "你来啦，你。")],
        [("Hi there", "Welcome back.")],
    ]


def test_a_card_without_them_gives_none():
    assert talks(Persona("小满")) == []


def test_the_bundled_card_gives_some():
    assert talks(Persona.load(ROOT / "configs" / "personas" / "elysia.json"))
