"""Writes the list of modules in docs/architecture.md: `python scripts/architecture_doc.py`.

A line a module, taken from the first sentence of its docstring, package by package from the bottom floor
to the top. `--check` writes nothing and exits with 1 when the page is not what would be written.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
MARKS = ("<!-- modules: generated -->", "<!-- /modules -->")


def load_floors() -> list[str]:
    """The packages of elysia/ from the bottom floor to the top, as import-linter's contract lists them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [name for layer in reversed(layers) for name in re.split(r"\s*[|:]\s*", layer)]


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    line = " ".join(docstring.split("\n\n")[0].split())
    sentence = re.match(r".*?[.。](?=\s|$)", line)
    return (sentence[0] if sentence else line).replace("|", "\\|")


def iter_lines(package: Path) -> Iterator[str]:
    """The Markdown of one package of elysia/: its purpose, then a table row a module."""
    yield f"\n### `{package.name}/`\n\n{first_sentence(package / '__init__.py')}\n"
    yield "| module | what it is for |\n|---|---|"
    for path in sorted(package.rglob("*.py"), key=lambda path: (len(path.parts), path.parts)):
        name = path.relative_to(package)
        if path == package / "__init__.py" or "migrations" in name.parts:
            continue
        shown = f"{name.parent}/" if name.name == "__init__.py" else str(name)
        yield f"| `{shown}` | {first_sentence(path)} |"


def render_modules() -> str:
    """The generated part of the page, between the marks."""
    lines = [line for name in load_floors() for line in iter_lines(ROOT / "elysia" / name)]
    return "\n".join([MARKS[0], *lines, MARKS[1]])


def render_page() -> str:
    page = PAGE.read_text(encoding="utf-8")
    return re.sub(
        re.escape(MARKS[0]) + ".*" + re.escape(MARKS[1]),
        lambda _: render_modules(),
        page,
        flags=re.S,
    )


if __name__ == "__main__":
    page = render_page()
    if sys.argv[1:] == ["--check"]:
        sys.exit(page != PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(page, encoding="utf-8")
