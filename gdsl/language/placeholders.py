"""Checking a layer without its arguments, as `gdsl check FILE` does: stand-ins for sizes, every branch once.

A program may ask for relations between its sizes: that a dim is a product of two others, or that two are equal. So
stand-ins that a mistake blames are changed to what it asks for, and others are tried: a mistake is one if it is made
with all of them.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace

from gdsl.language import ast
from gdsl.language.check import check
from gdsl.language.errors import Diagnostic, LanguageError
from gdsl.language.expressions import Watch
from gdsl.language.format import default_value
from gdsl.language.program import NOT_GIVEN, Constant, TypedProgram
from gdsl.language.signature import Signature, signature_of
from gdsl.language.values import UNKNOWN, is_whole

# Functions whose later arguments are sizes.
_SIZED = ("merge", "split", "stack", "int", "bspline", "bspline_index", "transpose")

# Numbers that stand for everything at once, where others than small ones that differ are asked for.
_ALIKE = (1, 2, 3, 12, 60)
# How often a stand-in is changed to what a mistake asks for.
_CHANGES = 12

Values = Mapping[str, Constant]


def check_any(
    layer: ast.Layer, given: Values | None = None, watch: Watch | None = None
) -> tuple[TypedProgram, ...]:
    """Check a layer in every way that its flags and optional inputs allow, one at a time.

    given: values of arguments, and sizes of dims that a call gives
    watch: is told what each expression stands for, in each of these ways

    Raises :class:`LanguageError` with what is wrong in any of them.
    """
    signature = signature_of(layer)
    given = given or {}
    optional = frozenset(i.name for i in signature.inputs if i.optional)
    programs: list[TypedProgram] = []
    mistakes: dict[tuple[str, int], Diagnostic] = {}
    sizes = size_names(layer) | set(signature.free_dims)
    ways = list(itertools.product(_variants(layer, given), dict.fromkeys([frozenset[str](), optional])))
    for flags, present in ways:
        try:
            programs.append(_check(layer, signature, sizes, {**flags, **given}, present, watch))
        except LanguageError as error:
            for d in error.diagnostics:
                mistakes.setdefault((d.message, d.span.start), d)
    if mistakes:
        raise LanguageError(list(mistakes.values()), layer.source, layer.name)
    return tuple(programs)


def _variants(layer: ast.Layer, given: Values) -> Iterator[dict[str, Constant]]:
    """The defaults, then each flag turned, and each argument that is none given a size."""
    yield {}
    signature = signature_of(layer)
    for p in signature.arguments:
        if p.name in given or p.required:
            continue
        if isinstance(p.default, bool):
            yield {p.name: not p.default}
        elif p.name in signature.parts:
            yield {p.name: True}
        elif p.name in signature.choices:
            continue
        elif p.default is None:
            yield {p.name: 2 + len(layer.parameters)}


def _check(
    layer: ast.Layer,
    signature: Signature,
    sizes: Set[str],
    fixed: Values,
    present: frozenset[str],
    watch: Watch | None,
) -> TypedProgram:
    """The program with the stand-ins that make fewest mistakes: with none as soon as there are such."""
    tried: list[tuple[Values, Sequence[Diagnostic]]] = []
    for values in _stand_ins(signature, sizes, fixed):
        changed = dict(values)
        for _ in range(_CHANGES):
            for modules in ({}, {name: UNKNOWN for name, optional in signature.modules if optional}):
                arguments = {name: v for name, v in changed.items() if name not in signature.free_dims}
                free = {name: int(changed[name]) for name in signature.free_dims}  # type: ignore[arg-type]
                try:
                    return check(
                        layer,
                        arguments,
                        modules=modules,
                        present=present,
                        free_dims=free,
                        training=True,
                        signature=signature,
                        watch=watch,
                    )
                except LanguageError as error:
                    tried.append((dict(changed), error.diagnostics))
                if not any(optional for _, optional in signature.modules):
                    break
            change = asked_for(tried[-1][1], changed, fixed)
            if change is None:
                break
            changed.update([change])
    raise LanguageError(_blamed(tried, fixed), layer.source, layer.name)


def _stand_ins(signature: Signature, sizes: Set[str], fixed: Values) -> Iterator[Values]:
    """Values for what has neither a default nor a fixed value.

    What is used as a size is a small whole number, each another one, and the rest is 0.5, a rate or a slope; then one
    number for all. Of a table the numbers are left open.
    """
    names = [p.name for p in signature.arguments if p.required and p.name not in signature.tables]
    names += signature.free_dims
    numbers = itertools.count(2)
    differing: Values = {name: next(numbers) if name in sizes else 0.5 for name in names}
    defaults: dict[str, Constant] = {p.name: p.default for p in signature.arguments if not p.required}
    defaults |= dict.fromkeys(signature.tables, NOT_GIVEN)
    alike: list[Values] = [dict.fromkeys(names, number) for number in _ALIKE]
    for values in (differing, *alike):
        yield {**defaults, **values, **fixed}


def asked_for(found: Sequence[Diagnostic], values: Values, fixed: Values) -> tuple[str, int] | None:
    """A stand-in with the size with which one of the mistakes would be none."""
    for name, size in (pair for d in found for pair in d.sizes):
        factors = name.replace("'", "").split("*")
        sizes = [int(f) if f.isdigit() else values.get(f) for f in factors]
        if not all(map(is_whole, sizes)):
            continue
        for k, factor in enumerate(factors):
            rest = math.prod(sizes[:k] + sizes[k + 1 :])  # type: ignore[arg-type]
            if factor in values and factor not in fixed and rest and size % rest == 0 and size // rest != sizes[k]:
                return factor, size // rest
    return None


def _blamed(tried: Sequence[tuple[Values, Sequence[Diagnostic]]], fixed: Values) -> list[Diagnostic]:
    """The mistakes that are made whatever the sizes; else those of the best try, with the sizes that it had."""
    ways = [{_key(d) for d in found} for _, found in tried]
    values, fewest = min(tried, key=lambda t: len(t[1]))
    always = [d for d in fewest if all(_key(d) in way for way in ways)]
    if always:
        return always
    shown = ", ".join(f"{n} = {default_value(v)}" for n, v in values.items() if n not in fixed and v != NOT_GIVEN)
    return [replace(d, detail=f"{d.detail}; " * bool(d.detail) + f"with {shown}: --set gives others") for d in fewest]


def _key(d: Diagnostic) -> tuple[int, str]:
    """A mistake, whatever the sizes that it names."""
    return d.span.start, re.sub(r"\d+", "", d.message)


def _sizes_given(
    callee: ast.Layer | None, given: Sequence[ast.Tree], known: dict[int, set[str]]
) -> Iterator[ast.Tree]:
    """What is given of the arguments of a layer that are sizes there."""
    if callee is None:
        return
    signature = signature_of(callee)
    order, sizes = signature.order, size_names(callee, known) | set(signature.free_dims)
    for k, tree in enumerate(given):
        name = tree.name if isinstance(tree, ast.Named) else order[k] if k < len(order) else ""
        if name in sizes:
            yield tree.value if isinstance(tree, ast.Named) else tree


def size_names(layer: ast.Layer, known: dict[int, set[str]] | None = None) -> set[str]:
    """Names that occur where a size or a count is meant, also through definitions made from them.

    known: those of layers that are called, which several may call
    """
    known = {} if known is None else known
    if id(layer) in known:
        return known[id(layer)]
    known[id(layer)] = found = set[str]()

    def names(tree: ast.Tree | None) -> set[str]:
        return set() if tree is None else {t.id.rstrip("'") for t in ast.walk(tree) if isinstance(t, ast.Name)}

    definitions: dict[str, set[str]] = {}
    used = dict(layer.uses)
    for t in ast.walk(layer):
        if isinstance(t, ast.Dim):
            found |= names(t)
        elif isinstance(t, ast.Kind):
            found |= names(t.bound)
        elif isinstance(t, ast.Owned):
            found |= {n for s in (*t.sizes, t.count) for n in names(s)}
        elif isinstance(t, ast.Loop):
            found |= names(t.start) | names(t.stop)
        elif isinstance(t, ast.Subscript):
            found |= {n for index in t.indices for n in names(index)}
        elif isinstance(t, ast.Transform):
            found |= {n for a in t.arguments for n in names(a)}
        elif isinstance(t, ast.Instance):
            found |= {n for e in (t.count, *_sizes_given(used.get(t.layer), t.arguments, known)) for n in names(e)}
        elif isinstance(t, ast.Call) and t.function in used:
            found |= {n for e in _sizes_given(used[t.function], t.dims, known) for n in names(e)}
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
