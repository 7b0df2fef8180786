"""``gdsl show``: one stage of a layer's way to machine code, as text; and the values that a command line gives."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from gdsl.errors import CommandError, GdslError
from gdsl.language import ast
from gdsl.language.errors import LanguageError, did_you_mean
from gdsl.language.format import default_value
from gdsl.language.placeholders import check_any, size_names
from gdsl.language.program import Constant, ConstantTable, TypedProgram, table_of, why_no_table
from gdsl.language.signature import Signature, signature_of
from gdsl.language.values import is_whole

STAGES = ("ast", "ir", "optimised", "fused", "cpp", "asm", "triton", "ttir", "ttgir", "llir", "ptx", "sass")


def show(
    layer: ast.Layer,
    stage: str,
    settings: Sequence[str],
    inputs: Sequence[str],
    where: str,
    checked: Callable[..., TypedProgram],
    backward: bool = False,
) -> str:
    """A stage of a layer. Raises :class:`LanguageError`, placed in the file ``where``, or :class:`CommandError`.

    settings: ``name=value`` for arguments and free dims; what has neither a default nor a setting gets a stand-in
    inputs:   the optional inputs that are passed
    checked:  gives the typed program of a layer, with what it reads of parts of its own: takes what ``check`` takes
    """
    signature = signature_of(layer)
    given = values_of(settings, [layer])
    present = optional_inputs(inputs, signature)
    if stage == "ast":
        if backward:
            raise CommandError("the syntax tree has no backward: choose another stage")
        return "\n".join(_outline(layer))
    others = stand_ins(layer, signature, given)
    if others:
        shown = " ".join(f"{name}={value}" for name, value in others.items())
        print(f"gdsl: stand-ins for what --set does not give: {shown}", file=sys.stderr)
    values = {**others, **given}
    try:
        return _stage(layer, signature, values, present, stage, checked, backward)
    except LanguageError as error:
        raise _blame(error, layer, values, where) from error


def _blame(error: LanguageError, layer: ast.Layer, values: Mapping[str, Constant], file: str) -> GdslError:
    """Mistakes of the program, or, where other arguments would have been right, of these arguments."""
    try:
        check_any(layer)
    except LanguageError:
        return LanguageError(error.diagnostics, error.source, file)
    first = error.diagnostics[0]
    given = " ".join(f"{name}={default_value(value)}" for name, value in values.items())
    return CommandError(f"{layer.name} cannot have {given}: {first.message} (line {first.span.line})")


def values_of(pairs: Sequence[str], layers: Sequence[ast.Layer]) -> dict[str, Constant]:
    """The values of ``--set name=value ...``, each for the layers that have the name."""
    signatures = [signature_of(layer) for layer in layers]
    modules = [name for s in signatures for name, _ in s.modules]
    sizes = {name for s in signatures for name in s.free_dims}
    known = list(dict.fromkeys(n for s in signatures for n in (*(p.name for p in s.arguments), *s.free_dims)))
    owner = " and ".join(s.name for s in signatures)
    found: dict[str, Constant] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise CommandError(f"--set takes name=value, and `{pair}` has no `=`")
        if name in modules:
            hint = "without one it is taken to keep the dims"
            raise CommandError(f"--set cannot give the torch module `{name}`; {hint}")
        if name not in known:
            listed = f"it has {', '.join(known)}" if known else "it has none"
            hint = did_you_mean(name, known, listed) or ""
            raise CommandError(f"{owner} has no argument `{name}`: {hint}")
        if name in found:
            raise CommandError(f"--set gives `{name}` twice")
        is_table = any(name in s.tables for s in signatures)
        found[name] = numbers_in(text) if is_table and Path(text).suffix in _READERS else constant_of(text)
        if name in sizes and not (is_whole(found[name]) and found[name] >= 0):  # type: ignore[operator]
            raise CommandError(f"`{name}` is the size of a dim, and {text!r} is not a whole number")
    said = {name: size for s in signatures for name, size in s.sizes_of_tables(found).items()}
    return {**said, **found}


def _of_numpy(path: Path) -> object:
    import numpy

    with open(path, "rb") as file:
        return numpy.lib.format.read_array(file, allow_pickle=False)


_READERS: Mapping[str, Callable[[Path], object]] = {
    ".npy": _of_numpy,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
}


def numbers_in(file: str) -> ConstantTable | float:
    """The numbers of a file, ``.npy`` or ``.json`` with nested lists. Raises :class:`gdsl.CommandError`."""
    try:
        value = _READERS[Path(file).suffix](Path(file))
    except OSError as error:
        raise CommandError(f"{file}: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{file}: {error}") from error
    table = table_of(value)
    if table is None:
        why = why_no_table(value, "the array")
        raise CommandError(f"{file} is no table of finite numbers" + (f": {why}" if why else ""))
    return table


_WORDS: dict[str, Constant] = {"true": True, "false": False, "none": None}


def constant_of(text: str) -> Constant:
    """A number, true, false, none, numbers in brackets, or else a string; quotes make a string of anything."""
    if text.startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            return table_of(json.loads(text)) or text
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(text)
    return text


def optional_inputs(names: Sequence[str], signature: Signature) -> frozenset[str]:
    """The names of optional inputs. Raises :class:`gdsl.CommandError` for one that there is not."""
    optional = [i.name for i in signature.inputs if i.optional]
    for name in names:
        if name not in optional:
            listed = f"it has {', '.join(optional)}" if optional else "it has none"
            hint = did_you_mean(name, optional, listed)
            raise CommandError(f"{signature.name} has no optional input `{name}`: {hint}")
    return frozenset(names)


def stand_ins(layer: ast.Layer, signature: Signature, given: Mapping[str, Constant]) -> dict[str, Constant]:
    """Values for what has neither a default nor a setting.

    Sizes are 16, 32, ..., each another one; the ends of loops are 2, 3, ..., since each turn is written out;
    what is neither is a rate or a slope: 0.5.
    """
    missing = [p.name for p in signature.arguments if p.required and p.name not in given]
    missing += [name for name in signature.free_dims if name not in given]
    loops = [e for t in ast.walk(layer) if isinstance(t, ast.Loop) for e in (t.start, t.stop)]
    counts = {t.id for e in loops for t in ast.walk(e) if isinstance(t, ast.Name)}
    sizes = size_names(layer) | set(signature.free_dims)
    small, wide = itertools.count(2), itertools.count(16, 16)
    return {n: next(small) if n in counts else next(wide) if n in sizes else 0.5 for n in missing}


def _stage(
    layer: ast.Layer,
    signature: Signature,
    values: Mapping[str, Constant],
    present: frozenset[str],
    stage: str,
    checked: Callable[..., TypedProgram],
    backward: bool,
) -> str:
    """A stage after the syntax tree, as text: for float32, in evaluation mode."""
    import torch

    from gdsl.look.kernels import Inspection
    from gdsl.look.pieces import pieces
    from gdsl.passes.options import Options
    from gdsl.passes.pipeline import optimise
    from gdsl.passes.stages import cut

    free = {name: int(values[name]) for name in signature.free_dims}  # type: ignore[arg-type]
    arguments = {name: value for name, value in values.items() if name not in free}
    typed = checked(layer, arguments, present=present, free_dims=free)
    options = Options(optimise=stage != "ir")
    # What runs on several graphs is compiled in pieces; the IR before is of all of them.
    in_pieces = typed.graphs and (options.optimise or backward)
    found = []
    for part in [piece for _, piece in pieces(typed).parts] if in_pieces else [typed]:
        program = optimise(part.program) if options.optimise else part.program
        programs = [s.program for s in cut(program)]
        found.append(Inspection(part, programs, torch.float32, torch.int32, options).text(stage, backward))
    return "\n\n".join(found)


def _outline(tree: ast.Tree, label: str = "", depth: int = 0) -> Iterator[str]:
    """A syntax tree with a node a line: its class and its plain fields, then its children."""
    fields = [(f.name, getattr(tree, f.name)) for f in dataclasses.fields(tree) if f.repr]
    plain = [(name, v) for name, v in fields if v is not None and v != () and not _is_syntax(v)]
    words = [f"{name}={_field(v)}" for name, v in plain]
    yield "    " * depth + label + " ".join([type(tree).__name__, *words])
    for name, value in fields:
        for child in value if isinstance(value, tuple) else (value,):
            if isinstance(child, ast.Tree):
                yield from _outline(child, "" if name == "body" else f"{name}: ", depth + 1)


def _is_syntax(value: object) -> bool:
    return any(isinstance(v, ast.Tree) for v in (value if isinstance(value, tuple) else (value,)))


def _field(value: object) -> str:
    return "(" + ", ".join(map(str, value)) + ")" if isinstance(value, tuple) else repr(value)
