"""Grammars for llguidance, with which llama.cpp restricts a reply to JSON of a schema.

https://github.com/guidance-ai/llguidance
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from elysia.core.errors import RequestError

GRAMMAR_HEADER = "%llguidance {}"


def build_json_grammar(schema: Mapping[str, Any]) -> str:
    """A grammar for JSON of `schema`; for any object when it is empty."""
    return f"{GRAMMAR_HEADER}\nstart: {build_json_rule(schema or {'type': 'object'})}"


def build_json_rule(schema: Mapping[str, Any]) -> str:
    """The rule for JSON of `schema`, without white space: small models would go on writing it for ever."""
    return f"%json {json.dumps({**schema, 'x-guidance': {'whitespace_flexible': False}})}"


def check_grammar(grammar: str) -> str:
    """`grammar`; RequestError when it is invalid.

    llama.cpp itself would only log that, and generate without the grammar.
    """
    from llguidance import LLMatcher  # installed for serving only; chat with transformers lacks it

    if fault := LLMatcher.validate_grammar(grammar):
        reason = fault.splitlines()[0].partition(": ")[2] or fault
        raise RequestError("engines.schema_unsupported", reason=reason)
    return grammar
