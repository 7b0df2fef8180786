"""The view of a program: all that a page shows of it, as values that JSON has."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from gdsl.codegen.targets import DEFAULT_TARGET
from gdsl.errors import GdslError, InputError
from gdsl.explore.code import machine_code, sources
from gdsl.explore.flow import flow
from gdsl.explore.making import Making
from gdsl.explore.one_node import NODES, PROFILES, one_node
from gdsl.explore.reading import Settings, as_json, read, uses_files
from gdsl.explore.rewrites import equations_of, rewrites
from gdsl.ir.program import Program
from gdsl.language.errors import LanguageError
from gdsl.look.kernels import compile_together

# The stages of machine code that a page without a server has.
_SHOWN = (("cpp", "asm"), ("triton", "ptx"))
# Programs with what was made of them: an edit asks for one several times.
_KEPT = 4


def _stages(making: Making) -> dict[str, Any]:
    """The program as it was written, after the rules, and its gradients: lines with types, and where they come from."""
    found = making.inspection
    parts: dict[str, list[Program]] = {
        "written": [making.plain],
        "optimised": [*making.optimised],
        "backward": [a.program for a in found.adjoints],
    }
    lines = making.origins.lines
    return {name: [line for p in programs for line in equations_of(p, lines)] for name, programs in parts.items()}


PARTS: Mapping[str, Callable[[Making], Any]] = {
    "stages": _stages,
    "flow": flow,
    "rewrites": rewrites,
    "code": sources,
}


def _made(text: str, settings: Settings) -> Making:
    if settings.folder is not None and uses_files(text):
        return Making(read(text, settings))
    return _kept(text, replace(settings, folder=None))


@functools.lru_cache(maxsize=_KEPT)
def _kept(text: str, settings: Settings) -> Making:
    return Making(read(text, settings))


def view(text: str, settings: Settings = Settings(), parts: Collection[str] = tuple(PARTS)) -> dict[str, Any]:  # noqa: B008
    """What a page shows of a text: its mistakes, arguments and types, and of a text without mistakes some ``parts``.

    ``problem`` says why a program that has no mistakes has no parts, as where an op has no derivative.

    Raises :class:`gdsl.InputError` for a part that there is not.
    """
    if not set(parts) <= set(PARTS):
        raise InputError(f"the parts of a view are {', '.join(PARTS)}")
    making = _made(text, settings)
    found = {**as_json(making.reading), "parts": {}, "problem": None}
    if making.reading.typed is not None:
        try:
            found["parts"] = {part: PARTS[part](making) for part in parts}
        except GdslError as problem:
            found["problem"] = str(problem)
    return found


def code_of(
    text: str, settings: Settings, language: str, kernel: str, stage: str, target: str = DEFAULT_TARGET
) -> dict[str, Any]:
    """Machine code of one kernel: see :func:`gdsl.explore.code.machine_code`."""
    return machine_code(_checked(text, settings), language, kernel, stage, target)


def node_of(text: str, settings: Settings, node: int, profile: str) -> dict[str, Any]:
    """The values of one node: see :func:`gdsl.explore.one_node.one_node`."""
    return one_node(_checked(text, settings).run(profile), node)


def whole(text: str, settings: Settings = Settings()) -> dict[str, Any]:  # noqa: B008
    """A view with everything that a page may ask for afterwards, for a page that has no server.

    ``machine`` has the assembly and PTX of each kernel, or why there is none; ``nodes`` each node of the small graph.
    """
    found = view(text, settings)
    found["machine"], found["nodes"] = {}, {}
    if found["parts"]:
        with contextlib.suppress(GdslError):  # which is said again where a kernel is looked at
            compile_together(_made(text, settings).inspection.kernels("triton"))
        for language, stage in _SHOWN:
            for kernel in found["parts"]["code"][language]:
                key = f"{language}/{kernel['name']}/{stage}"
                found["machine"][key] = _or_why(code_of, text, settings, language, kernel["name"], stage)
        for profile in PROFILES:
            for node in range(NODES):
                found["nodes"][f"{profile}/{node}"] = _or_why(node_of, text, settings, node, profile)
    return found


def _or_why(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    try:
        return function(*arguments)
    except (GdslError, OSError) as problem:
        return {"problem": str(problem)}


def _checked(text: str, settings: Settings) -> Making:
    making = _made(text, settings)
    if making.reading.typed is None:
        raise LanguageError(making.reading.diagnostics, text)
    return making
