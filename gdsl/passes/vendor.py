"""Plain weighted sums as products of a sparse matrix, left to MKL or cuSPARSE where that is chosen: the last rewrite of
a plan.

Nothing else can be in a vendor's product, so a bias or a norm that follows it is a pass of its own.
"""

from __future__ import annotations

from gdsl.ir import build
from gdsl.ir.node import Node
from gdsl.ir.ops.edges import is_sum
from gdsl.ir.types import Domain, Kind
from gdsl.passes.options import Options
from gdsl.passes.rewrite import Rule


def sparse_product(node: Node) -> Node | None:
    """sum(w * x[j]) --> csr(w) @ x: each row is the sum of the rows at the other end, times a number an edge"""
    if not is_sum(node):
        return None
    message = node.inputs[0]
    if message.domain is not Domain.EDGE:
        return None
    factors = message.inputs if message.op == "mul" else (message,)
    rows = [f for f in factors if f.op == "gather" and f.attrs.end != node.attrs.end and f.dims == node.dims]
    weights = [f for f in factors if f is not rows[0]] if rows else []
    if len(rows) != 1 or any(w.dims or w.domain is not Domain.EDGE or w.kind is not Kind.FLOAT for w in weights):
        return None
    x = rows[0].inputs[0]
    return build.sparse_product(x, node.attrs.end, node.domain, weights[0] if weights else None)


def rules(options: Options) -> list[Rule]:
    """The rules of a plan: none but by choice, since own kernels were faster in every measured run on processors; and
    none on a complete graph, which is no matrix in memory."""
    return [sparse_product] if options.choice("sums") == "vendor" and not options.shape.complete else []
