"""The built-in functions that only need values, as tables: name, parameters, IR form, number form.

Functions that take names or dims as well (``cat``, ``degree``, ``dropout`` ...) are in ``forms.py`` and ``shapes.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gdsl.ir import build, library, matrices, selection
from gdsl.ir.library import op
from gdsl.ir.node import Node
from gdsl.ir.ops import roll
from gdsl.ir.ops.tables import sum_over
from gdsl.ir.types import Dim, Domain

REQUIRED = object()


@dataclass(frozen=True)
class Function:
    """``parameters`` are names and defaults. ``number`` computes it when every argument is a number."""

    parameters: tuple[tuple[str, Any], ...]
    node: Callable[..., Node]
    number: Callable[..., float | bool] | None = None
    variadic: bool = False


def _unary(name: str, number: Callable[[float], float] | None = None) -> Function:
    return Function((("x", REQUIRED),), lambda x: op(name, x), number)


def _binary(name: str, number: Callable[[float, float], float] | None = None) -> Function:
    return Function((("a", REQUIRED), ("b", REQUIRED)), lambda a, b: op(name, a, b), number)


def _composite(node: Callable[..., Node], *defaults: tuple[str, Any]) -> Function:
    return Function((("x", REQUIRED), *defaults), node)


def _extreme(name: str, number: Callable[..., float]) -> Function:
    def node(*args: Node | float) -> Node:
        result = op(name, args[0], args[1])
        for more in args[2:]:
            result = op(name, result, more)
        return result

    return Function((("a", REQUIRED), ("b", REQUIRED)), node, number, variadic=True)


def _sign(x: float) -> float:
    return float((x > 0) - (x < 0))


FUNCTIONS: dict[str, Function] = {
    "exp": _unary("exp", math.exp),
    "expm1": _unary("expm1", math.expm1),
    "log": _unary("log", math.log),
    "log1p": _unary("log1p", math.log1p),
    "sqrt": _unary("sqrt", math.sqrt),
    "rsqrt": _unary("rsqrt", lambda x: 1.0 / math.sqrt(x)),
    "abs": _unary("abs", abs),
    "sign": _unary("sign", _sign),
    "floor": _unary("floor", math.floor),
    "sin": _unary("sin", math.sin),
    "cos": _unary("cos", math.cos),
    "acos": _unary("acos", math.acos),
    "tanh": _unary("tanh", math.tanh),
    "sigmoid": _unary("sigmoid", lambda x: 1.0 / (1.0 + math.exp(-x))),
    "erf": _unary("erf", math.erf),
    "relu": _unary("relu", lambda x: max(x, 0.0)),
    "pow": _binary("pow", lambda a, b: a**b),
    "mod": _binary("mod", lambda a, b: a % b),
    "atan2": _binary("atan2", math.atan2),
    "max": _extreme("maximum", max),
    "min": _extreme("minimum", min),
    "leaky_relu": Function((("x", REQUIRED), ("slope", 0.01)), lambda x, slope: op("leaky_relu", x, slope)),
    "elu": _composite(library.elu, ("alpha", 1.0)),
    "selu": _composite(library.selu),
    "gelu": _composite(library.gelu),
    "silu": _composite(library.silu),
    "softplus": _composite(library.softplus),
    "log_sigmoid": _composite(library.log_sigmoid),
    "clamp": Function((("x", REQUIRED), ("low", REQUIRED), ("high", REQUIRED)), library.clamp),
    "where": Function(
        (("c", REQUIRED), ("a", REQUIRED), ("b", REQUIRED)),
        lambda c, a, b: op("where", c, a, b),
        lambda c, a, b: a if c else b,
    ),
    "roll": Function((("x", REQUIRED), ("shift", REQUIRED)), roll.roll_last),
    "dot": Function((("a", REQUIRED), ("b", REQUIRED)), library.dot),
    "cdist": Function((("a", REQUIRED), ("b", REQUIRED)), library.cdist),
    "cross": Function((("a", REQUIRED), ("b", REQUIRED)), library.cross),
    "det": Function((("a", REQUIRED),), matrices.det),
    "inverse": Function((("a", REQUIRED),), matrices.inverse),
    "solve": Function((("a", REQUIRED), ("b", REQUIRED)), matrices.solve),
}

# Operators between values: IR op, and what it does to numbers. `@` and `**` are in expressions.py.
OPERATORS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "+": ("add", lambda a, b: a + b),
    "-": ("sub", lambda a, b: a - b),
    "*": ("mul", lambda a, b: a * b),
    "/": ("div", lambda a, b: a / b),
    "**": ("pow", lambda a, b: a**b),
    "==": ("eq", lambda a, b: a == b),
    "!=": ("ne", lambda a, b: a != b),
    "<": ("lt", lambda a, b: a < b),
    "<=": ("le", lambda a, b: a <= b),
    ">": ("gt", lambda a, b: a > b),
    ">=": ("ge", lambda a, b: a >= b),
    "and": ("and", lambda a, b: bool(a) and bool(b)),
    "or": ("or", lambda a, b: bool(a) or bool(b)),
}

# Products, and what is made of one: dims that only one of two operands has stand side by side in the result.
PRODUCTS = frozenset({"*", "/", "**", "pow", "dot", "cdist", "cross", "solve"})

# name[d](x): over feature dims.
DIM_REDUCERS: dict[str, Callable[..., Node]] = {
    "sum": sum_over,
    "mean": library.dim_mean,
    "max": lambda x, dims: library.dim_extreme(x, "max", dims),
    "min": lambda x, dims: library.dim_extreme(x, "min", dims),
    "mul": library.dim_product,
    "norm": library.dim_norm,
    "var": library.dim_var,
    "std": library.dim_std,
    "softmax": lambda x, dims: library.dim_softmax(x, dims, masked=True),
    "log_softmax": library.dim_log_softmax,
    "logsumexp": library.dim_logsumexp,
    "sparsemax": selection.dim_sparsemax,
    "topk": selection.dim_topk,
}

SegmentReducer = Callable[[Node, str, Domain, Node | None, Dim | None], Node]


def _plain(name: str) -> SegmentReducer:
    return lambda e, end, rows, by, dim: build.segment(e, end, name, rows, by, dim)


# name(m): over the edges of each node (or, in a pool, over the nodes of each graph).
SEGMENT_REDUCERS: dict[str, SegmentReducer] = {
    "sum": library.segment_sum,
    "mean": library.segment_mean,
    "max": _plain("max"),
    "min": _plain("min"),
    "mul": _plain("mul"),
    "var": library.segment_var,
    "std": library.segment_std,
    "logsumexp": library.segment_logsumexp,
}

# Those that have no form by relation.
ORDERED_REDUCERS: dict[str, Callable[..., Node]] = {
    "median": library.segment_median,
    "quantile": library.segment_quantile,
    "stack": library.segment_stack,
}


# The names of the functions that read the text of their arguments: those of forms.SPECIAL, which knows this file.
FORMS = frozenset(
    """
    argmax bspline bspline_index cat degree dropout harmonics int log_softmax merge norm one_hot outer present
    rename reverse softmax sparsemax split topk transpose
    """.split()
)
