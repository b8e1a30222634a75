"""The table of sentences: both languages, the same placeholders, every code used and every use right."""

import ast
import pickle
import string
from pathlib import Path

import pytest

import elysia
from elysia.core import errors
from elysia.core.errors import DataError, nearest
from elysia.core.i18n import _CODE, LANGUAGES, Text, load_table, render

PACKAGE = Path(elysia.__file__).parent
FAULTS = {name for name in vars(errors) if name.endswith(("Error", "Fault"))} | {"ApiError"}


def placeholders(template: str) -> set[str]:
    return {
        name.split(".")[0].split("[")[0]
        for _, name, _, _ in string.Formatter().parse(template)
        if name
    }


def calls():
    """Every call in the package whose first argument is written out: (where, function, first, keywords)."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and node.args
                and isinstance(node.func, ast.Name | ast.Attribute)
            ):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", name, node


def strings() -> set[str]:
    """Every string constant of the package."""
    return {
        node.value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_entry_has_both_languages_with_the_same_placeholders():
    for code, entry in load_table().items():
        assert _CODE.fullmatch(code), code
        assert set(entry) == set(LANGUAGES), code
        assert placeholders(entry["en"]) == placeholders(entry["zh"]), code


def test_no_error_is_raised_with_a_sentence():
    sentences = []
    for where, name, node in calls():
        first = node.args[0]
        is_code = isinstance(first, ast.Constant) and _CODE.fullmatch(str(first.value))
        is_sentence = isinstance(first, ast.Constant | ast.JoinedStr | ast.BinOp)
        if name in FAULTS and is_sentence and not is_code:
            sentences.append(where)
    assert not sentences, "\n".join(sentences)


def test_the_parameters_of_every_error_are_those_of_its_sentence():
    table, wrong = load_table(), []
    for where, name, node in calls():
        first = node.args[0]
        if (
            name not in FAULTS
            or not isinstance(first, ast.Constant)
            or not _CODE.fullmatch(str(first.value))
        ):
            continue
        if any(keyword.arg is None for keyword in node.keywords):
            continue  # **params: seen when it is raised
        names = {keyword.arg for keyword in node.keywords}
        if first.value not in table or not placeholders(table[first.value]["en"]) <= names:
            wrong.append(f"{where}: {first.value} with {sorted(names)}")
    assert not wrong, "\n".join(wrong)


def test_every_entry_is_used():
    written = strings()
    assert not sorted(
        code for code in load_table() if code not in written and code.split(".")[1] not in written
    )


def test_an_error_speaks_both_languages_and_travels_between_processes():
    error = DataError("core.did_you_mean", name="lr")
    copy = pickle.loads(pickle.dumps(error))
    for it in (error, copy):
        assert (str(it), it.render("zh"), it.code) == (
            " Did you mean 'lr'?",
            "是不是想写 'lr'？",
            "core.did_you_mean",
        )


def test_parameters_are_rendered_in_the_language_of_the_sentence():
    hint = nearest("max_lenght", ["max_length"])
    assert isinstance(hint, Text)
    assert "是不是" in hint.render("zh")
    assert render("a plain sentence, not a code", {}, "zh") == "a plain sentence, not a code"
    with pytest.raises(KeyError):
        render("core.no_such_code", {}, "en")
