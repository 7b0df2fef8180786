"""The house: each floor imports only lower ones, and no file imports in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]

# From the lowest. Rooms of one floor do not import each other.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "html", "locks"}),
    frozenset({"store", "kept"}),
    frozenset({"ir"}),
    frozenset({"language", "passes"}),
    frozenset({"codegen"}),
    frozenset({"runtime"}),
    frozenset({"look"}),
    frozenset({"module"}),
    frozenset({"nn", "data"}),
    frozenset({"distributed"}),
    frozenset({"editor"}),
    frozenset({"explore", "notebook"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
FLOOR_OF = {room: k for k, rooms in enumerate(FLOORS) for room in rooms}


def files() -> dict[str, Path]:
    """The files of the package by the names of their modules."""
    found = {}
    for path in (ROOT / "gdsl").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """What is imported, inside functions too, but for what only a type checker reads: module, name."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, "") for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from ((child.module or "", alias.name) for alias in child.names)
        yield from imports(child)


def edges() -> dict[str, set[str]]:
    """For each file those that it imports."""
    known = files()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        pairs = imports(ast.parse(path.read_text()))
        wanted = {f"{module}.{inner}" if f"{module}.{inner}" in known else module for module, inner in pairs}
        found[name] = {module for module in wanted if module in known and module != "gdsl"}
    return found


def test_every_room_has_its_floor() -> None:
    assert {name.split(".")[1] for name in files() if name != "gdsl"} == set(FLOOR_OF)


def test_imports_run_downwards() -> None:
    wrong = []
    for name, wanted in edges().items():
        if name == "gdsl":
            continue  # what a user imports: names are looked up on first use
        room = name.split(".")[1]
        for other in sorted(wanted):
            below = other.split(".")[1]
            if room != below and FLOOR_OF[below] >= FLOOR_OF[room]:
                wrong.append(f"{name} imports {other}")
    assert not wrong


def test_no_file_imports_in_a_circle() -> None:
    TopologicalSorter(edges()).prepare()


def test_a_class_name_has_one_home() -> None:
    """But for the syntax tree's, which are always said with their module."""
    homes: dict[str, list[str]] = {}
    for name, path in files().items():
        if name != "gdsl.language.ast":
            for tree in ast.walk(ast.parse(path.read_text())):
                if isinstance(tree, ast.ClassDef):
                    homes.setdefault(tree.name, []).append(name)
    assert not {name: where for name, where in homes.items() if len(where) > 1}


def test_the_test_sees_imports() -> None:
    text = "from a.b import c\nimport d\nif TYPE_CHECKING:\n    import e\ndef f():\n    from g import h\n"
    assert list(imports(ast.parse(text))) == [("a.b", "c"), ("d", ""), ("g", "h")]
