"""Refuse names that do not say what they are: run by `make lint` over the given folders.

It refuses the banned variable names, classes of one everyday word (the field's own one-word terms are
listed below), modules of a package whose names differ by an ending only, and functions past 50 lines.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# They tell the history of a value ("what was found"), not its content ("hits").
BANNED = {"found", "made", "told", "said", "kept", "one", "wanted"}
# One-word classes that are the standard term of the field or of a library.
TERMS = {
    "Chunk", "Conversation", "Database", "Delta", "Document", "Embedder", "Engine", "Fingerprint", "Lorebook",
    "Memory", "Message", "Persona", "Sample", "Sampling", "Scope", "Settings", "Text",
    # pydantic shows these to clients of the gateway, in error bodies and in /openapi.json
    "Call", "Called", "Function", "Named", "Tool",
}  # fmt: skip
LONGEST = 50  # lines of a function


def bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of every variable, parameter, field and function that `tree` binds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name


def check_file(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for line, name in bound_names(tree):
        if name.strip("_") in BANNED:
            yield f"{path}:{line}: '{name}' does not say what it holds"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and re.fullmatch(r"_?[A-Z][a-z]+", node.name):
            if path.parts[0] == "elysia" and node.name.strip("_") not in TERMS:
                yield f"{path}:{node.lineno}: class {node.name} is one everyday word"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines; {LONGEST} at most"


def check_twins(folder: Path) -> Iterator[str]:
    """Modules side by side that a reader confuses: round and rounds, work and worker."""
    stems: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        name = path.stem if path.suffix == ".py" else path.name if path.is_dir() else ""
        root = re.sub(r"(ers?|ings?|s)$", "", name)
        if name and root in stems:
            yield f"{folder}: {stems[root]} and {name} differ by an ending only"
        stems[root] = name


def main(folders: list[str]) -> int:
    findings: list[str] = []
    for folder in map(Path, folders):
        for path in sorted(folder.rglob("*.py")):
            if "migrations" in path.parts:
                continue  # written by Alembic's template
            findings += check_file(path)
        for place in sorted({path.parent for path in folder.rglob("*.py")}):
            findings += check_twins(place)
    print("\n".join(findings))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["elysia"]))
