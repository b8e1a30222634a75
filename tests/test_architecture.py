"""The structure of the package, beyond import-linter's contracts: no module imports itself in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "elysia"


def load_import_graph():
    """Each module and the modules that it imports, at its top or within a function."""
    modules = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        modules[name.removesuffix(".__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    graph = {name: set() for name in modules}
    for name, tree in modules.items():
        # Imports for type checkers alone are never carried out.
        typing = [
            node
            for node in tree.body
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ]
        late = {id(inner) for block in typing for inner in ast.walk(block)}
        for node in ast.walk(tree):
            if id(node) in late:
                continue
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    graph[name] |= {full if full in modules else node.module} & modules.keys() - {
                        name
                    }
    del graph["elysia"]  # the public API names every stage, and imports each when it is used
    return graph


def test_no_module_imports_itself_in_a_circle():
    graph = load_import_graph()
    assert len(graph) > 250
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
