"""What a call gives is its own: no view, in memory where neither an input nor another result lies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from gdsl.ir.node import Node
from gdsl.runtime.items import HALF

# Ops whose result may lie where their operand does; a contraction of one operand may only turn its dims.
_ALIASES = frozenset({"reshape", "transpose", "slice", "spread", "stop_gradient"})


class Results:
    """The outputs of a plan, the first ``visible`` of which a user gets; ``made`` are in memory of their own.

    A view would refuse what torch's own results take: in-place ops. Where memory were shared, those on one tensor would
    change the other, and torch, which knows nothing of it, would not notice. A value that is saved for the backward may
    lie where a result does: the two have one version counter, by which torch notices.
    """

    def __init__(self, nodes: Sequence[Node], visible: int, made: Collection[Node]):
        roots = [_root(node, made) for node in nodes[:visible]]
        self._visible = range(visible)
        # Those that may lie where an input or another result does.
        self.doubtful = tuple(k for k, root in enumerate(roots) if root not in made or roots.count(root) > 1)
        # A graph holds on to what it makes, and a table's numbers are kept.
        self._held = frozenset(k for k, root in enumerate(roots) if root.op in ("graph_value", "table"))
        self._twice = tuple(k for k in range(visible, len(nodes)) if nodes[k] in nodes[:visible])

    def own(self, found: list[Tensor], inputs: Iterable[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """The outputs of a run, those copied that must be; what a user gets is of a dtype, also where that is half of
        what was computed with."""
        if dtype in HALF:
            for k in self._visible:
                found[k] = found[k].to(dtype) if found[k].is_floating_point() else found[k]
        if self.doubtful:
            taken = {_memory(t) for t in inputs}
            taken.update(_memory(found[k]) for k in self._visible if k not in self.doubtful)
            for k in self.doubtful:
                if k in self._held or _memory(found[k]) in taken:
                    found[k] = found[k].clone()
                taken.add(_memory(found[k]))
        for k in self._visible:
            if found[k]._is_view():
                found[k] = found[k].detach()
        for k in self._twice:
            found[k] = found[k].detach()
        return found


def last_uses(read: Sequence[Iterable[Node]], outputs: Collection[Node]) -> list[tuple[Node, ...]]:
    """After each of some steps, of the values that they read or make, those that no later one reads."""
    last: dict[Node, int] = {}
    for k, nodes in enumerate(read):
        last |= dict.fromkeys(nodes, k)
    found: list[list[Node]] = [[] for _ in read]
    for node, k in last.items():
        if node not in outputs:
            found[k].append(node)
    return [tuple(nodes) for nodes in found]


def _root(node: Node, made: Collection[Node]) -> Node:
    """The value in whose memory a node's value may lie."""
    while node not in made and (node.op in _ALIASES or (node.op == "contract" and len(node.inputs) == 1)):
        node = node.inputs[0]
    return node


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
