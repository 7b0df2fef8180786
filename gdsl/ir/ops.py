"""The op table: the only place that knows an elementwise function.

One entry holds everything: arity, the kind of the result, the derivative by each argument, and the form in
sympy, C++, Triton and torch. Adding a function to the language is adding one entry. ``tests/ir/test_ops.py``
runs every entry: torch form against sympy form, derivative against sympy's derivative and gradcheck.

Templates name the arguments ``{0}``, ``{1}``, ``{2}``. A derivative is written with the IR's own operators: a
function of the arguments and the result ``y`` that gives the partial derivative as a node. ``None`` means zero.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gdsl.ir.node import Node
from gdsl.ir.types import Kind

Derivative = Callable[..., Node]


@dataclass(frozen=True)
class ElementwiseOp:
    """A function applied element by element.

    derivative: one partial derivative an argument, each a function ``(*args, y)``; None is zero.
    torch:      a template over tensors, evaluated with ``torch`` in scope.
    cpp:        a template over scalars of the compute type; ``gdsl::`` functions are in ``codegen/prelude.h``.
    triton:     a template over blocks, with ``tl`` and ``libdevice`` in scope.
    sympy:      a template over sympy expressions.
    kind:       of the result: "float", "bool", or "same" as the arguments.
    flops:      charged per element by the cost model.
    heavy:      worth storing rather than computing twice.
    singular:   where its value or a derivative may be infinite or NaN though all arguments are finite: "" nowhere,
                "at zero" only where its last argument is 0 or has the wrong sign, "somewhere" at others too.
    sample:     an interval on which the op is smooth, for tests.
    """

    name: str
    arity: int
    torch: str
    cpp: str
    triton: str
    sympy: str
    derivative: tuple[Derivative | None, ...]
    kind: str = "float"
    flops: int = 1
    heavy: bool = False
    singular: str = ""
    sample: tuple[float, float] = (-2.0, 2.0)


def _where(c: Node, a: Node | float, b: Node | float) -> Node:
    from gdsl.ir.build import elementwise

    return elementwise("where", c, a, b)


def _of_zero(b: Node) -> Node:
    """The derivative of 0 ** b by b. Where b is a number for all rows so is this, which a loop only reads."""
    return _where(b >= 0.0, 0.0, _where(b < 0.0, float("-inf"), b))


def _op(name: str, *args: Any) -> Node:
    from gdsl.ir.build import elementwise

    return elementwise(name, *args)


def _nonzero(x: Node) -> Node:
    """x, and 1 where it is 0: a divisor for a branch that is not taken there."""
    return _where(_op("eq", x, 0.0), 1.0, x)


def _quotient(a: Node, b: Node, y: Node) -> Node:
    """floor(a / b), given y = a mod b: the whole number nearest to (a - y) / b, whereas a / b may round up to one.

    An infinite divisor of another sign takes all of a: the quotient is -1.
    """
    whole = _op("floor", (a - y) / _nonzero(b) + 0.5)
    whole = _where(_op("eq", _op("abs", y), math.inf), -1.0, whole)
    return _where(_op("eq", b, 0.0), a / b, whole)


def _step(c: Node) -> Node:
    """1 where c holds, else 0."""
    return _where(c, 1.0, 0.0)


_NONE: tuple[None, ...] = (None,)

_TABLE = [
    # arithmetic
    ElementwiseOp("add", 2, "{0} + {1}", "{0} + {1}", "{0} + {1}", "{0} + {1}",
                  (lambda a, b, y: _op("one"), lambda a, b, y: _op("one")), kind="same"),
    ElementwiseOp("sub", 2, "{0} - {1}", "{0} - {1}", "{0} - {1}", "{0} - {1}",
                  (lambda a, b, y: _op("one"), lambda a, b, y: -_op("one")), kind="same"),
    ElementwiseOp("mul", 2, "{0} * {1}", "{0} * {1}", "{0} * {1}", "{0} * {1}",
                  (lambda a, b, y: b, lambda a, b, y: a), kind="same"),
    ElementwiseOp("div", 2, "{0} / {1}", "{0} / {1}", "{0} / {1}", "{0} / {1}",
                  (lambda a, b, y: 1.0 / b, lambda a, b, y: -y / b), flops=4, singular="at zero", sample=(0.5, 2.0)),
    ElementwiseOp("neg", 1, "-{0}", "-{0}", "-{0}", "-{0}", (lambda x, y: -_op("one"),), kind="same"),
    # powers, exponentials, logarithms
    ElementwiseOp("pow", 2, "torch.pow({0}, {1})", "gdsl::pow({0}, {1})", "libdevice.pow({0}, {1})", "{0}**{1}",
                  (lambda a, b, y: _where(_op("eq", b, 0.0), 0.0, b * _op("pow", a, b - 1.0)),
                   lambda a, b, y: _where(_op("eq", a, 0.0), _of_zero(b), y * _op("log", a))),
                  flops=20, heavy=True, singular="somewhere", sample=(0.5, 2.0)),
    ElementwiseOp("exp", 1, "torch.exp({0})", "gdsl::exp({0})", "tl.exp({0})", "exp({0})",
                  (lambda x, y: y,), flops=10, heavy=True, singular="somewhere"),
    ElementwiseOp("expm1", 1, "torch.expm1({0})", "gdsl::expm1({0})", "libdevice.expm1({0})", "exp({0}) - 1",
                  (lambda x, y: _op("exp", x),), flops=12, heavy=True, singular="somewhere"),
    ElementwiseOp("log", 1, "torch.log({0})", "gdsl::log({0})", "tl.log({0})", "log({0})",
                  (lambda x, y: 1.0 / x,), flops=10, heavy=True, singular="at zero", sample=(0.2, 3.0)),
    ElementwiseOp("log1p", 1, "torch.log1p({0})", "gdsl::log1p({0})", "libdevice.log1p({0})", "log(1 + {0})",
                  (lambda x, y: 1.0 / (1.0 + x),), flops=12, heavy=True, singular="somewhere", sample=(-0.5, 2.0)),
    ElementwiseOp("sqrt", 1, "torch.sqrt({0})", "gdsl::sqrt({0})", "tl.sqrt({0})", "sqrt({0})",
                  (lambda x, y: 0.5 / y,), flops=4, singular="at zero", sample=(0.2, 3.0)),
    ElementwiseOp("rsqrt", 1, "torch.rsqrt({0})", "gdsl::rsqrt({0})", "libdevice.rsqrt({0})", "1/sqrt({0})",
                  (lambda x, y: -0.5 * y / x,), flops=6, singular="at zero", sample=(0.2, 3.0)),
    # The square root whose derivative at 0 is 0: what a Euclidean norm needs (torch.norm's subgradient).
    ElementwiseOp("norm_sqrt", 1, "torch.sqrt({0})", "gdsl::sqrt({0})", "tl.sqrt({0})", "sqrt({0})",
                  (lambda x, y: _where(_op("eq", x, 0.0), 0.0, 0.5 / _nonzero(y)),), flops=4, singular="at zero",
                  sample=(0.2, 3.0)),
    # signs and rounding
    ElementwiseOp("abs", 1, "torch.abs({0})", "gdsl::abs({0})", "tl.abs({0})", "Abs({0})",
                  (lambda x, y: _op("sign", x),), kind="same", sample=(0.2, 2.0)),
    ElementwiseOp("sign", 1, "torch.sign({0})", "gdsl::sign({0})",
                  "(({0} > 0).to(gdsl_float) - ({0} < 0).to(gdsl_float))", "sign({0})", _NONE, sample=(0.2, 2.0)),
    ElementwiseOp("floor", 1, "torch.floor({0})", "gdsl::floor({0})", "tl.floor({0})", "floor({0})", _NONE,
                  sample=(0.2, 0.8)),
    # The sign follows the divisor, as in Python and torch.remainder; the remainder is exact, however large a / b is.
    ElementwiseOp("mod", 2, "gdsl_mod({0}, {1})", "gdsl::mod({0}, {1})", "gdsl_mod({0}, {1})", "Mod({0}, {1})",
                  (lambda a, b, y: _op("one"), lambda a, b, y: -_quotient(a, b, y)), flops=6, singular="at zero",
                  sample=(1.1, 1.9)),
    # A tie shares the gradient, as in torch.maximum.
    ElementwiseOp("maximum", 2, "torch.maximum({0}, {1})", "gdsl::maximum({0}, {1})",
                  "tl.maximum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)", "Max({0}, {1})",
                  (lambda a, b, y: _where(a > b, 1.0, _where(_op("eq", a, b), 0.5, 0.0)),
                   lambda a, b, y: _where(b > a, 1.0, _where(_op("eq", a, b), 0.5, 0.0)))),
    ElementwiseOp("minimum", 2, "torch.minimum({0}, {1})", "gdsl::minimum({0}, {1})",
                  "tl.minimum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)", "Min({0}, {1})",
                  (lambda a, b, y: _where(a < b, 1.0, _where(_op("eq", a, b), 0.5, 0.0)),
                   lambda a, b, y: _where(b < a, 1.0, _where(_op("eq", a, b), 0.5, 0.0)))),
    # trigonometry
    ElementwiseOp("sin", 1, "torch.sin({0})", "gdsl::sin({0})", "tl.sin({0})", "sin({0})",
                  (lambda x, y: _op("cos", x),), flops=12, heavy=True),
    ElementwiseOp("cos", 1, "torch.cos({0})", "gdsl::cos({0})", "tl.cos({0})", "cos({0})",
                  (lambda x, y: -_op("sin", x),), flops=12, heavy=True),
    ElementwiseOp("acos", 1, "torch.acos({0})", "gdsl::acos({0})", "libdevice.acos({0})", "acos({0})",
                  (lambda x, y: -_op("rsqrt", (1.0 - x) * (1.0 + x)),), flops=16, heavy=True, singular="somewhere",
                  sample=(-0.8, 0.8)),
    ElementwiseOp("atan2", 2, "torch.atan2({0}, {1})", "gdsl::atan2({0}, {1})", "libdevice.atan2({0}, {1})",
                  "atan2({0}, {1})",
                  (lambda a, b, y: _where(_op("eq", a * a + b * b, 0.0), 0.0, b / _nonzero(a * a + b * b)),
                   lambda a, b, y: _where(_op("eq", a * a + b * b, 0.0), 0.0, -a / _nonzero(a * a + b * b))),
                  flops=20, heavy=True, sample=(0.3, 2.0)),
    # activations
    ElementwiseOp("tanh", 1, "torch.tanh({0})", "gdsl::tanh({0})", "libdevice.tanh({0})", "tanh({0})",
                  (lambda x, y: 1.0 - y * y,), flops=14, heavy=True),
    ElementwiseOp("sigmoid", 1, "torch.sigmoid({0})", "gdsl::sigmoid({0})", "tl.sigmoid({0})", "1/(1 + exp(-({0})))",
                  (lambda x, y: y * (1.0 - y),), flops=12, heavy=True),
    # log(1 + e^x). Of torch's own, softplus is x itself above 20.
    ElementwiseOp("softplus", 1, "torch.logaddexp({0}, torch.zeros_like({0}))", "gdsl::softplus({0})",
                  "(tl.maximum({0}, 0.0) + libdevice.log1p(tl.exp(-tl.abs({0}))))", "log(1 + exp({0}))",
                  (lambda x, y: _op("sigmoid", x),), flops=24, heavy=True),
    ElementwiseOp("erf", 1, "torch.erf({0})", "gdsl::erf({0})", "tl.erf({0})", "erf({0})",
                  (lambda x, y: (2.0 / math.sqrt(math.pi)) * _op("exp", -(x * x)),), flops=16, heavy=True),
    ElementwiseOp("relu", 1, "torch.relu({0})", "({0} < 0 ? 0 : {0})", "tl.where({0} < 0, 0.0, {0})", "Max({0}, 0)",
                  (lambda x, y: _where(y <= 0.0, 0.0, 1.0),), sample=(0.2, 2.0)),
    ElementwiseOp("leaky_relu", 2, "torch.where({0} > 0, {0}, {0} * {1})", "({0} > 0 ? {0} : {0} * {1})",
                  "tl.where({0} > 0, {0}, {0} * {1})", "Piecewise(({0}, {0} > 0), ({0} * {1}, True))",
                  (lambda x, s, y: _where(x > 0.0, 1.0, s), lambda x, s, y: _where(x > 0.0, 0.0, x)), flops=2,
                  sample=(0.2, 2.0)),
    # comparisons and logic
    ElementwiseOp("lt", 2, "{0} < {1}", "{0} < {1}", "{0} < {1}", "({0}) < ({1})", (None, None), kind="bool"),
    ElementwiseOp("le", 2, "{0} <= {1}", "{0} <= {1}", "{0} <= {1}", "({0}) <= ({1})", (None, None), kind="bool"),
    ElementwiseOp("gt", 2, "{0} > {1}", "{0} > {1}", "{0} > {1}", "({0}) > ({1})", (None, None), kind="bool"),
    ElementwiseOp("ge", 2, "{0} >= {1}", "{0} >= {1}", "{0} >= {1}", "({0}) >= ({1})", (None, None), kind="bool"),
    ElementwiseOp("eq", 2, "{0} == {1}", "{0} == {1}", "{0} == {1}", "Eq({0}, {1})", (None, None), kind="bool"),
    ElementwiseOp("ne", 2, "{0} != {1}", "{0} != {1}", "{0} != {1}", "Ne({0}, {1})", (None, None), kind="bool"),
    ElementwiseOp("and", 2, "{0} & {1}", "{0} & {1}", "{0} & {1}", "And({0}, {1})", (None, None), kind="bool"),
    ElementwiseOp("or", 2, "{0} | {1}", "{0} | {1}", "{0} | {1}", "Or({0}, {1})", (None, None), kind="bool"),
    ElementwiseOp("not", 1, "~{0}", "!{0}", "~{0}", "Not({0})", _NONE, kind="bool"),
    ElementwiseOp("where", 3, "torch.where({0}, {1}, {2})", "({0} ? {1} : {2})", "tl.where({0}, {1}, {2})",
                  "Piecewise(({1}, {0}), ({2}, True))",
                  (None, lambda c, a, b, y: _step(c), lambda c, a, b, y: _where(c, 0.0, 1.0)), kind="same"),
    # kinds of number
    ElementwiseOp("to_float", 1, "gdsl_float({0})", "gdsl_float({0})", "{0}.to(gdsl_float)", "{0}", _NONE),
    # An integer below the node's bound; the cast clamps, so that an index made from it is always in range.
    ElementwiseOp("to_int", 1, "torch.nan_to_num({0}).clamp(0, {bound} - 1).long()", "gdsl::to_int({0}, {bound:d})",
                  "tl.where({0} > 0, tl.minimum({0}, {bound:d} - 1), 0).to(tl.int32)", "floor({0})", _NONE, kind="int",
                  sample=(0.0, 2.0)),
]  # fmt: skip

ELEMENTWISE: dict[str, ElementwiseOp] = {op.name: op for op in _TABLE}


@functools.cache
def torch_function(op: str, bound: int | None, dtype: Any) -> Callable[..., Any]:
    """The torch form of an op as a function of tensors.

    ``bound`` is that of the node, for ``to_int``; ``dtype`` is the compute dtype, for ``to_float``.
    """
    return functools.partial(_torch_form(op), bound, lambda x: x.to(dtype))


@functools.cache
def _torch_form(op: str) -> Callable[..., Any]:
    """What is evaluated is the table's own text and nothing else: numbers of a program are arguments."""
    import torch  # late: the language and its checks work without torch

    entry = ELEMENTWISE[op]
    names = [f"x{k}" for k in range(entry.arity)]
    text = f"lambda bound, gdsl_float, {', '.join(names)}: {entry.torch.format(*names, bound='bound')}"
    form: Callable[..., Any] = eval(text, {"torch": torch, "gdsl_mod": _torch_mod})
    return form


def _torch_mod(a: Any, b: Any) -> Any:
    """torch.remainder of floats, which loses its way where a / b is large: by fmod in double, exact for float."""
    rest = a.double().fmod(b.double()).to(a.dtype)
    return rest.where((rest == 0) | ((rest < 0) == (b < 0)), rest + b)


def is_heavy(op: str) -> bool:
    """Whether a value of an op is worth storing rather than computing twice, by its own work alone."""
    return op == "random" or (op in ELEMENTWISE and ELEMENTWISE[op].heavy)


def singular(op: str) -> str:
    """Where an op or its derivative may be infinite or NaN though its arguments are finite: see ElementwiseOp."""
    return ELEMENTWISE[op].singular if op in ELEMENTWISE else ""


def subtracts_products(node: Node) -> bool:
    """Whether a value is a * b - c * d, which must be exactly 0 where the products are equal, as in a cross product.

    A compiler that makes one product and the difference one instruction rounds the other product only.
    """
    return node.op == "sub" and node.kind is Kind.FLOAT and all(i.op == "mul" for i in node.inputs)
