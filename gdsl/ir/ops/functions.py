"""The table of elementwise functions: the only place that knows one.

Adding a function to the language is adding one entry. ``tests/ir/test_ops.py`` runs every entry: torch form against
sympy form, derivative against sympy's derivative and gradcheck. The forms are described at
:class:`gdsl.ir.ops.elementwise.ElementwiseOp`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from gdsl.ir.attributes import Attrs, need, number
from gdsl.ir.node import Node, make
from gdsl.ir.ops.elementwise import ELEMENTWISE, Derivative, ElementwiseOp, choose, elementwise
from gdsl.ir.ops.leaves import const, is_const
from gdsl.ir.ops.op import Gradients, Run, Text, align, define, one_each
from gdsl.ir.ops.products import product, sum_to
from gdsl.ir.types import Kind, Type

if TYPE_CHECKING:
    from torch import Tensor

Partials = tuple[Derivative | None, ...]

# ------------------------------------------------------------------------- what all functions share


def _value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    aligned = [align(a, i.type, node.type) for a, i in zip(args, node.inputs, strict=True)]
    return torch_function(node.op, node.type.bound, run.dtype)(*aligned)


def _pull(node: Node, g: Node, ties: str) -> Gradients:
    parts: list[Node | None] = []
    for operand, rule in zip(node.inputs, ELEMENTWISE[node.op].derivative, strict=True):
        if rule is None or operand.kind is not Kind.FLOAT:
            parts.append(None)
        else:
            parts.append(_chain(g, rule(*node.inputs, node), operand.type))
    return parts


def _chain(g: Node, partial: Node, type: Type) -> Node:
    """g · partial, summed over what was broadcast.

    A partial that conditions choose among numbers chooses g itself, so that 0 · inf never makes a NaN.
    """
    if any(is_const(n, 0.0) for n in _choices(partial)):
        return sum_to(_chosen(g, partial), type)
    if is_const(partial, 1.0) and not partial.dims:
        return sum_to(g, type)
    if is_const(partial, -1.0) or (partial.op == "neg" and is_const(partial.inputs[0], 1.0)):
        return sum_to(-g, type)
    return product([g, partial], type)


def _choices(partial: Node) -> list[Node]:
    """The numbers that conditions choose among; none where a choice is no number."""
    if partial.op != "where":
        return []
    found: list[Node] = []
    for choice in partial.inputs[1:]:
        numbers = [choice] if choice.op == "const" else _choices(choice)
        if not numbers:
            return []
        found += numbers
    return found


def _chosen(g: Node, partial: Node) -> Node:
    """g · partial, with g multiplied before the choice."""
    if partial.op == "where":
        condition, yes, no = partial.inputs
        return choose(condition, _chosen(g, yes), _chosen(g, no))
    return partial if is_const(partial, 0.0) else g if is_const(partial, 1.0) else g * partial


def _function(
    name: str, arity: int, torch: str, cpp: str, triton: str, sympy: str, derivative: Partials, **properties: Any
) -> None:
    """Define a function of the table; ``properties`` are fields of ElementwiseOp and traits of Op."""
    shared: dict[str, Any] = {"rule": _rule, "value": _value, "pull": _pull, "work": one_each}
    traits = {"rowwise": True, "pointwise": True, "maps": True, "computes": True}
    entry = ElementwiseOp(
        name=name, operands=(arity, arity), torch=torch, cpp=cpp, triton=triton, sympy=sympy, derivative=derivative,
        **{**shared, **traits, **properties},
    )  # fmt: skip
    ELEMENTWISE[name] = entry
    define(entry)


def _rule(node: Node) -> Node:
    return elementwise(node.op, *node.inputs)


def _operator(
    name: str, sign: str, level: int, derivative: Partials = (None, None), sympy: str = "", shown: str = "", **more: Any
) -> None:
    """Define a function that is an operator between its operands; of equals, the left one needs no parentheses.

    shown: the sign in printed forms, where it is another one
    """
    form = f"{{0}} {sign} {{1}}"

    def text(node: Node, args: list[str]) -> Text:
        return f"{args[0]} {shown or sign} {args[1]}", level

    more |= {"text": text, "levels": lambda node: (level, level + 1)}
    _function(name, 2, form, form, form, sympy or form, derivative, **more)


# ------------------------------------------------------------------------------------- derivatives


def _of_zero(b: Node) -> Node:
    """The derivative of 0 ** b by b. Where b is a number for all rows so is this, which a loop only reads."""
    return choose(b >= 0.0, 0.0, choose(b < 0.0, float("-inf"), b))


def _nonzero(x: Node) -> Node:
    """x, and 1 where it is 0: a divisor for a branch that is not taken there."""
    return choose(elementwise("eq", x, 0.0), 1.0, x)


def _quotient(a: Node, b: Node, y: Node) -> Node:
    """floor(a / b), given y = a mod b: the whole number nearest to (a - y) / b, whereas a / b may round up to one.

    An infinite divisor of another sign takes all of a: the quotient is -1.
    """
    whole = elementwise("floor", (a - y) / _nonzero(b) + 0.5)
    whole = choose(elementwise("eq", elementwise("abs", y), math.inf), -1.0, whole)
    return choose(elementwise("eq", b, 0.0), a / b, whole)


def _winner(better: Node, a: Node, b: Node) -> Node:
    """1 where an operand is the better one, and half where both are alike: a tie shares the gradient."""
    return choose(better, 1.0, choose(elementwise("eq", a, b), 0.5, 0.0))


def _step(c: Node) -> Node:
    """1 where c holds, else 0."""
    return choose(c, 1.0, 0.0)


# --------------------------------------------------------------------------- kinds of number


class ToInt(Attrs):
    # Of the integers below it float32 has every one, so that what is clamped to it stays below.
    bound: Annotated[int, number(1, 2**24)]


def to_int(x: Node, bound: int) -> Node:
    """The number as an index in [0, bound): rounded down and clamped."""
    return make("to_int", (x,), Type(x.domain, x.dims, Kind.INT, bound), ToInt(bound))


def _to_int_rule(node: Node) -> Node:
    need(node.inputs[0].kind is Kind.FLOAT, f"it rounds a float, not {node.inputs[0].type}")
    return to_int(node.inputs[0], node.attrs.bound)


def _to_float_rule(node: Node) -> Node:
    (x,) = node.inputs
    return make("to_float", (x,), Type(x.domain, x.dims))


# ------------------------------------------------------------------------------------- the table

_NONE: tuple[None, ...] = (None,)

# fmt: off
# arithmetic
_operator("add", "+", 4, (lambda a, b, y: const(1.0), lambda a, b, y: const(1.0)), kind="same", linear=True,
          commutes=True, word="plus")
_operator("sub", "-", 4, (lambda a, b, y: const(1.0), lambda a, b, y: -const(1.0)), kind="same", linear=True,
          word="minus")
_operator("mul", "*", 5, (lambda a, b, y: b, lambda a, b, y: a), kind="same", commutes=True, word="product")
_operator("div", "/", 5, (lambda a, b, y: 1.0 / b, lambda a, b, y: -y / b), cost=4, singular="at zero",
          sample=(0.5, 2.0), word="ratio")
_function("neg", 1, "-{0}", "-{0}", "-{0}", "-{0}", (lambda x, y: -const(1.0),), kind="same", exact=True,
          linear=True, text=lambda n, args: (f"-{args[0]}", 6), levels=lambda n: (6, 6))
# powers, exponentials, logarithms
_function("pow", 2, "torch.pow({0}, {1})", "gdsl::pow({0}, {1})", "libdevice.pow({0}, {1})", "{0}**{1}",
          (lambda a, b, y: choose(elementwise("eq", b, 0.0), 0.0, b * elementwise("pow", a, b - 1.0)),
           lambda a, b, y: choose(elementwise("eq", a, 0.0), _of_zero(b), y * elementwise("log", a))),
          cost=20, heavy=True, singular="somewhere", sample=(0.5, 2.0))
_function("exp", 1, "torch.exp({0})", "gdsl::exp({0})", "tl.exp({0})", "exp({0})",
          (lambda x, y: y,), cost=10, heavy=True, singular="somewhere")
_function("expm1", 1, "torch.expm1({0})", "gdsl::expm1({0})", "libdevice.expm1({0})", "exp({0}) - 1",
          (lambda x, y: elementwise("exp", x),), cost=12, heavy=True, singular="somewhere")
_function("log", 1, "torch.log({0})", "gdsl::log({0})", "tl.log({0})", "log({0})",
          (lambda x, y: 1.0 / x,), cost=10, heavy=True, singular="at zero", sample=(0.2, 3.0))
_function("log1p", 1, "torch.log1p({0})", "gdsl::log1p({0})", "libdevice.log1p({0})", "log(1 + {0})",
          (lambda x, y: 1.0 / (1.0 + x),), cost=12, heavy=True, singular="somewhere", sample=(-0.5, 2.0))
_function("sqrt", 1, "torch.sqrt({0})", "gdsl::sqrt({0})", "tl.sqrt({0})", "sqrt({0})",
          (lambda x, y: 0.5 / y,), cost=4, singular="at zero", sample=(0.2, 3.0))
_function("rsqrt", 1, "torch.rsqrt({0})", "gdsl::rsqrt({0})", "libdevice.rsqrt({0})", "1/sqrt({0})",
          (lambda x, y: -0.5 * y / x,), cost=6, singular="at zero", sample=(0.2, 3.0))
# The square root whose derivative at 0 is 0: what a Euclidean norm needs (torch.norm's subgradient).
_function("norm_sqrt", 1, "torch.where({0} == 0.0, 0.0, {0}).sqrt()", "gdsl::sqrt({0})", "tl.sqrt({0})", "sqrt({0})",
          (lambda x, y: choose(elementwise("eq", x, 0.0), 0.0, 0.5 / _nonzero(y)),), cost=4, singular="at zero",
          sample=(0.2, 3.0))
# signs and rounding
_function("abs", 1, "torch.abs({0})", "gdsl::abs({0})", "tl.abs({0})", "Abs({0})",
          (lambda x, y: elementwise("sign", x),), kind="same", sample=(0.2, 2.0), exact=True)
_function("sign", 1, "torch.sign({0})", "gdsl::sign({0})",
          "(({0} > 0).to(gdsl_float) - ({0} < 0).to(gdsl_float))", "sign({0})", _NONE, sample=(0.2, 2.0))
_function("floor", 1, "torch.floor({0})", "gdsl::floor({0})", "tl.floor({0})", "floor({0})", _NONE,
          sample=(0.2, 0.8))
# The number itself, as it is when it is stored: no part of what computes it is rounded together with what reads it.
_function("rounded", 1, "{0}.clone()", "gdsl::opaque({0})", "{0}", "{0}", (lambda x, y: const(1.0),),
          exact=True, linear=True)
# The sign follows the divisor, as in Python and torch.remainder; the remainder is exact, however large a / b is.
_function("mod", 2, "gdsl_mod({0}, {1})", "gdsl::mod({0}, {1})", "gdsl_mod({0}, {1})", "Mod({0}, {1})",
          (lambda a, b, y: const(1.0), lambda a, b, y: -_quotient(a, b, y)), cost=6, singular="at zero",
          sample=(1.1, 1.9))
# A tie shares the gradient, as in torch.maximum.
_function("maximum", 2, "torch.maximum({0}, {1})", "gdsl::maximum({0}, {1})",
          "tl.maximum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)", "Max({0}, {1})",
          (lambda a, b, y: _winner(a > b, a, b), lambda a, b, y: _winner(b > a, a, b)), exact=True, commutes=True)
_function("minimum", 2, "torch.minimum({0}, {1})", "gdsl::minimum({0}, {1})",
          "tl.minimum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)", "Min({0}, {1})",
          (lambda a, b, y: _winner(a < b, a, b), lambda a, b, y: _winner(b < a, a, b)), exact=True, commutes=True)
# trigonometry
_function("sin", 1, "torch.sin({0})", "gdsl::sin({0})", "tl.sin({0})", "sin({0})",
          (lambda x, y: elementwise("cos", x),), cost=12, heavy=True)
_function("cos", 1, "torch.cos({0})", "gdsl::cos({0})", "tl.cos({0})", "cos({0})",
          (lambda x, y: -elementwise("sin", x),), cost=12, heavy=True)
_function("acos", 1, "torch.acos({0})", "gdsl::acos({0})", "libdevice.acos({0})", "acos({0})",
          (lambda x, y: -elementwise("rsqrt", (1.0 - x) * (1.0 + x)),), cost=16, heavy=True, singular="somewhere",
          sample=(-0.8, 0.8))
_function("atan2", 2, "torch.atan2({0}, {1})", "gdsl::atan2({0}, {1})", "libdevice.atan2({0}, {1})",
          "atan2({0}, {1})",
          (lambda a, b, y: choose(elementwise("eq", a * a + b * b, 0.0), 0.0, b / _nonzero(a * a + b * b)),
           lambda a, b, y: choose(elementwise("eq", a * a + b * b, 0.0), 0.0, -a / _nonzero(a * a + b * b))),
          cost=20, heavy=True, sample=(0.3, 2.0))
# activations
_function("tanh", 1, "torch.tanh({0})", "gdsl::tanh({0})", "libdevice.tanh({0})", "tanh({0})",
          (lambda x, y: 1.0 - y * y,), cost=14, heavy=True)
_function("sigmoid", 1, "torch.sigmoid({0})", "gdsl::sigmoid({0})", "tl.sigmoid({0})", "1/(1 + exp(-({0})))",
          (lambda x, y: y * (1.0 - y),), cost=12, heavy=True)
# log(1 + e^x). Of torch's own, softplus is x itself above 20.
_function("softplus", 1, "torch.logaddexp({0}, torch.zeros_like({0}))", "gdsl::softplus({0})",
          "(tl.maximum({0}, 0.0) + libdevice.log1p(tl.exp(-tl.abs({0}))))", "log(1 + exp({0}))",
          (lambda x, y: elementwise("sigmoid", x),), cost=24, heavy=True)
_function("erf", 1, "torch.erf({0})", "gdsl::erf({0})", "tl.erf({0})", "erf({0})",
          (lambda x, y: (2.0 / math.sqrt(math.pi)) * elementwise("exp", -(x * x)),), cost=16, heavy=True)
_function("relu", 1, "torch.relu({0})", "({0} < 0 ? 0 : {0})", "tl.where({0} < 0, 0.0, {0})", "Max({0}, 0)",
          (lambda x, y: choose(y <= 0.0, 0.0, 1.0),), sample=(0.2, 2.0), exact=True)
_function("leaky_relu", 2, "torch.where({0} > 0, {0}, {0} * {1})", "({0} > 0 ? {0} : {0} * {1})",
          "tl.where({0} > 0, {0}, {0} * {1})", "Piecewise(({0}, {0} > 0), ({0} * {1}, True))",
          (lambda x, s, y: choose(x > 0.0, 1.0, s), lambda x, s, y: choose(x > 0.0, 0.0, x)), cost=2,
          sample=(0.2, 2.0))
# comparisons and logic
_operator("lt", "<", 3, sympy="({0}) < ({1})", kind="bool", exact=True)
_operator("le", "<=", 3, sympy="({0}) <= ({1})", kind="bool", exact=True)
_operator("gt", ">", 3, sympy="({0}) > ({1})", kind="bool", exact=True)
_operator("ge", ">=", 3, sympy="({0}) >= ({1})", kind="bool", exact=True)
_operator("eq", "==", 3, sympy="Eq({0}, {1})", kind="bool", exact=True, commutes=True)
_operator("ne", "!=", 3, sympy="Ne({0}, {1})", kind="bool", exact=True, commutes=True)
_operator("and", "&", 2, sympy="And({0}, {1})", shown="and", kind="bool", exact=True, commutes=True)
_operator("or", "|", 1, sympy="Or({0}, {1})", shown="or", kind="bool", exact=True, commutes=True)
_function("not", 1, "~{0}", "!{0}", "~{0}", "Not({0})", _NONE, kind="bool", exact=True)
_function("where", 3, "torch.where({0}, {1}, {2})", "({0} ? {1} : {2})", "tl.where({0}, {1}, {2})",
          "Piecewise(({1}, {0}), ({2}, True))",
          (None, lambda c, a, b, y: _step(c), lambda c, a, b, y: choose(c, 0.0, 1.0)), kind="same", exact=True,
          word="chosen")
# kinds of number
_function("to_float", 1, "gdsl_float({0})", "gdsl_float({0})", "{0}.to(gdsl_float)", "{0}", _NONE, exact=True,
          rule=_to_float_rule)
# An integer below the node's bound; the cast clamps, so that an index made from it is always in range.
_function("to_int", 1, "torch.nan_to_num({0}).clamp(0, {bound} - 1).long()", "gdsl::to_int({0}, {bound:d})",
          "tl.where({0} > 0, tl.minimum({0}, {bound:d} - 1), 0).to(tl.int32)", "floor({0})", _NONE, kind="int",
          sample=(0.0, 2.0), attrs=ToInt, rule=_to_int_rule)
# fmt: on


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
    return eval(text, {"torch": torch, "gdsl_mod": _torch_mod})


def _torch_mod(a: Any, b: Any) -> Any:
    """torch.remainder of floats, which loses its way where a / b is large: by fmod in double, exact for float."""
    rest = a.double().fmod(b.double()).to(a.dtype)
    return rest.where((rest == 0) | ((rest < 0) == (b < 0)), rest + b)


def subtracts_products(node: Node) -> bool:
    """Whether a value is a * b - c * d, which must be exactly 0 where the products are equal, as in a cross product.

    A compiler that makes one product and the difference one instruction rounds the other product only.
    """
    return node.op == "sub" and node.kind is Kind.FLOAT and all(i.op == "mul" for i in node.inputs)


def rounds_each(node: Node) -> bool:
    """Whether a kernel with a node must round each operation by itself, where a compiler has no other means."""
    return node.op == "rounded" or subtracts_products(node)
