"""--cfg-options: text becomes values."""

import pytest

from elysia.cli.options import parse_cfg_options
from elysia.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-4", 1e-4),
        ("true", True),
        ("False", False),
        ("None", None),
        ("tiny/model", "tiny/model"),
        ("'a,b'", "a,b"),
        ("a,b", ["a", "b"]),
        ("[a,b]", ["a", "b"]),
        ("[1, 2]", [1, 2]),
        ("0.9,0.95", (0.9, 0.95)),
        ("[(1,2),(3,4)]", [(1, 2), (3, 4)]),
        ("{'path': 'x.json', 'repeat': 2}", {"path": "x.json", "repeat": 2}),
        ("hello, world", "hello, world"),
        ("你好,你是谁?", ["你好", "你是谁?"]),
        ("[unclosed", "[unclosed"),
        ("[]", []),
        ("", ""),
        ("C:\\models", "C:\\models"),
        ("__import__('os')", "__import__('os')"),
        ("x=y", "x=y"),
    ],
)
def test_a_value_is_a_literal_where_it_is_one_else_text(text, value):
    parsed = parse_cfg_options([f"key={text}"])["key"]
    assert parsed == value
    assert type(parsed) is type(value)


def test_nested_keys_stay_dotted_as_mmengine_takes_them():
    assert parse_cfg_options(["a.b.c=1", "a.d=x"]) == {"a.b.c": 1, "a.d": "x"}


@pytest.mark.parametrize("pair", ["config.py", "=1", "a..b=1", " =1"])
def test_what_is_not_key_value_is_a_sentence(pair):
    with pytest.raises(UsageError, match="is not key=value"):
        parse_cfg_options([pair])
