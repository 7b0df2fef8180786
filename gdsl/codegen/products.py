"""Which values on edges are matrix products, computed for a block of edges at a time by ``matmul.h``.

A row of the left matrix belongs to an edge. Either the right one is global, and the product is a row an edge again; or
it has a row an edge too, and the product, summed over the edges, is a total or an accumulator.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gdsl.ir.node import Node
from gdsl.ir.types import Domain, Kind
from gdsl.passes.layout import LEAST_WIDTH, is_sparse

# Smaller results are left to plain loops.
LEAST_WORK = 64

# Edges in a block: enough to read the right matrix once for many, few enough that the block stays in the first cache.
MOST_EDGES = 32
LEAST_EDGES = 4
BLOCK_NUMBERS = 4096


# Of matmul.h, by whether the product is summed over the edges and whether the left matrix is nearly all zeros.
_FUNCTIONS = {
    (False, False): "matmul",
    (False, True): "sparse_matmul",
    (True, False): "add_outer",
    (True, True): "sparse_add_outer",
}
FUNCTIONS = tuple(_FUNCTIONS.values())


@dataclass(frozen=True)
class Product:
    """A matrix product over a block of edges: ``left`` [edges, depth] with ``right``.

    summed: over the edges: transpose(left) @ right is added to the node, [depth, width]; else left @ right is the node
    """

    node: Node
    left: Node
    right: Node
    summed: bool

    @property
    def function(self) -> str:
        """Its name in matmul.h."""
        return _FUNCTIONS[(self.summed, is_sparse(self.left))]

    @property
    def edge_operands(self) -> tuple[Node, ...]:
        return (self.left, self.right) if self.summed else (self.left,)

    @property
    def sizes(self) -> tuple[int, int]:
        """Depth and width."""
        width = self.right.type.numel if self.summed else self.node.type.numel
        return self.left.type.numel, width


def product_of(node: Node) -> Product | None:
    """The node as a product of matrices, if it is one and large enough to gain."""
    found = _rows_by_matrix(node) if node.domain is Domain.EDGE else _rows_by_rows(node)
    if found is None:
        return None
    depth, width = found.sizes
    return found if depth > 1 and width >= LEAST_WIDTH and depth * width >= LEAST_WORK else None


def _on_edges(node: Node) -> bool:
    return node.domain is Domain.EDGE and node.kind is Kind.FLOAT


def _rows_by_matrix(node: Node) -> Product | None:
    if node.op != "contract" or len(node.inputs) != 2:
        return None
    for left, right in (node.inputs, node.inputs[::-1]):
        names = (*left.type.names, *node.type.names)
        if _on_edges(left) and right.domain is Domain.GLOBAL and right.type.names == names:
            return Product(node, left, right, summed=False)
    return None


def _rows_by_rows(node: Node) -> Product | None:
    if node.op == "contract":
        factors = node.inputs if node.attrs.total and not node.attrs.reduce else ()
    else:
        plain = node.op == "segment" and node.attrs.reducer == "sum" and len(node.inputs) == 1
        factors = node.inputs[0].inputs if plain and node.inputs[0].op in ("mul", "contract") else ()
        if factors and node.inputs[0].op == "contract" and node.inputs[0].attrs.reduce:
            return None
    if len(factors) != 2:
        return None
    for left, right in (factors, factors[::-1]):
        if _on_edges(left) and _on_edges(right) and (*left.type.names, *right.type.names) == node.type.names:
            return Product(node, left, right, summed=True)
    return None


def block_edges(products: Iterable[Product]) -> int:
    """How many edges a block has."""
    widest = max(max(p.sizes) for p in products)
    return max(LEAST_EDGES, min(MOST_EDGES, BLOCK_NUMBERS // widest))
