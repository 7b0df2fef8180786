"""Names in generated code, and the comment over each kernel: both in the words of the program."""

from __future__ import annotations

import re

from gdsl.ir.node import Node
from gdsl.ir.printer import describe, expression
from gdsl.ir.program import Program
from gdsl.passes.plan import Kernel

COMMENT_WIDTH = 160


class Names:
    """Identifiers of one kernel: each fresh, none a word of the language that is written.

    reserved: words that the language or the kernel's frame uses
    foreign:  what no identifier may look like
    """

    # What a kernel of each end walks.
    walked = {"i": "in-edges of node i; j is the source", "j": "out-edges of node i; j is the target"}

    def __init__(self, program: Program, reserved: frozenset[str], foreign: re.Pattern[str]):
        self.program = program
        self.foreign = foreign
        self.reserved, self.used = reserved, set(reserved)
        self.counts: dict[str, int] = {}  # the last number that was tried, by name
        self.names: dict[Node, str] = {}
        self.loop_vars: dict[str, str] = {}

    def fresh(self, wanted: str) -> str:
        base = re.sub(r"[^A-Za-z0-9_]", "_", wanted.replace("'", "_prime")) or "t"
        if base[0].isdigit():
            base = "d" + base
        if self.foreign.match(base):
            base = "v_" + base + "_"
        name, count = base, self.counts.get(base, 1)
        while name in self.used:
            count += 1
            name = f"{base}_{count}"
        self.used.add(name)
        self.counts[base] = count
        return name

    def name(self, node: Node) -> str:
        if node not in self.names:
            self.names[node] = self.fresh(describe(node, self.program.names))
        return self.names[node]

    def loop_var(self, dim: str) -> str:
        """The variable that counts the places of a dim."""
        if dim not in self.loop_vars:
            self.loop_vars[dim] = self.fresh(dim)
        return self.loop_vars[dim]

    def rules(self, kernel: Kernel) -> list[str]:
        """What a kernel computes, in the language's own words."""
        shown = {**self.program.names, **{b: self.name(b) for b in kernel.buffers}}
        shown = {n: name for n, name in shown.items() if n.op not in ("const", "gather")}
        lines = [f"{kernel.name}: " + (f"walks the {self.walked[kernel.end]}" if kernel.end else "row by row")]
        for phase in kernel.phases:
            for node in (*phase.accumulators, *phase.totals, *phase.stores):
                lines.append(f"  {self.name(node)} = {expression(node, shown)}")
        for node in (*kernel.stores, *kernel.totals):
            if node.op not in ("segment", "scan"):
                others = {**shown, **{n: self.name(n) for p in kernel.phases for n in p.accumulators}}
                lines.append(f"  {self.name(node)} = {expression(node, others)}")
        # A name that a comment shows may be any text, which must not end the comment.
        lines = [re.sub(r"[^ -\[\]-~]", "?", line) for line in lines]
        width = COMMENT_WIDTH - len("// ")
        return [line if len(line) <= width else line[: width - 3] + "..." for line in lines]
