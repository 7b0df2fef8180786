"""The ops: a file for each family, a definition for each op. Nothing else knows what an op means; code generators know
how it is written in their language."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from gdsl.ir.ops.elementwise import ELEMENTWISE, ElementwiseOp
from gdsl.ir.ops.functions import rounds_each, subtracts_products, torch_function
from gdsl.ir.ops.op import OPS, Op, end_of, of

# A file in this folder is all that an op needs to be known.
for _file in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_file.name}")

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
