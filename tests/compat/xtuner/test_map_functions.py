import pytest

from elysia.compat.xtuner.convert import convert_config
from elysia.compat.xtuner.map_functions import is_function_path, load_map_function
from elysia.core.errors import ConfigError, DataError

OWN = """
import re
import numpy as np
from xtuner.dataset.map_fns import openai_map_fn

MARK = re.compile('!+')


def shorten(text):
    return MARK.sub('!', text) + str(np.int64(3))


def own_map_fn(row):
    if row.get('skip'):
        return {'conversation': []}
    return {'conversation': [{'system': 'S', 'input': shorten(row['q']), 'output': row['a']}]}


def through_xtuner(row):
    return openai_map_fn({'messages': row['talk']})


def bad_map_fn(row):
    return {'conversation': row['nothing']}
"""


def own(tmp_path, more=""):
    path = tmp_path / "own.py"
    path.write_text(OWN + more)
    return path


def test_a_map_function_of_the_users_runs_with_what_it_imports(tmp_path):
    convert = load_map_function(f"{own(tmp_path)}:own_map_fn")
    messages = convert({"q": "hi!!!", "a": "hello"})
    assert [(m.role, m.text) for m in messages] == [
        ("system", "S"), ("user", "hi!3"), ("assistant", "hello")
    ]  # fmt: skip
    assert convert({"skip": True}) == []


def test_xtuners_own_map_functions_are_there_for_it(tmp_path):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    messages = load_map_function(f"{own(tmp_path)}:through_xtuner")({"talk": talk})
    assert [m.text for m in messages] == ["a", "b"]


def test_what_a_map_function_raises_names_it_and_the_error(tmp_path):
    with pytest.raises(DataError, match=r"bad_map_fn of .*own\.py raised KeyError: 'nothing'"):
        load_map_function(f"{own(tmp_path)}:bad_map_fn")({"q": "x"})


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("import no_such_package as gone", "no_such_package, which cannot be imported"),
        ("from xtuner.utils import something as gone", "no counterpart here"),
    ],
)
def test_an_absent_import_that_a_function_uses_is_told(tmp_path, line, what):
    path = own(tmp_path, f"\n{line}\n\ndef late(row):\n    return gone(row)\n")
    with pytest.raises(ConfigError, match=what):
        load_map_function(f"{path}:late")
    load_map_function(f"{path}:own_map_fn")  # which does not use it


def test_a_function_or_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no function called nope"):
        load_map_function(f"{own(tmp_path)}:nope")
    with pytest.raises(ConfigError, match="There is no file"):
        load_map_function(f"{tmp_path / 'gone.py'}:nope")
    assert not is_function_path("alpaca") and not is_function_path("a.py:not a name")


def test_a_config_may_define_its_map_function(config):
    path = config(
        ("dataset_map_fn=openai_map_fn", "dataset_map_fn=my_map_fn"),
        ("base = 'owner/base'", "base = 'owner/base'\n\ndef my_map_fn(row):\n    return {'conversation': []}\n"),
    )  # fmt: skip
    report = convert_config(path)
    assert report.status == "runs with changes"
    assert report.values["data_path"][0]["format"] == f"{path}:my_map_fn"
    path = config(("dataset_map_fn=openai_map_fn", "dataset_map_fn=lambda row: row"))
    assert "is a lambda" in "; ".join(convert_config(path).reasons)
    path = config(
        ("dataset_map_fn=openai_map_fn", "dataset_map_fn=my_map_fn"),
        ("base = 'owner/base'", "import gone\nbase = 'owner/base'\n\ndef my_map_fn(row):\n    return gone.x(row)\n"),
    )  # fmt: skip
    assert "gone, which cannot be imported" in "; ".join(convert_config(path).reasons)
