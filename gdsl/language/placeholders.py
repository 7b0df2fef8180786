"""Checking a layer without arguments, as `gdsl check FILE` does: stand-ins for sizes, every branch once."""

from __future__ import annotations

from collections.abc import Iterator

from gdsl.language import ast
from gdsl.language.check import check
from gdsl.language.errors import Diagnostic, LanguageError
from gdsl.language.program import Constant, TypedProgram
from gdsl.language.signature import Signature, signature_of

# Functions whose later arguments are sizes.
_SIZED = ("merge", "split", "stack", "bspline", "bspline_index", "transpose")


def check_any(layer: ast.Layer) -> tuple[TypedProgram, ...]:
    """Check a layer in every way that its flags and optional inputs allow, one at a time.

    Raises :class:`LanguageError` with what is wrong in any of them.
    """
    signature = signature_of(layer)
    base, free = placeholders(layer, signature)
    optional = {i.name for i in signature.inputs if i.optional}
    programs: list[TypedProgram] = []
    mistakes: dict[tuple[str, int], Diagnostic] = {}
    for arguments in _variants(layer, base):
        for present in [frozenset[str](), frozenset(optional)] if optional else [frozenset[str]()]:
            try:
                programs.append(check(layer, arguments, present=present, free_dims=free, training=True))
            except LanguageError as error:
                for d in error.diagnostics:
                    mistakes.setdefault((d.message, d.span.start), d)
    if mistakes:
        raise LanguageError(list(mistakes.values()), layer.source, layer.name)
    return tuple(programs)


def placeholders(layer: ast.Layer, signature: Signature) -> tuple[dict[str, Constant], dict[str, int]]:
    """Values for the arguments without a default, and sizes for the free dims.

    What is used as a size is a small whole number, each another one; the rest is 0.5: a rate or a slope.
    """
    sizes = size_names(layer)
    numbers = iter(range(2, 2 + len(signature.arguments) + len(signature.free_dims)))
    arguments: dict[str, Constant] = {}
    for p in signature.arguments:
        arguments[p.name] = p.default
        if p.required:
            arguments[p.name] = next(numbers) if p.name in sizes else 0.5
    return arguments, {name: next(numbers) for name in signature.free_dims}


def _variants(layer: ast.Layer, base: dict[str, Constant]) -> Iterator[dict[str, Constant]]:
    """The defaults, then each flag turned, and each argument that is none given a size."""
    yield base
    for p in layer.parameters:
        value = base[p.name]
        if isinstance(value, bool):
            yield {**base, p.name: not value}
        elif value is None and not p.required:
            yield {**base, p.name: 2 + len(base)}


def size_names(layer: ast.Layer) -> set[str]:
    """Names that occur where a size or a count is meant, also through definitions made from them."""
    found: set[str] = set()

    def names(tree: ast.Tree | None) -> set[str]:
        return set() if tree is None else {t.id.rstrip("'") for t in ast.walk(tree) if isinstance(t, ast.Name)}

    definitions: dict[str, set[str]] = {}
    for t in ast.walk(layer):
        if isinstance(t, ast.Dim):
            found |= names(t)
        elif isinstance(t, ast.Kind):
            found |= names(t.bound)
        elif isinstance(t, ast.Loop):
            found |= names(t.start) | names(t.stop)
        elif isinstance(t, ast.Subscript):
            found |= {n for index in t.indices for n in names(index)}
        elif isinstance(t, ast.Transform):
            found |= {n for a in t.arguments for n in names(a)}
        elif isinstance(t, ast.Call):
            sized = (*t.over, *t.dims, *(t.arguments[1:] if t.function in _SIZED else ()))
            found |= {n for s in sized for n in names(s)}
        elif isinstance(t, ast.Rule | ast.Constant):
            definitions.setdefault(t.name, set()).update(names(t.value))
    pending = list(found)
    while pending:
        for name in definitions.pop(pending.pop(), ()):
            if name not in found:
                found.add(name)
                pending.append(name)
    return found
