"""The prompt template as Jinja, with which other programs (vLLM, transformers) build the same prompts.

The turns are those of core/templates.py: the system and input texts of a turn are joined by newlines,
and a turn after an end-of-sequence token begins with the beginning-of-sequence token again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPLATE_FILE = "chat_template.jinja"

# A turn's state is kept in a namespace, because Jinja's loops cannot set variables outside of themselves.
_JINJA_FRAME = """\
{%- set t = namespace(system=none, input=none, round=1, bos=true) -%}
{%- macro head() -%}
{%- if t.bos -%}{{ bos_token or '' }}{%- endif -%}
{%- if t.system -%}{{ SYSTEM }}{%- endif -%}
{{ INSTRUCTION }}
{%- endmacro -%}
{%- for m in messages -%}
{%- if m['role'] == 'system' -%}
{%- set t.system = m['content'] if t.system is none else t.system ~ '\\n' ~ m['content'] -%}
{%- elif m['role'] == 'assistant' -%}
{{ head() }}{{ m['content'] ~ SUFFIX }}{{ EOS }}{{ SEP }}
{%- set t.system = none -%}{%- set t.input = none -%}
{%- set t.round = t.round + 1 -%}{%- set t.bos = BOS_AGAIN -%}
{%- else -%}
{%- set t.input = m['content'] if t.input is none else t.input ~ '\\n' ~ m['content'] -%}
{%- endif -%}
{%- endfor -%}
{%- if t.system is not none or t.input is not none or add_generation_prompt -%}
{{ head() }}
{%- endif -%}
"""


def write_chat_template(template: Mapping[str, Any], folder: Path) -> None:
    """Write a run card's template into a model folder, and the tokens that end its replies into
    generation_config.json; nothing for a card without one.
    """
    if template:
        text = render_chat_template(template)
        (folder / TEMPLATE_FILE).write_text(text, encoding="utf-8")
        _name_end_tokens(template, folder)


def _name_end_tokens(template: Mapping[str, Any], folder: Path) -> None:
    """Add the template's stop words that are tokens to the `eos_token_id` of a model folder.

    Without them plain `generate()`, vLLM and LMDeploy go on past the end of a reply.
    """
    from elysia.models import loading  # with torch, which only those who write a model need
    from elysia.models.chat_format import load_template

    tokenizer = loading.load_tokenizer(folder)
    vocabulary = tokenizer.get_vocab()
    ends = [vocabulary.get(word) for word in load_template(template).get_stop_words()]
    path = folder / "generation_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    named = config.get("eos_token_id", tokenizer.eos_token_id)
    ids = [*(named if isinstance(named, list) else [named]), *ends]
    config["eos_token_id"] = [end for end in dict.fromkeys(ids) if end is not None]
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def render_chat_template(template: Mapping[str, Any]) -> str:
    """Jinja for `apply_chat_template`, from a run card's template (`ChatTemplate.to_dict()`); a model's own
    as it is."""
    if "jinja" in template:
        return str(template["jinja"])
    ends_itself = bool(template.get("suffix_as_eos"))
    values = {
        "SYSTEM": _to_jinja(template["system"]),
        "INSTRUCTION": _to_jinja(template["instruction"]),
        "SUFFIX": json.dumps(template.get("suffix", "")),
        "SEP": json.dumps(template.get("sep", "")),
        "EOS": "''" if ends_itself else "eos_token or ''",
        "BOS_AGAIN": "false" if ends_itself else "true",
    }
    # In one pass, because the inserted text may contain any of these words.
    pattern = r"\b(" + "|".join(values) + r")\b"
    return re.sub(pattern, lambda match: values[match[1]], _JINJA_FRAME)


def _to_jinja(pattern: str) -> str:
    """ "a{input}b" as Jinja: "a" ~ (t.input or '') ~ "b"."""
    fields = {
        "system": "t.system",
        "input": "(t.input if t.input is not none else '')",
        "round": "t.round",
    }
    parts = re.split(r"\{(system|input|round)\}", pattern)
    texts = [json.dumps(part) if i % 2 == 0 else fields[part] for i, part in enumerate(parts)]
    return " ~ ".join(text for text in texts if text != '""') or "''"
