"""Forms that a reply is held to, as grammars for llguidance, which llama.cpp applies.

https://github.com/guidance-ai/llguidance. Knows nothing of engines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from elysia.core.errors import RequestError

GRAMMAR_HEADER = "%llguidance {}"


def build_json_grammar(schema: Mapping[str, Any]) -> str:
    """JSON of `schema`; of any object where it is empty."""
    return f"{GRAMMAR_HEADER}\nstart: {build_json_rule(schema or {'type': 'object'})}"


def build_json_rule(schema: Mapping[str, Any]) -> str:
    """The rule for JSON of `schema`, without room for blanks: small models would fill it for ever."""
    return f"%json {json.dumps({**schema, 'x-guidance': {'whitespace_flexible': False}})}"


def check_grammar(grammar: str) -> str:
    """`grammar`; RequestError where none can be made of it. llama.cpp would only log that, and go on
    without.
    """
    from llguidance import LLMatcher  # of serving alone; who chats with transformers has none

    if fault := LLMatcher.validate_grammar(grammar):
        reason = fault.splitlines()[0].partition(": ")[2] or fault
        raise RequestError(f"A reply cannot be held to this schema: {reason}.")
    return grammar
