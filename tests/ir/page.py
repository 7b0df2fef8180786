"""docs/ops.md, made from the definitions: ``python -m tests.ir.page > docs/ops.md``."""

from __future__ import annotations

import inspect
import sys
from dataclasses import fields
from types import ModuleType

from gdsl.ir import ops
from gdsl.ir.attributes import Attrs
from gdsl.ir.node import walk
from gdsl.ir.ops import ELEMENTWISE, OPS, Op
from gdsl.ir.ops.op import no_gradient
from gdsl.ir.ops.text import expression
from tests.ir import every_op

HEAD = """# The ops of the IR

Made by `python -m tests.ir.page`; a test compares. An op is defined in `gdsl/ir/ops/`, and only there: its attributes,
its type rule, its pull-back, its reference form, its printed form, its work and its traits. `gdsl/ir/ops/op.py` says
what each of these means, and [architecture.md](architecture.md) how to add one.
"""
TRAITS = [f.name for f in fields(Op) if f.default is False]


def families() -> list[ModuleType]:
    """The files of definitions, in the order in which they build on each other."""
    modules = [m for m in vars(ops).values() if isinstance(m, ModuleType)]
    by_name = {m.__name__.rpartition(".")[2]: m for m in modules}
    order = list(dict.fromkeys(family(op) for op in OPS.values()))
    return [by_name[name] for name in order]


def family(op: Op) -> str:
    """The file that defines an op."""
    return inspect.getmodule(op.rule).__name__.rpartition(".")[2]  # type: ignore[union-attr]


def examples() -> dict[str, str]:
    """An op as it is printed."""
    found: dict[str, str] = {}
    for program in every_op.programs().values():
        for node in walk(program.nodes):
            named = {n: n.attrs.name for n in walk([node]) if n.op == "load"}
            found.setdefault(node.op, expression(node, named))
    return found


def attributes(attrs: type[Attrs], op: Op) -> str:
    return "; ".join(f"`{name}`: {value.words}" for name, value in op.fields.items()) or "none"


def structural(op: Op, example: str) -> str:
    few, many = op.operands
    count = str(few) if few == many else f"{few} or {many}" if many == few + 1 else f"{few} and more"
    gradient = "none" if op.pull is None else "zero" if op.pull is no_gradient else "a pull-back"
    traits = ", ".join(t for t in TRAITS if getattr(op, t)) or "none"
    lines = [
        f"### `{op.name}`\n",
        f"`{example}`\n" if example else "",
        f"- operands: {count}; attributes: {attributes(op.attrs, op)}",
        f"- gradient: {gradient}; traits: {traits}",
        f"- in no file: {op.no_file}" if op.no_file else "",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def function(op: Op) -> str:
    entry = ELEMENTWISE[op.name]
    traits = ", ".join(t for t in TRAITS if getattr(op, t) and t not in ("rowwise", "pointwise", "maps", "computes"))
    cells = (op.name, f"`{entry.sympy}`", entry.kind, str(entry.cost), op.singular or "nowhere", traits or "none")
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def text() -> str:
    shown, parts = examples(), [HEAD]
    for module in families():
        doc = (inspect.getdoc(module) or "").partition("\n\n")[0]
        name = module.__name__.rpartition(".")[2]
        here = [op for op in OPS.values() if family(op) == name]
        parts.append(f"## {name}\n\n{doc}\n")
        parts += [structural(op, shown.get(op.name, "")) for op in here if op.name not in ELEMENTWISE]
        rows = [function(op) for op in here if op.name in ELEMENTWISE]
        if rows:
            parts.append(
                "All are rowwise and pointwise, and map; kernels compute them. Each is one operation a number. Cost\n"
                "is its time in that of an addition; singular is where the value or a derivative may be infinite or\n"
                "NaN though all operands are finite.\n\n"
                "| function | of `{0}`, `{1}`, `{2}` | kind | cost | singular | other traits |\n"
                "|---|---|---|---:|---|---|\n" + "\n".join(rows) + "\n"
            )
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(text())
