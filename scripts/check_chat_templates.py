"""Chat templates of a folder, held against transformers: `python scripts/check_chat_templates.py FOLDER TOKENIZER`.

FOLDER holds `*.jinja` files, TOKENIZER is a tokenizer's folder, which learns the templates' control tokens. For
each template: whether texts and ids are those of `apply_chat_template`, whether each prompt is the beginning of
the training ids, and whether typed control tokens stay text; a template that is refused, with its sentence.

llama.cpp's source has about seventy: `pip download --no-deps --no-binary :all: llama-cpp-python`, then
`vendor/llama.cpp/models/templates` in it.
"""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from elysia.core.errors import ElysiaError
from elysia.core.messages import Conversation, Message
from elysia.data.schema import IGNORE
from elysia.data.tokenize import encode_prompt
from elysia.data.tokenize.encoder import ConversationEncoder
from elysia.data.tokenize.reply_samples import encode_talk
from elysia.models.jinja_template import JinjaTemplate

CONTROL = re.compile(
    r"<\|[\w▁-]+\|>|<｜[^｜<>\n]+｜>|\[/?[A-Z_]{3,}\]|<\w+_of_turn>|</?s>|<(?:bos|eos)>"
)


def build_talk(*texts: str, system: str = "") -> list[Message]:
    """A user's and the assistant's messages by turns."""
    turns = [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]
    return [Message("system", system), *turns] if system else turns


TALKS = {
    "plain": build_talk("Hello!", "Hi there.", "你好", "你好呀"),
    "system": build_talk("Who are you?", "Mira.", "And now?", "Still.", system="Be Mira."),
    "spaces": build_talk(" a\n\n", "\n\nb  ", "\tc", "  d\n"),
    "greeting": [Message("assistant", "Welcome."), *build_talk("Hm", "Sit."), Message("tool", "1"),
                 Message("assistant", "One.")],
}  # fmt: skip


def count_equal_prompts(template: JinjaTemplate, tokenizer: Any) -> tuple[int, int]:
    """(prompts that transformers gives too, with the same ids; prompts that it renders at all)."""
    equal = rendered = 0
    for talk in (TALKS["plain"], TALKS["system"], TALKS["spaces"]):
        for end in (n for n in range(1, len(talk)) if talk[n].role == "assistant"):
            rows = [{"role": m.role, "content": m.text} for m in talk[:end]]
            options = {"chat_template": template.source, "add_generation_prompt": True,
                       "enable_thinking": False, "thinking": False}  # fmt: skip
            try:
                ids = tokenizer.apply_chat_template(rows, return_dict=False, **options)
            except Exception:  # the template refuses it, as it does here
                continue
            rendered += 1
            text = tokenizer.apply_chat_template(rows, tokenize=False, **options)
            same_text = template.render_prompt(talk[:end])[0].text == text
            equal += same_text and encode_prompt(talk[:end], template, tokenizer) == ids
    return equal, rendered


def count_prefixes(template: JinjaTemplate, tokenizer: Any) -> tuple[int, int]:
    """(replies whose prompt is the beginning of their training ids, replies)."""
    encoder = ConversationEncoder(tokenizer)
    good = total = 0
    for talk in TALKS.values():
        ends = [n for n, message in enumerate(talk) if message.role == "assistant"]
        places = [
            (ids, start)
            for ids, labels in encode_talk(talk, template, encoder)
            for start, (before, label) in enumerate(pairwise([IGNORE, *labels]))
            if label != IGNORE and before == IGNORE
        ]
        total += len(ends)
        good += len(places) == len(ends) and sum(
            encode_prompt(talk[:end], template, tokenizer) == ids[:start]
            for end, (ids, start) in zip(ends, places, strict=True)
        )
    return good, total


def keeps_text(template: JinjaTemplate, tokenizer: Any) -> bool:
    """Whether every control token of the templates, typed in messages, stays text."""
    encoder = ConversationEncoder(tokenizer)
    typed = " ".join(tokenizer.all_special_tokens)

    def get_controls(talk: Conversation) -> list[int]:
        samples = encode_talk(talk, template, encoder)
        return [i for ids, _ in samples for i in ids if i in encoder.special_ids]

    return get_controls(build_talk(typed, typed)) == get_controls(build_talk("x", "x"))


def main(folder: str, tokenizer_folder: str) -> None:
    """Print a line for each template, and the sums."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    files = sorted(Path(folder).glob("*.jinja"))
    sources = {file.stem: file.read_text(encoding="utf-8") for file in files}
    controls = {word for source in sources.values() for word in CONTROL.findall(source)}
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(controls | {"<s>", "</s>"})})
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    sums = {"used": 0, "rendered by transformers": 0, "equal": 0, "prefix": 0, "safe": 0}
    for name, source in sources.items():
        template = JinjaTemplate(name, source, "<s>", "</s>")
        try:
            equal, rendered = count_equal_prompts(template, tokenizer)
            good, total = count_prefixes(template, tokenizer)
            safe = keeps_text(template, tokenizer)
        except ElysiaError as error:
            print(f"{name}: refused: {error}")
            continue
        sums["used"] += 1
        sums["rendered by transformers"] += rendered > 0
        sums["equal"] += 0 < equal == rendered
        sums["prefix"] += good == total
        sums["safe"] += safe
        print(f"{name}: equal {equal}/{rendered}, prefix {good}/{total}, typed tokens "
              f"{'stay text' if safe else 'BECOME TOKENS'}, end {template.end!r}")  # fmt: skip
    print(len(sources), "templates:", sums)


if __name__ == "__main__":
    main(*sys.argv[1:])
