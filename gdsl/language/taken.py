"""Which inputs a layer has that is called with certain arguments: those of the branches that it takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from gdsl.language import ast, format
from gdsl.language.signature import Input, input_of, is_input


def outline(layer: ast.Layer) -> ast.Layer | None:
    """The statements that decide which inputs a layer declares, or None where its arguments decide nothing."""
    if not any(_declares(s) for s in layer.body if isinstance(s, ast.Branch | ast.Loop)):
        return None
    needed: set[str] = set()
    while True:
        body = tuple(_kept(layer.body, needed))
        read = set(_read(body))
        if read <= needed:
            return replace(layer, body=body, uses=())
        needed |= read


def inputs_of(outlined: ast.Layer, declared: Mapping[str, ast.Span]) -> tuple[Input, ...]:
    """The inputs whose declarations were gone through."""
    found = (s for s in ast.walk(outlined) if isinstance(s, ast.Declaration) and is_input(s))
    return tuple(input_of(s) for s in found if declared.get(s.name) == s.name_span)


def where_read(layer: ast.Layer, name: str, *, declared: bool) -> str | None:
    """The conditions under which an input is declared, or under which it is read, as they are written."""
    found = dict.fromkeys(_conditions(layer.body, name, declared))
    written = ", or ".join(f"`if {text}`" for text in found if text)
    if not written:
        return None
    return f"{layer.name} {'declares' if declared else 'reads'} it {written}"


def _declares(s: ast.Tree) -> bool:
    return any(isinstance(tree, ast.Declaration) and is_input(tree) for tree in ast.walk(s))


def _kept(body: Sequence[ast.Statement], needed: Collection[str]) -> Iterator[ast.Statement]:
    for s in body:
        if isinstance(s, ast.Branch):
            then, otherwise = tuple(_kept(s.then, needed)), tuple(_kept(s.otherwise, needed))
            if then or otherwise:
                yield replace(s, then=then, otherwise=otherwise)
        elif isinstance(s, ast.Loop):
            inner = tuple(_kept(s.body, needed))
            if inner:
                yield replace(s, body=inner)
        elif (isinstance(s, ast.Declaration) and is_input(s)) or getattr(s, "name", None) in needed:
            yield s


def _read(body: Sequence[ast.Statement]) -> Iterator[str]:
    """The names that conditions, and what they are computed from, have in them."""
    for s in body:
        trees: tuple[ast.Tree, ...]
        if isinstance(s, ast.Branch):
            yield from _read((*s.then, *s.otherwise))
            trees = (s.condition,)
        elif isinstance(s, ast.Loop):
            yield from _read(s.body)
            trees = (s.start, s.stop)
        else:
            trees = () if isinstance(s, ast.Declaration) else (s,)
        for tree in trees:
            for part in ast.walk(tree):
                if isinstance(part, ast.Name):
                    yield part.id
                elif isinstance(part, ast.Call):
                    yield part.function


def _conditions(body: Sequence[ast.Statement], name: str, declared: bool, under: str = "") -> Iterator[str]:
    for s in body:
        if isinstance(s, ast.Branch):
            said = format.expression(s.condition)
            other = f"not ({said})" if " " in said else f"not {said}"
            for part, condition in ((s.then, said), (s.otherwise, other)):
                yield from _conditions(part, name, declared, f"{under} and {condition}" if under else condition)
        elif isinstance(s, ast.Loop):
            yield from _conditions(s.body, name, declared, under)
        elif declared:
            if isinstance(s, ast.Declaration) and is_input(s) and s.name == name:
                yield under
        elif any(isinstance(tree, ast.Name) and tree.id == name for tree in ast.walk(s)):
            yield under
