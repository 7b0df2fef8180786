"""A text and what was chosen beside it, to a checked program or its mistakes. Nothing here needs torch."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gdsl.editor.tokens import units
from gdsl.errors import InputError
from gdsl.ir.types import Domain, Type
from gdsl.language import ast
from gdsl.language.check import check
from gdsl.language.errors import Diagnostic, LanguageError
from gdsl.language.format import default_value
from gdsl.language.imports import Folder
from gdsl.language.lint import lint
from gdsl.language.parse import MAX_TEXT, parse
from gdsl.language.placeholders import asked_for, check_any, size_names
from gdsl.language.program import Constant, TypedProgram
from gdsl.language.signature import Signature, signature_of
from gdsl.look.show import constant_of, stand_ins
from gdsl.passes.options import GraphShape

DEVICES = ("cpu", "cuda")
# Sizes that a page may ask for. A program is compiled for them, and a graph of this many nodes is never made.
MOST_NODES, MOST_DEGREE = 10**9, 10**5
# No stand-in is larger than this.
MOST_SIZE = 4096
# How often sizes that nobody gave are changed to what the program asks for.
_CHANGES = 12


@dataclass(frozen=True)
class Settings:
    """What is chosen beside the text.

    layer:  which layer of the text; None is the first
    values: arguments and sizes of dims by name; names that the layer has not are passed over, as a text that is being
            edited loses and gets back its names
    inputs: the optional inputs that are passed
    folder: where the files are that the text may use; None where it may use none, as no request can say one
    nodes, degree, device: the graph that the cost model has in mind, and where it lies, "cpu" or "cuda"
    """

    layer: str | None = None
    values: tuple[tuple[str, Constant], ...] = ()
    inputs: frozenset[str] = frozenset()
    nodes: int = 100_000
    degree: float = 16.0
    device: str = "cpu"
    folder: Path | None = None

    @property
    def shape(self) -> GraphShape:
        """The graph as the cost model counts it."""
        return GraphShape.of(self.nodes, self.nodes, round(self.nodes * self.degree), self.device)


def settings_of(data: Any, folder: Path | None = None) -> Settings:
    """Settings from JSON, for a text in a folder. Raises :class:`gdsl.InputError` for what is none."""
    if not isinstance(data, dict):
        raise InputError("settings are an object")
    values, inputs = data.get("values", {}), data.get("inputs", [])
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in (*values, *values.values())):
        raise InputError("values are texts by name")
    if not isinstance(inputs, list) or not all(isinstance(i, str) for i in inputs):
        raise InputError("inputs are a list of names")
    layer, device = data.get("layer"), data.get("device", "cpu")
    if not (layer is None or isinstance(layer, str)) or device not in DEVICES:
        raise InputError(f"a layer is a name, and a device one of {', '.join(DEVICES)}")
    return Settings(
        layer,
        tuple((name, constant_of(text)) for name, text in values.items()),
        frozenset(inputs),
        round(_number(data, "nodes", Settings.nodes, 1, MOST_NODES)),
        _number(data, "degree", Settings.degree, 0, MOST_DEGREE),
        device,
        folder,
    )


def _number(data: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    value = data.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InputError(f"{name} is a number from {least:g} to {most:g}")
    return value


@dataclass(frozen=True)
class Reading:
    """What a text says.

    typed:  the checked program; None where there are mistakes
    values: arguments and sizes of dims, those that were chosen and stand-ins
    given:  the names of those that were chosen
    """

    text: str
    settings: Settings
    diagnostics: tuple[Diagnostic, ...]
    layers: tuple[str, ...] = ()
    layer: ast.Layer | None = None
    signature: Signature | None = None
    values: Mapping[str, Constant] = field(default_factory=dict)
    given: frozenset[str] = frozenset()
    typed: TypedProgram | None = None

    @property
    def way(self) -> tuple[dict[str, Constant], dict[str, Any]]:
        """What the layer is checked with: its arguments, and all else by name."""
        assert self.signature is not None
        return _way(self.signature, self.values, self.settings.inputs)

    @property
    def sizes(self) -> dict[str, int]:
        """The number behind each name that a formula may have."""
        assert self.typed is not None
        known = {**dict(self.typed.arguments), **self.values}
        numbers = {n: v for n, v in known.items() if isinstance(v, int) and not isinstance(v, bool)}
        for type in (*(r.type for r in self.typed.rules), *(d.type for d in self.typed.declarations if d.type)):
            numbers |= {d.name: d.size for d in type.dims}
        return numbers


def read(text: str, settings: Settings = Settings()) -> Reading:
    """Parse and check a text of at most ``MAX_TEXT`` characters. Mistakes are part of what is given back."""
    found_in = settings.folder if uses_files(text) else None
    program, said = _parsed_once(text) if found_in is None else _parsed(text, Folder(found_in))
    if program is None:
        return Reading(text[:MAX_TEXT], settings, said)
    layers = {layer.name: layer for layer in program.layers}
    layer = layers.get(settings.layer or "", program.layers[0])
    signature = signature_of(layer)
    known = {*(p.name for p in _arguments_of(signature)), *signature.free_dims}
    given = {n: v for n, v in settings.values if n in known}
    found = list(said)
    typed, values = None, {**next(_candidates(layer, signature, given)), **given}
    if not any(d.severity == "error" for d in found):
        typed, values, wrong = _fitting(layer, signature, given, settings.inputs)
        found += wrong
    found.sort(key=lambda d: (d.severity != "error", d.span.start))
    return Reading(
        text,
        settings,
        tuple(found),
        tuple(layers),
        layer,
        signature,
        values,
        frozenset(given),
        typed,
    )


def uses_files(text: str) -> bool:
    """Whether a text may use files, which can change while it stays."""
    return "from" in text


@functools.lru_cache(maxsize=4)
def _parsed_once(text: str) -> tuple[ast.Program | None, tuple[Diagnostic, ...]]:
    """A text that uses no files: settings change while it stays."""
    return _parsed(text, None)


def _parsed(text: str, files: Folder | None) -> tuple[ast.Program | None, tuple[Diagnostic, ...]]:
    """A text, and what is wrong with it whatever the settings are."""
    try:
        program = parse(text, files=files)
    except LanguageError as error:
        return None, error.diagnostics
    return program, tuple(d for layer in program.layers for d in (*lint(layer), *_mistakes(layer)))


def _mistakes(layer: ast.Layer) -> Sequence[Diagnostic]:
    """What is wrong whatever the arguments are."""
    try:
        check_any(layer)
    except LanguageError as error:
        return error.diagnostics
    return ()


def _fitting(
    layer: ast.Layer, signature: Signature, given: Mapping[str, Constant], inputs: frozenset[str]
) -> tuple[TypedProgram | None, dict[str, Constant], list[Diagnostic]]:
    """The program for the values that are given, with stand-ins for the others that fit; else what does not."""
    first: tuple[dict[str, Constant], Sequence[Diagnostic]] | None = None
    for others in _candidates(layer, signature, given):
        values = {**others, **given}
        for _ in range(_CHANGES):
            arguments, other = _way(signature, values, inputs)
            try:
                return check(layer, arguments, **other), values, []
            except LanguageError as error:
                first = first or (dict(values), error.diagnostics)
                change = asked_for(error.diagnostics, values, given)
            if change is None or change[1] > MOST_SIZE:
                break
            values.update([change])
    assert first is not None
    shown = ", ".join(f"{n} = {default_value(v)}" for n, v in first[0].items())
    with_values = [replace(d, detail="; ".join(filter(None, [d.detail, f"with {shown}"]))) for d in first[1]]
    return None, first[0], with_values


def _way(
    signature: Signature, values: Mapping[str, Constant], inputs: frozenset[str]
) -> tuple[dict[str, Constant], dict[str, Any]]:
    free = {n: v for n in signature.free_dims if isinstance(v := values[n], int)}
    present = inputs & {i.name for i in signature.inputs if i.optional}
    arguments = {n: v for n, v in values.items() if n not in free}
    return arguments, {"present": present, "free_dims": free, "signature": signature}


def _arguments_of(signature: Signature) -> list[ast.Parameter]:
    """Without torch modules, which no text gives."""
    modules = {name for name, _ in signature.modules} - set(signature.parts)
    return [p for p in signature.arguments if p.name not in modules]


def _candidates(layer: ast.Layer, signature: Signature, given: Mapping[str, Constant]) -> Iterator[dict[str, Constant]]:
    """Values to try for what is not given: sizes that differ, the optional parts there, sizes that are all alike."""
    values: dict[str, Constant] = {p.name: p.default for p in _arguments_of(signature) if not p.required}
    missing = stand_ins(layer, signature, given)
    values |= missing
    yield values
    yield {**values, **{name: True for name in signature.parts if values.get(name) is None}}
    for size in (2, 12):
        yield {n: size if isinstance(v, int) and n in missing else v for n, v in values.items()}


# ---------------------------------------------------------------------------------------------- as JSON


def as_json(reading: Reading) -> dict[str, Any]:
    """What a page shows of a reading: mistakes, arguments, inputs, and the type of each value with a name."""
    return {
        "text": reading.text,
        "diagnostics": [_diagnostic(d, reading.text) for d in reading.diagnostics],
        "layers": list(reading.layers),
        "layer": reading.layer.name if reading.layer else None,
        "arguments": list(_arguments(reading)),
        "inputs": [
            {"name": i.name, "on": i.name in reading.settings.inputs}
            for i in (reading.signature.inputs if reading.signature else ())
            if i.optional
        ],
        "values": list(_values(reading)),
    }


def _diagnostic(d: Diagnostic, text: str) -> dict[str, Any]:
    return {
        "severity": d.severity,
        "message": d.message,
        "line": d.span.line,
        "column": d.span.column,
        "start": units(text[: d.span.start], "utf-16"),  # as JavaScript counts
        "end": units(text[: max(d.span.end, d.span.start + 1)], "utf-16"),
        "detail": "; ".join([*(e.sentence for e in d.inside), d.detail or ""]) if d.inside else d.detail,
        "expected": list(d.expected),
        "hint": d.hint,
    }


def _arguments(reading: Reading) -> Iterator[dict[str, Any]]:
    if reading.signature is None or reading.layer is None:
        return
    s = reading.signature
    defaults = {p.name: p.default for p in s.arguments}
    sizes = size_names(reading.layer) | set(s.free_dims)
    for name, value in reading.values.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        kind = "flag" if isinstance(defaults.get(name), bool) else "size" if name in sizes and whole else "constant"
        if name not in s.tables:
            yield {"name": name, "value": default_value(value), "kind": kind, "given": name in reading.given}


def _values(reading: Reading) -> Iterator[dict[str, Any]]:
    typed = reading.typed
    if typed is None:
        return
    spaces = typed.spaces
    for d in typed.declarations:
        if d.type is not None and d.present and d.span is not ast.NOWHERE:
            within = "" if not d.within else f" {'over' if d.type.domain is Domain.EDGE else 'in'} {d.within}"
            shown = {"type": f"{d.type}{within}"}
            yield {**_value(d.name, d.role, d.type, d.span, reading.text), **shown, "rule": None}
    for rule in typed.rules:
        shown = {"type": spaces.shown(rule.node), "rule": rule.text}
        yield {**_value(rule.name, rule.kind, rule.type, rule.span, reading.text), **shown}


def _value(name: str, kind: str, type: Type, span: ast.Span, text: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "type": str(type),
        "domain": type.domain.value,
        "number": type.kind.value,
        "dims": [[d.name, d.size] for d in type.dims],
        "line": span.line,
        "last": span.line + text.count("\n", span.start, span.end),
    }
