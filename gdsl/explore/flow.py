"""Kernels and steps of torch as boxes, what flows between them, and what they cost as formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gdsl.explore.formulas import Polynomial, SizeFormulas, Terms
from gdsl.explore.making import Making
from gdsl.explore.origins import lines_of_nodes
from gdsl.ir.node import Node, walk
from gdsl.ir.ops import of
from gdsl.ir.printer import expression, name_nodes
from gdsl.ir.types import Kind
from gdsl.look.kernels import over, phase_parts
from gdsl.look.short import short
from gdsl.passes import cost, fuse
from gdsl.passes.forecast import forecast
from gdsl.passes.plan import Kernel, Plan, TorchStep

WIDTHS = {Kind.FLOAT: 4, Kind.INT: 4, Kind.BOOL: 1}
# An expression in a box.
MOST_TEXT = 400


def flow(making: Making) -> dict[str, Any]:
    """The steps of all plans in order, and what flows from one to another.

    ``steps``: a kernel or a step of torch, with its walks, results, formulas and lines of the text.
    ``links``: a value that one step makes and another reads. ``saved``: what the backward keeps of the forward pass.
    ``memory``: the tensors that are made in each direction, and how long they live. ``modules``: those that run as they
    are between steps. ``sizes``: the numbers behind the names in formulas.
    """
    writer = _Writer(making)
    for direction, plan in making.inspection.plans:
        writer.plan(direction, plan)
    return {
        "steps": writer.steps,
        "links": writer.links,
        "saved": writer.saved,
        "memory": writer.memory,
        "sizes": writer.sizes.sizes,
        "modules": list(dict.fromkeys(s.module for s in making.stages if s.module)),
    }


class _Writer:
    def __init__(self, making: Making):
        self.making, self.lines = making, making.origins.lines
        programs = [making.plain, *(plan.program for _, plan in making.inspection.plans)]
        dims = {d for p in programs for n in walk(p.nodes) for d in n.dims}
        self.sizes = SizeFormulas(making.reading.sizes, dims)
        self.steps: list[dict[str, Any]] = []
        self.links: list[dict[str, Any]] = []
        self.memory: dict[str, list[dict[str, Any]]] = {"forward": [], "backward": []}
        self.saved: list[dict[str, Any]] = []
        self.makers: dict[str, int] = {}  # of what the backward reads of the forward pass
        sources = [load for a in making.inspection.adjoints for _, load in a.saved]
        self.loads = {load.attrs.name: load for load in sources}

    def plan(self, direction: str, plan: Plan) -> None:
        names = name_nodes(plan.program)
        made: dict[Node, int] = {}
        first = len(self.steps)
        for step in plan.steps:
            number = len(self.steps)
            box = self.kernel(step, names) if isinstance(step, Kernel) else self.torch(step, names)
            self.steps.append({"id": number, "direction": direction, **box})
            for node in step.buffers:
                maker = made.get(node)
                if maker is None and node.op == "load":
                    maker = self.makers.get(node.attrs.name)
                if maker is not None:
                    kept = self.steps[maker]["direction"] != direction
                    self.links.append({"from": maker, "to": number, "kept": kept, **self.value(node, names)})
            made |= dict.fromkeys(step.outputs, number)
        for name, node in plan.program.outputs:
            if direction == "forward" and name in self.loads:
                if node in made:
                    self.makers[name] = made[node]
                self.saved.append(self.value(node, names))
        why: dict[str, dict[str, None]] = {}
        for _, above, reader, reason in fuse.boundaries(plan):
            why.setdefault(reader, {})[f"apart from {above}: {reason}"] = None
        for box in self.steps[first:]:
            box["why"] = [box["why"]] if box["kind"] == "torch" else list(why.get(box["name"], ()))
        self.held(direction, plan, names, first)

    def held(self, direction: str, plan: Plan, names: Mapping[Node, str], first: int) -> None:
        """The tensors that a plan makes, and from which step to which they live."""
        found = forecast(plan, {}, 1, 1, 1, 0)
        kept = {node for _, node in plan.program.outputs}
        for t in found.tensors:
            if t.bytes:
                ends = {"first": first + t.first, "last": first + min(t.last, found.steps - 1)}
                result = t.node in kept
                self.memory[direction].append({**self.value(t.node, names), **ends, "result": result})

    # -- boxes ---------------------------------------------------------------------------------

    def kernel(self, kernel: Kernel, names: Mapping[Node, str]) -> dict[str, Any]:
        walks = [
            {"walk": number + 1, "what": what, **self.value(node, names)}
            for number, phase in enumerate(kernel.phases)
            for what, nodes in phase_parts(phase)
            for node in nodes
        ]
        return {
            "kind": "kernel",
            "name": kernel.name,
            "over": over(kernel),
            "walks": walks,
            "stores": [self.value(node, names) for node in kernel.stores],
            "totals": [self.value(node, names) for node in kernel.totals],
            "lines": lines_of_nodes([*kernel.outputs, *(n for p in kernel.phases for n in p.roots)], self.lines),
            "reads": [self.value(node, names) for node in kernel.buffers],
            "bytes": self.terms(lambda sizes: cost.bytes_moved(kernel, sizes)),
            "flops": self.terms(lambda sizes: cost.operations(kernel, sizes)),
        }

    def torch(self, step: TorchStep, names: Mapping[Node, str]) -> dict[str, Any]:
        return {
            "kind": "torch",
            "name": step.node.op,
            "over": "",
            "walks": [],
            "stores": [self.value(step.node, names)],
            "totals": [],
            "lines": lines_of_nodes(step.computed, self.lines),
            "reads": [self.value(node, names) for node in step.buffers],
            "why": fuse.why_torch(step.node),
            "bytes": self.terms(lambda sizes: _moved(step, sizes)),
            "flops": self.terms(lambda sizes: _work(step, sizes)),
        }

    def value(self, node: Node, names: Mapping[Node, str]) -> dict[str, Any]:
        text = names.get(node, "")
        whole = expression(node, names) if node.op != "load" else ""
        return {
            "name": text or short(whole, 1, 40),
            "text": short(whole, 1, MOST_TEXT),
            "type": str(node.type),
            "line": self.lines.get(node),
            "bytes": self.terms(lambda sizes: _size(node, sizes)),
        }

    def terms(self, count: Callable[[SizeFormulas], Any]) -> Terms:
        return Polynomial.of(count(self.sizes)).as_json()


def _size(node: Node, sizes: SizeFormulas) -> Polynomial:
    return sizes.rows(node.domain) * sizes.numel(node.dims) * WIDTHS[node.kind]


def _work(step: TorchStep, sizes: SizeFormulas) -> Polynomial:
    return sum((of(n).work(n, sizes) for n in step.computed), Polynomial.of(0))


def _moved(step: TorchStep, sizes: SizeFormulas) -> Polynomial | int:
    """Each tensor once; a view moves none."""
    if not _work(step, sizes).terms:
        return 0
    return sum((_size(n, sizes) for n in (*step.buffers, *step.outputs)), Polynomial.of(0))
