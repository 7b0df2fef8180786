"""What a notebook shows: a line or a table, and texts that unfold.

It is made of what is known already: showing a layer compiles nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from gdsl.html import ROWS, folded, line, page, table, text
from gdsl.look.short import short

if TYPE_CHECKING:
    from torch import nn

    from gdsl.language.program import TypedProgram
    from gdsl.look.check import CheckReport
    from gdsl.look.kernels import KernelInfo


def layer(module: nn.Module, source: str | None, program: TypedProgram | None) -> str:
    """A layer: its parameters, its text, and the types of the last call."""
    shapes = [(name, " × ".join(map(str, p.shape)) or "1") for name, p in _parameters(module)]
    numbers = sum(p.numel() for _, p in _parameters(module))
    head = repr(module).splitlines()[0]
    if head.endswith("("):  # of a module with others in it
        head = f"{head}{short(module.extra_repr(), 1)})"
    backend = getattr(module, "backend", "")
    tensors = "1 tensor" if len(shapes) == 1 else f"{len(shapes)} tensors"
    parts = [line(f"{numbers:,} parameters in {tensors}, backend {backend}")]
    if source is not None:
        parts.append(folded("program", text(source, "gdsl")))
    if program is not None:
        parts.append(folded("types", program.table_of_rules()))
    if shapes:
        parts.append(folded("parameters", table(("name", "shape"), shapes)))
    return page(head, *parts)


def _parameters(module: nn.Module) -> list[tuple[str, Any]]:
    """Those that have a shape: one that is made in the first call has none yet."""
    from torch.nn.parameter import is_lazy

    return [(name, p) for name, p in module.named_parameters() if not is_lazy(p)]


def kernel(k: KernelInfo) -> str:
    head = f"kernel {k.name}"
    costs = line(f"bytes: {k.bytes}"), line(f"flops: {k.flops}")
    lines = len(k.source.splitlines())
    return page(head, line(_of(k)), *costs, folded(f"source, {lines} lines", text(k.source, _LANGUAGES[k.language])))


_LANGUAGES = {"cpp": "cpp", "triton": "python"}


def _of(k: KernelInfo) -> str:
    target = f", {k.target}" if k.job is not None else ""
    return f"{k.direction}, {k.language}{target}"


def kernels(found: Sequence[KernelInfo]) -> str:
    """A line for each kernel, under which its source unfolds."""
    sources = [
        folded(f"{k.name}: {_of(k)}, {len(k.source.splitlines())} lines", text(k.source, _LANGUAGES[k.language]))
        for k in found
    ]
    more = folded(f"{len(sources) - ROWS} more", "".join(sources[ROWS:])) if len(sources) > ROWS else ""
    return page(f"{len(found)} kernel{'s' * (len(found) != 1)}", *sources[:ROWS], more)


def report(found: CheckReport) -> str:
    """The checks that failed, and all of them folded."""
    head = ("check", "error", "tolerance", "")

    def made(rows: Iterable[Any]) -> str:
        return table(head, ((r.name, f"{r.value:.1e}", f"{r.tolerance:.0e}", r.note) for r in rows))

    failed = made(found.failures) if found.failures else ""
    return page(f"check of {found.layer}", line(found._verdict), failed, folded("all checks", made(found.rows)))
