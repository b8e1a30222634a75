"""The Jinja chat template writes what core/templates.py writes, for every template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from elysia.core.messages import Message
from elysia.core.templates import TEMPLATES, get_template, render_prompt_pieces
from elysia.export.chat_template import render_chat_template, write_chat_template
from elysia.models.loading import load_tokenizer

CONVERSATIONS = {
    "plain": [("user", "你好 {input} {{x}}")],
    "system": [("system", 'You are "Elysia".\n'), ("user", "hi")],
    "turns": [
        ("system", "S"), ("user", "one"), ("assistant", "two"), ("user", "three"),
        ("assistant", "four SEP"), ("user", "five"),
    ],
    "joined": [
        ("system", "S1"), ("system", "S2"), ("user", "a"), ("tool", "b"), ("assistant", "c"),
        ("system", ""), ("user", ""),
    ],
    "reply first": [("assistant", "hello"), ("user", "hi")],
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer: Path) -> Any:
    return load_tokenizer(tiny_tokenizer)


@pytest.mark.parametrize("conversation", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
@pytest.mark.parametrize("name", TEMPLATES)
def test_jinja_writes_the_same_prompt(
    name: str, conversation: list[tuple[str, str]], tokenizer: Any
) -> None:
    template = get_template(name)
    special = {"bos": tokenizer.bos_token, "eos": tokenizer.eos_token}
    pieces = render_prompt_pieces([Message(role, text) for role, text in conversation], template)
    expected = "".join(special[p.special] if p.special else p.text for p in pieces)
    rendered = tokenizer.apply_chat_template(
        [{"role": role, "content": text} for role, text in conversation],
        chat_template=render_chat_template(template.to_dict()),
        tokenize=False,
        add_generation_prompt=True,
    )
    assert rendered == expected


@pytest.mark.parametrize("has_generation_config", [True, False])
def test_the_folder_names_every_token_that_ends_a_reply(
    tiny_tokenizer: Path, tmp_path: Path, tokenizer: Any, has_generation_config: bool
) -> None:
    folder = Path(shutil.copytree(tiny_tokenizer, tmp_path / "model"))
    config = folder / "generation_config.json"
    config.unlink(missing_ok=True)
    if has_generation_config:
        config.write_text(json.dumps({"eos_token_id": tokenizer.eos_token_id, "top_k": 7}))
    write_chat_template(get_template("internlm2_chat").to_dict(), folder)
    written = json.loads(config.read_text())
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert written.pop("eos_token_id") == [tokenizer.eos_token_id, end]
    assert written == ({"top_k": 7} if has_generation_config else {})
