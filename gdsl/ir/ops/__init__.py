"""The ops: a file for each family, a definition for each op. Nothing else knows what an op means; code generators know
how it is written in their language."""

from __future__ import annotations

from gdsl.ir.ops import edges, elementwise, folds, functions, indexing, leaves, libraries, products, splines, views
from gdsl.ir.ops.elementwise import ELEMENTWISE, ElementwiseOp
from gdsl.ir.ops.functions import rounds_each, subtracts_products, torch_function
from gdsl.ir.ops.op import OPS, Op, end_of, of

__all__ = [
    "ELEMENTWISE",
    "OPS",
    "ElementwiseOp",
    "Op",
    "end_of",
    "of",
    "rounds_each",
    "subtracts_products",
    "torch_function",
]
