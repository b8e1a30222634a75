"""What the package and its parts offer: `__all__` is honest, and the examples of docs/python-api.md run."""

import ast
import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import elysia

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["elysia"] + [
    module.name
    for module in pkgutil.walk_packages(elysia.__path__, "elysia.")
    if module.ispkg and "migrations" not in module.name
]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_says_what_it_is_for_and_offers_what_it_lists(name):
    package = importlib.import_module(name)
    assert package.__doc__ and not package.__doc__.startswith("TODO")
    assert len(package.__all__) == len(set(package.__all__))  # ruff holds the order
    for offered in package.__all__:
        if not hasattr(
            package, offered
        ):  # a module of its own, as in `from elysia.core import files`
            importlib.import_module(f"{name}.{offered}")


def test_type_checkers_see_the_names_that_are_imported_late():
    tree = ast.parse((ROOT / "elysia" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {name: f"elysia.{module}" for name, module in elysia._MODULES.items()}
    assert set(elysia.__all__) == {*seen, "__version__"}
    assert (ROOT / "elysia" / "py.typed").exists()


def test_importing_elysia_imports_no_heavy_library():
    code = "import elysia, sys; print([m for m in ('torch', 'transformers', 'pydantic') if m in sys.modules])"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        elysia.nothing_of_the_kind  # noqa: B018


def test_the_examples_of_the_page_run_one_after_the_other(tiny_internlm2, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len(blocks) >= 5
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_internlm2, tmp_path / "base")
    # One namespace, as a reader would type them into one session.
    namespace = {"__name__": "example"}
    for block in blocks:
        exec(compile(block, "docs/python-api.md", "exec"), namespace)
    assert (tmp_path / "merged" / "run_card.json").exists()
