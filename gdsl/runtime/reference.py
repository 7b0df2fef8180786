"""The torch backend: each op's reference form, one after the other. Slow, readable, and the reference for all others.

A value is ``[rows of the domain, *dims]``, or ``[*dims]`` for a global one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from gdsl.errors import InputError
from gdsl.ir.node import Node, walk
from gdsl.ir.ops import of
from gdsl.ir.ops.op import full
from gdsl.runtime.frame import Frame


def evaluate(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    """The value of one node, its operands given."""
    form = of(node).value
    if form is None:
        raise InputError(f"no value was given for `{node.attrs.name if node.op == 'load' else node.op}`")
    return form(node, args, frame)


def run(outputs: Sequence[Node], tensors: Mapping[Node, Tensor], frame: Frame) -> list[Tensor]:
    """Evaluate outputs from the tensors of their loads. Differentiable by torch's own autograd, too."""
    values: dict[Node, Tensor] = dict(tensors)
    for node in walk(outputs):
        if node not in values:
            values[node] = evaluate(node, [values[i] for i in node.inputs], frame)
    return [full(values[o], o.type, frame) for o in outputs]
