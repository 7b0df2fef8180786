"""Generated code line by line: for each line of a kernel the line of the text that it is for, and for each line of
machine code the line of the kernel."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gdsl.codegen.targets import DEFAULT_TARGET, TARGETS
from gdsl.errors import InputError
from gdsl.explore.making import Making
from gdsl.explore.origins import lines_of_code
from gdsl.look.kernels import LANGUAGES, KernelInfo
from gdsl.runtime import cache
from gdsl.runtime.offline import sass

# The stages of a language that there are on the way from its source to the machine.
STAGES: Mapping[str, tuple[str, ...]] = {"cpp": ("asm",), "triton": ("ttir", "ttgir", "llir", "ptx", "sass", "amdgcn")}
# Those that one vendor's GPUs have.
_LAST = ("ptx", "sass", "amdgcn")
# Machine code that is shown.
MOST_LINES = 4000

# A line of machine code, and the line of the kernel's source that it is for.
Placed = tuple[str, int | None]


def sources(making: Making) -> dict[str, list[dict[str, Any]]]:
    """The kernels of each language: name, direction, ``lines``, and the lines of the text that these are for."""
    found: dict[str, list[dict[str, Any]]] = {}
    for language in LANGUAGES:
        kernels = making.inspection.kernels(language)
        labelled = making.origins.labelled.kernels(language)
        found[language] = [
            {
                "name": kernel.name,
                "direction": kernel.direction,
                "lines": kernel.source.splitlines(),
                "origins": lines_of_code(kernel.source, other.source),
            }
            for kernel, other in zip(kernels, labelled, strict=True)
        ]
    return found


def machine_code(
    making: Making, language: str, kernel: str, stage: str, target: str = DEFAULT_TARGET
) -> dict[str, Any]:
    """A stage of a kernel on its way to the machine, compiled now: ``lines``, and of which line of its source, from 0.

    target: the GPU that Triton compiles for

    Raises :class:`gdsl.InputError` for a kernel, a stage or a target that there is not, and
    :class:`gdsl.CompilerError` where a compiler fails.
    """
    if language not in STAGES or stage not in STAGES[language] or target not in TARGETS:
        raise InputError(f"there is no stage {stage!r} of {language!r} for {target!r}")
    if language == "triton" and (stage == "amdgcn") != (TARGETS[target][0] == "hip") and stage in _LAST:
        raise InputError(f"{target} has no stage {stage!r}")
    found = next((k for k in making.inspection.kernels(language, target) if k.name == kernel), None)
    if found is None:
        raise InputError(f"there is no kernel {kernel!r}")
    first = found.unit.count("\n", 0, found.unit.index(found.source.rstrip("\n"))) + 1
    count = len(found.source.splitlines())
    lines = list(_BY_STAGE[stage](found))
    shown = lines[:MOST_LINES]
    places = [line - first if line is not None and first <= line < first + count else None for _, line in shown]
    return {
        "kernel": kernel,
        "language": language,
        "stage": stage,
        "target": found.target if language == "triton" else "this machine",
        "lines": [text for text, _ in shown],
        "of": places,
        "left_out": len(lines) - len(shown),
        **({"registers": found.binary.registers, "spills": found.binary.spills} if language == "triton" else {}),
    }


# ---------------------------------------------------------------------------------------- assembly, PTX

_LOC = re.compile(r"\s*\.loc\s+(\d+)\s+(\d+)")
_END = re.compile(r"\s*\.(size|cfi_endproc)\b")
_LABEL = re.compile(r"([.$\w]+):")


@functools.lru_cache(maxsize=32)
def _assembly(unit: str) -> str:
    return cache.assembly(unit, places=True)


def _asm(kernel: KernelInfo) -> Iterator[Placed]:
    """The kernel and the functions that the compiler cut out of it for threads."""
    own = re.compile(rf"{re.escape(kernel.name)}(\.[\w.]+)?:")
    lines = _assembly(kernel.unit).splitlines()
    for start in (k for k, line in enumerate(lines) if own.match(line)):
        ends = (k for k in range(start, len(lines)) if _END.match(lines[k]))
        yield from _instructions(lines[start : next(ends, len(lines))])


def _ptx(kernel: KernelInfo) -> Iterator[Placed]:
    lines = kernel.asm("ptx").splitlines()
    start = next(k for k, line in enumerate(lines) if ".entry" in line)
    end = next((k for k in range(start, len(lines)) if lines[k].startswith("}")), len(lines) - 1)
    yield from _instructions(lines[start : end + 1])


def _amdgcn(kernel: KernelInfo) -> Iterator[Placed]:
    lines = kernel.asm("amdgcn").splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith(f"{kernel.name}:"))
    end = next((k for k in range(start, len(lines)) if lines[k].startswith(".Lfunc_end")), len(lines))
    yield from _instructions([line.split(";")[0] for line in lines[start:end]])


def _instructions(lines: list[str]) -> Iterator[Placed]:
    """Instructions and the labels that they jump to, each with the last place that was told."""
    place: int | None = None
    code = [line for line in lines if line.strip() and not _is_directive(line) and not _LABEL.match(line)]
    used = set(re.findall(r"[.$\w]+", "\n".join(code)))
    for line in lines:
        told, label = _LOC.match(line), _LABEL.match(line)
        if told is not None:
            place = int(told.group(2)) if told.group(1) == "1" and told.group(2) != "0" else place
        elif label is not None:
            if label.group(1) in used or not label.group(1).startswith((".", "$")):
                yield line.rstrip(), place
        elif line.strip() and not _is_directive(line):
            yield re.sub(r"\s*//.*", "", line).expandtabs(4).rstrip(), place


def _is_directive(line: str) -> bool:
    return re.match(r"\s*(\.(?!param|reg|shared|visible)|//|#)", line) is not None


# ------------------------------------------------------------------------------------- Triton's own, LLVM

_MLIR_DEFINITION = re.compile(r"#loc(\d*) = loc\((.*)\)$")
_MLIR_USE = re.compile(r"\s*loc\(#loc(\d*)\)")


def _mlir(stage: str, kernel: KernelInfo) -> Iterator[Placed]:
    lines = kernel.asm(stage).splitlines()
    told = {m.group(1): m.group(2) for m in map(_MLIR_DEFINITION.match, lines) if m}

    def place(number: str, depth: int = 0) -> int | None:
        """The line of a place; of a function that was inlined, where it was called."""
        text = told.get(number, "")
        direct = re.search(r'"<gdsl[^"]*":(\d+):', text)
        inner = re.findall(r"#loc(\d*)", text)
        if direct or not inner or depth > 20:
            return int(direct.group(1)) if direct else None
        return place(inner[-1] if text.startswith("callsite") else inner[0], depth + 1)

    for line in lines:
        if not line.startswith("#loc") and line.strip():
            used = _MLIR_USE.findall(line)
            yield _MLIR_USE.sub("", line).rstrip(), place(used[-1]) if used else None


def _llir(kernel: KernelInfo) -> Iterator[Placed]:
    lines = kernel.asm("llir").splitlines()
    told: dict[str, tuple[int, str | None]] = {}
    for line in lines:
        found = re.match(r"!(\d+) = .*!DILocation\(line: (\d+)", line)
        if found:
            at = re.search(r"inlinedAt: !(\d+)", line)
            told[found.group(1)] = int(found.group(2)), at.group(1) if at else None

    def place(number: str) -> int | None:
        line, at = told.get(number, (0, None))
        return (place(at) if at else line) or None

    for line in lines:
        if line.strip() and not line.startswith(("!", ";", "source_filename", "target ")):
            used = re.search(r",? !dbg !(\d+)", line)
            text = line.replace(used.group(0), "") if used else line
            yield text.rstrip(), place(used.group(1)) if used else None


_SASS_PLACE = re.compile(r'"<gdsl[^"]*", line (\d+)')


def _sass(kernel: KernelInfo) -> Iterator[Placed]:
    """Instructions and labels. Of a function that was inlined, the last place that is told is where it was called."""
    place: int | None = None
    for line in sass(kernel.binary.asm["cubin"], places=True).splitlines():
        instruction = re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*?;)", line)
        label = re.match(r"(\.L_\w+:)", line)
        if "//##" in line:
            told = _SASS_PLACE.findall(line)
            place = int(told[-1]) if told else place
        elif instruction is not None:
            yield f"    {instruction.group(1)}", place
        elif label is not None:
            yield label.group(1), place


_BY_STAGE: Mapping[str, Callable[[KernelInfo], Iterator[Placed]]] = {
    "asm": _asm,
    "ttir": functools.partial(_mlir, "ttir"),
    "ttgir": functools.partial(_mlir, "ttgir"),
    "llir": _llir,
    "ptx": _ptx,
    "amdgcn": _amdgcn,
    "sass": _sass,
}
