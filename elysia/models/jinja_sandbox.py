"""A bounded sandbox for the Jinja chat templates of others: what transformers offers them, and no more.

A template comes with the weights, from a stranger. It reaches no attribute of Python's, and its work is
counted: iterations, calls, and the length of every text it puts together.

Contract: https://huggingface.co/docs/transformers/chat_templating_writing
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.filters import do_indent
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from elysia.core.errors import TemplateError

MAX_STEPS = 500_000  # iterations and calls of one rendering
MAX_LENGTH = 16_000_000  # characters of any text that a template puts together
MAX_SOURCE = 1_000_000
MAX_INDENT = 64

_steps_left: ContextVar[int] = ContextVar("steps_left", default=MAX_STEPS)
# They make a long text of a short one.
_STRETCHING = frozenset({"format", "format_map", "ljust", "rjust", "center", "zfill", "expandtabs"})
_REMOVED_FILTERS = (
    "format",
    "center",
    "indent",
    "wordwrap",
    "xmlattr",
    "pprint",
    "random",
    "urlize",
)


class _BoundExceededError(Exception):
    """A template did more work than a chat template has."""


class _RefusedError(Exception):
    """What a template says to `raise_exception`."""


def _count_steps(count: int) -> None:
    left = _steps_left.get() - count
    if left < 0:
        raise _BoundExceededError
    _steps_left.set(left)


def _limit_length(value: Any) -> Any:
    if isinstance(value, (str, list, tuple)) and len(value) > MAX_LENGTH:
        raise _BoundExceededError
    return value


def _count_items(items: Any) -> Any:
    """What a loop runs over, counted; undefined values stay what they are."""
    if isinstance(items, jinja2.Undefined) or not isinstance(items, Iterable):
        return items
    rows = list(islice(items, _steps_left.get() + 1))
    _count_steps(len(rows))
    return rows


class _BoundLoops(NodeTransformer):
    """Counts the items of every loop and the length of every concatenation."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "count_items", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return nodes.Filter(node, "limit_length", [], [], None, None, lineno=node.lineno)


class _GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}`, which marks replies for training: its body is rendered."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own attribute)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _ChatEnvironment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _BoundLoops().visit(super()._parse(source, name, filename))
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _STRETCHING and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` for fields without a width, which makes any length of a short text."""
        owner = getattr(value, "__self__", None)
        if isinstance(owner, str) and re.search(r"\{[^{}]*(?::[^{}]*[\d{]|\{)", owner):
            return None
        return super().wrap_str_format(value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise jinja2.exceptions.SecurityError(f"the operator {operator} is not offered")
        if operator == "*":
            for items, count in ((left, right), (right, left)):
                is_repeat = hasattr(items, "__len__") and isinstance(count, int)
                if is_repeat and len(items) * count > MAX_LENGTH:
                    raise _BoundExceededError
        return _limit_length(super().call_binop(context, operator, left, right))

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        _count_steps(1)
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str) and name == "replace" and len(args) > 1:
            _check_replacement(owner, *args[:2])
        elif isinstance(owner, str) and name == "join" and args:
            return _join_texts(args[0], owner)
        return _limit_length(super().call(context, obj, *args, **kwargs))


def _check_replacement(text: Any, old: Any, new: Any) -> None:
    count = len(text) + 1 if not str(old) else str(text).count(str(old))
    if len(str(text)) + count * len(str(new)) > MAX_LENGTH:
        raise _BoundExceededError


def _replace_text(text: Any, old: Any, new: Any, count: int | None = None) -> str:
    _check_replacement(str(text), old, new)
    return str(text).replace(str(old), str(new), -1 if count is None else count)


def _join_texts(items: Iterable[Any], separator: Any = "", attribute: str | None = None) -> str:
    rows = _count_items(items)
    if attribute:
        rows = [row.get(attribute, "") for row in rows]
    texts = [str(row) for row in rows]
    if sum(map(len, texts)) + len(texts) * len(str(separator)) > MAX_LENGTH:
        raise _BoundExceededError
    return str(separator).join(texts)


def _format_text(text: Any, *values: Any, **named: Any) -> str:
    """The filter `format`, for fields without a width."""
    if re.search(r"%[^a-zA-Z%]*[\d*]", str(text)):
        raise jinja2.exceptions.SecurityError("the filter format takes no width here")
    return str(text) % (named or values)


def _indent_text(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    if isinstance(width, int) and width > MAX_INDENT:
        raise _BoundExceededError
    rest = _limit_length(do_indent(str(text), width, first, blank))
    return str(rest)


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    """JSON without HTML's escapes, as transformers writes it."""
    options = {"ensure_ascii": False, **options}
    return json.dumps(value, indent=indent if indent is None else min(int(indent), 8), **options)


def _refuse(message: Any = "") -> None:
    raise _RefusedError(str(message))


@lru_cache(maxsize=1)
def _build_environment() -> _ChatEnvironment:
    environment = _ChatEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, _GenerationTag]
    )
    for name in _REMOVED_FILTERS:
        environment.filters.pop(name, None)
    environment.globals.pop("lipsum", None)
    filters: dict[str, Callable[..., Any]] = {
        "tojson": _to_json, "count_items": _count_items, "limit_length": _limit_length,
        "replace": _replace_text, "join": _join_texts, "format": _format_text, "indent": _indent_text,
    }  # fmt: skip
    environment.filters.update(filters)
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


@lru_cache(maxsize=64)
def _compile(source: str) -> jinja2.Template:
    return _build_environment().from_string(source)


def render_jinja(name: str, source: str, values: Mapping[str, Any]) -> str:
    """A template's text for `values`.

    Raises TemplateError, naming the template, for one that is too long, has a syntax error, refuses the
    conversation, reaches for what it may not, or does not end.
    """
    if len(source) > MAX_SOURCE:
        raise TemplateError("models.jinja_unbounded", name=name)
    token = _steps_left.set(MAX_STEPS)
    try:
        text = _compile(source).render(**values)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(
            "models.jinja_syntax", name=name, line=error.lineno, reason=error.message or ""
        ) from None
    except jinja2.exceptions.SecurityError as error:
        raise TemplateError("models.jinja_unsafe", name=name, reason=str(error)) from None
    except _RefusedError as error:
        raise TemplateError("models.jinja_refuses", name=name, reason=str(error)) from None
    except (_BoundExceededError, RecursionError, MemoryError, OverflowError):
        raise TemplateError("models.jinja_unbounded", name=name) from None
    except Exception as error:  # whatever a stranger's template runs into
        reason = f"{type(error).__name__}: {error}"[:200]
        raise TemplateError("models.jinja_fails", name=name, reason=reason) from None
    finally:
        _steps_left.reset(token)
    if len(text) > MAX_LENGTH:
        raise TemplateError("models.jinja_unbounded", name=name)
    return text
