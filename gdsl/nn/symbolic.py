"""What torch's functions do to tensors of all edges, as expressions of the IR.

A :class:`TensorValue` is a tensor [E, ...] or a tensor without edges. A rule takes values, numbers and the like in the
places and by the names that torch's function has for them, and gives the value of the result. What it has no form for
raises :class:`Untraceable`, or TypeError for arguments that it does not name: the function then runs on tensors.
Dims have places in torch and no names: the names here are made up and stand for places.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gdsl.ir import build, library
from gdsl.ir.library import op
from gdsl.ir.node import Node
from gdsl.ir.types import Dim, Domain, Kind, Type


class Untraceable(Exception):
    """Something that has no form in the IR; the message says what."""


@dataclass(frozen=True, slots=True)
class TensorValue:
    """A tensor as an expression.

    axes: the places after the rows, from the left: the name of a dim of the node, or None for a place of size 1
    """

    node: Node
    axes: tuple[str | None, ...]

    @property
    def on_rows(self) -> bool:
        return self.node.domain is not Domain.GLOBAL

    @property
    def sizes(self) -> tuple[int, ...]:
        """Without the rows."""
        return tuple([1 if a is None else self.node.type.dim(a).size for a in self.axes])

    @property
    def ndim(self) -> int:
        return len(self.axes) + self.on_rows

    def axis(self, dim: Any) -> int:
        """A place among the axes from torch's number."""
        if type(dim) is not int or not -self.ndim <= dim < self.ndim:
            raise Untraceable("a dim that is no place of the tensor")
        place = (dim + self.ndim if dim < 0 else dim) - self.on_rows
        if place < 0:
            raise Untraceable("an operation along the edges")
        return place

    def ordered(self) -> Node:
        """The node with its dims in the order of the places, those of size 1 among them."""
        named = [a for a in self.axes if a is not None]
        node = build.transpose(self.node, named) if list(self.node.type.names) != named else self.node
        if None not in self.axes:
            return node
        dims = tuple(Dim(f"one{k}", 1) if a is None else self.node.type.dim(a) for k, a in enumerate(self.axes))
        return build.reshape_like(node, Type(node.domain, dims, node.kind))


@dataclass
class FreshNames:
    """What the rules of one call share: where targets live, how many edges there are, whether numbers are of torch's
    default dtype, names and salts used so far."""

    rows: Domain
    edges: int
    default: bool = True
    names: int = 0
    salts: int = 0

    def fresh(self) -> str:
        self.names += 1
        return f"d{self.names}"


@functools.lru_cache(maxsize=4096)
def loaded(name: str, domain: Domain, shape: tuple[int, ...], kind: Kind, end: str | None = None) -> TensorValue:
    """An input of this shape, without the rows; a node value is read at an end of the edges.

    Dims of size 1 are kept as places only: what torch broadcasts, names do.
    """
    dims = tuple([Dim(f"{name}.{k}", size) for k, size in enumerate(shape)])
    node = build.load(name, Type(domain, dims, kind), "param" if domain is Domain.GLOBAL else "input")
    node = node if end is None else build.gather(node, end)
    axes: list[str | None] = []
    for d in dims:
        if d.size == 1:
            node = build.select(node, d.name, 0)
        axes.append(None if d.size == 1 else d.name)
    return TensorValue(node, tuple(axes))


# ---------------------------------------------------------------------------------------- broadcasting


def operand(value: Any) -> TensorValue:
    """An operand."""
    if isinstance(value, TensorValue):
        return value
    if isinstance(value, bool):
        return TensorValue(build.const(value), ())
    if isinstance(value, int | float):
        return TensorValue(build.const(float(value)), ())
    raise Untraceable(f"an operand of type {type(value).__name__}")


def _aligned(names: FreshNames, operands: Sequence[Any]) -> tuple[list[Node], tuple[str | None, ...]]:
    """Operands of an elementwise function, their dims named alike where torch would put them side by side."""
    values = [operand(v) for v in operands]
    on_rows = any(v.on_rows for v in values)
    places = max(len(v.axes) for v in values if v.on_rows or not on_rows)
    lists = []
    for v in values:
        axes: tuple[str | None, ...] = v.axes
        if v.on_rows and len(axes) < places:
            raise Untraceable("a broadcast that puts the edges beside features")
        if len(axes) > places:  # a parameter with a place for the rows
            if len(axes) > places + 1 or axes[0] is not None:
                raise Untraceable("a broadcast over the edges of a tensor without edges")
            axes = axes[1:]
        lists.append((None,) * (places - len(axes)) + axes)
    nodes = [v.node for v in values]
    result: list[str | None] = []
    for place in range(places):
        here = [axes[place] for axes in lists]
        sizes = {n.type.dim(a).size for n, a in zip(nodes, here, strict=True) if a is not None}
        if len(sizes) > 1:
            raise Untraceable(f"operands of sizes {sorted(sizes)} side by side")
        wanted = next((a for a in here if a is not None and a not in result), None)
        if wanted is None and sizes:
            wanted = names.fresh()
        result.append(wanted)
    renamed = []
    for node, axes in zip(nodes, lists, strict=True):
        others = {a: b for a, b in zip(axes, result, strict=True) if a is not None and b is not None and a != b}
        renamed.append(build.rename(node, others) if others else node)
    return renamed, tuple(result)


def apart(names: FreshNames, value: TensorValue) -> TensorValue:
    """The same with dims that no other value has: a product of two matrices of one origin needs that."""
    own = {a: names.fresh() for a in value.axes if a is not None}
    return TensorValue(build.rename(value.node, own) if own else value.node, tuple(a and own[a] for a in value.axes))


def check_real(*values: Any) -> None:
    """Arithmetic of truth values is another one."""
    if any(isinstance(v, bool) or (isinstance(v, TensorValue) and v.node.kind is not Kind.FLOAT) for v in values):
        raise Untraceable("arithmetic of truth values")


def function_of(make: Callable[..., Node]) -> Callable[..., TensorValue]:
    """An elementwise function of one tensor."""

    def apply(names: FreshNames, x: TensorValue, /, *args: Any, **kwargs: Any) -> TensorValue:
        check_real(x)
        return TensorValue(make(x.node, *args, **kwargs), x.axes)

    return apply


def arithmetic(make: Callable[..., Node]) -> Callable[..., TensorValue]:
    """An elementwise function of two operands, one of which may be a truth value beside a number."""

    def apply(names: FreshNames, a: Any, b: Any, /, *args: Any, **kwargs: Any) -> TensorValue:
        tensors = [x for x in (a, b) if isinstance(x, TensorValue)]
        # Truth values and a number are of torch's default dtype, or integers.
        fits = len(tensors) == 1 and names.default and any(type(x) is float for x in (a, b))
        if not fits and all(x.node.kind is not Kind.FLOAT for x in tensors):
            raise Untraceable("arithmetic of truth values")
        (x, y), axes = _aligned(names, (a, b))
        return TensorValue(make(build.to_float(x), build.to_float(y), *args, **kwargs), axes)

    return apply


def comparison(name: str) -> Callable[..., TensorValue]:
    def apply(names: FreshNames, a: Any, b: Any, /) -> TensorValue:
        check_real(a, b)
        (x, y), axes = _aligned(names, (a, b))
        return TensorValue(op(name, x, y), axes)

    return apply


def logical(name: str) -> Callable[..., TensorValue]:
    def apply(names: FreshNames, a: Any, b: Any, /) -> TensorValue:
        if any(not isinstance(v, TensorValue) or v.node.kind is not Kind.BOOL for v in (a, b)):
            raise Untraceable("a logical function of numbers")
        (x, y), axes = _aligned(names, (a, b))
        return TensorValue(op(name, x, y), axes)

    return apply


def logical_not(names: FreshNames, x: TensorValue, /) -> TensorValue:
    if x.node.kind is not Kind.BOOL:
        raise Untraceable("a logical function of numbers")
    return TensorValue(op("not", x.node), x.axes)


def where(names: FreshNames, condition: TensorValue, input: Any, other: Any) -> TensorValue:
    if not isinstance(condition, TensorValue) or condition.node.kind is not Kind.BOOL:
        raise Untraceable("a condition that is no truth value")
    if not isinstance(input, TensorValue) and not isinstance(other, TensorValue):
        raise Untraceable("a choice between two numbers")
    check_real(input, other)
    (c, a, b), axes = _aligned(names, (condition, input, other))
    return TensorValue(library.where(c, a, b), axes)


def masked_fill(names: FreshNames, x: TensorValue, mask: TensorValue, value: Any) -> TensorValue:
    if isinstance(value, TensorValue):
        raise Untraceable("a filling with a tensor")
    if isinstance(mask, TensorValue) and len(mask.axes) > len(x.axes):
        raise Untraceable("a mask of more dims")
    found = where(names, mask, value, x)
    if found.sizes != x.sizes:
        raise Untraceable("a mask that is larger")
    return found


def swapped(function: Callable[..., TensorValue]) -> Callable[..., TensorValue]:
    return lambda names, a, b, /: function(names, b, a)


def sum_of(sign: float) -> Callable[..., Node]:
    def make(a: Node, b: Node, *, alpha: float = 1) -> Node:
        return a + b * (sign * alpha) if alpha != 1 else (a + b if sign > 0 else a - b)

    return make


def clamp(x: Node, min: float | None = None, max: float | None = None) -> Node:
    low, high = (-math.inf if min is None else min), (math.inf if max is None else max)
    if not isinstance(low, int | float) or not isinstance(high, int | float) or not low <= high:
        raise Untraceable("limits that are no two numbers in order")
    return library.clamp(x, float(low), float(high))


def gelu(x: Node, *, approximate: str = "none") -> Node:
    if approximate == "tanh":
        return 0.5 * x * (1.0 + op("tanh", math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    if approximate != "none":
        raise Untraceable("this gelu")
    return library.gelu(x)


def softplus(x: Node, beta: float = 1.0, threshold: float = 20.0) -> Node:
    """log(1 + e^(beta x)) / beta, and x itself where beta x is above the threshold."""
    scaled = x if beta == 1 else x * float(beta)
    above = scaled > float(threshold)
    soft = library.softplus(library.where(above, 0.0, scaled))
    return library.where(above, x, soft if beta == 1 else soft / float(beta))


# ------------------------------------------------------------------------------------------- reductions


def _places(x: TensorValue, dim: Any) -> list[int]:
    if dim is None:
        raise Untraceable("a reduction over the edges")
    places = [x.axis(d) for d in (dim if isinstance(dim, list | tuple) else [dim])]
    if not places or len(set(places)) != len(places):
        raise Untraceable("a reduction over these dims")
    return places


def over(reduce: Callable[[Node, list[str]], Node]) -> Callable[..., TensorValue]:
    def apply(names: FreshNames, x: TensorValue, dim: Any = None, keepdim: bool = False) -> TensorValue:
        check_real(x)
        places = _places(x, dim)
        over = [a for k, a in enumerate(x.axes) if k in places and a is not None]
        axes = [None if k in places else a for k, a in enumerate(x.axes) if keepdim or k not in places]
        return TensorValue(reduce(x.node, over), tuple(axes))

    return apply


def unless_none(reduce: Callable[[Node, list[str]], Node], alone: Callable[[Node], Node]) -> Callable[..., TensorValue]:
    """A reduction, and what it is over dims of size 1."""
    return over(lambda x, over: reduce(x, over) if over else alone(x))


_norm_over = unless_none(library.dim_norm, lambda x: op("abs", x))


def norm(names: FreshNames, x: TensorValue, p: Any = 2, dim: Any = None, keepdim: bool = False) -> TensorValue:
    if p not in (2, "fro"):
        raise Untraceable("a norm other than the Euclidean one")
    return _norm_over(names, x, dim, keepdim)


def vector_norm(
    names: FreshNames, x: TensorValue, ord: Any = None, dim: Any = None, keepdim: bool = False
) -> TensorValue:
    if ord not in (None, 2) or type(dim) is not int:
        raise Untraceable("a norm other than the Euclidean one over one dim")
    return _norm_over(names, x, dim, keepdim)


def normalize(names: FreshNames, x: TensorValue, p: Any = 2.0, dim: int = 1, eps: float = 1e-12) -> TensorValue:
    size = norm(names, x, p, dim, True)
    (a, b), axes = _aligned(names, (x, TensorValue(library.clamp(size.node, float(eps), math.inf), size.axes)))
    return TensorValue(a / b, axes)


def _over_one(x: TensorValue, dim: int) -> str:
    check_real(x)
    name = x.axes[x.axis(dim)]
    if name is None:
        raise Untraceable("a softmax over a dim of size 1")
    return name


def softmax(names: FreshNames, x: TensorValue, dim: int, _stacklevel: int = 3) -> TensorValue:
    name = _over_one(x, dim)
    return TensorValue(library.dim_softmax(x.node, [name]), x.axes)


def log_softmax(names: FreshNames, x: TensorValue, dim: int, _stacklevel: int = 3) -> TensorValue:
    name = _over_one(x, dim)
    return TensorValue(x.node - library.dim_logsumexp(x.node, [name]), x.axes)


# ------------------------------------------------------------------------------------- layers of networks


def linear(names: FreshNames, x: TensorValue, weight: Any, bias: Any = None) -> TensorValue:
    """x W^T + b over the last place."""
    if not isinstance(weight, TensorValue) or weight.on_rows or len(weight.axes) != 2:
        raise Untraceable("a linear map by what is no matrix")
    y = matmul(names, x, TensorValue(weight.node, (weight.axes[1], weight.axes[0])))
    if bias is None:
        return y
    if bias.sizes != y.sizes[-1:]:
        raise Untraceable("a bias of another size")
    (a, b), axes = _aligned(names, (y, bias))
    return TensorValue(a + b, axes)


def matmul(names: FreshNames, a: Any, b: Any, /) -> TensorValue:
    if not isinstance(a, TensorValue) or not isinstance(b, TensorValue):
        raise Untraceable("a product that is not of tensors")
    if b.on_rows or len(b.axes) != 2 or not a.on_rows or not a.axes:
        raise Untraceable("a product that is not with a matrix of the layer")
    check_real(a, b)
    if a.sizes[-1] != b.sizes[0]:
        raise Untraceable("a product of matrices of sizes that do not fit")
    b = apart(names, b)
    inner, outer = b.axes
    last = a.axes[-1]
    if last is None or inner is None:
        (x, y), axes = _aligned(names, (TensorValue(a.node, (*a.axes[:-1], None)), TensorValue(b.node, (outer,))))
        return TensorValue(x * y, axes)
    y = build.contract([a.node, build.rename(b.node, {inner: last})], [last])
    return TensorValue(y, (*a.axes[:-1], outer))


def _scaled(names: FreshNames, y: TensorValue, weight: TensorValue | None, bias: TensorValue | None) -> TensorValue:
    for make, vector in ((Node.__mul__, weight), (Node.__add__, bias)):
        if vector is not None:
            (a, b), axes = _aligned(names, (y, vector))
            y = TensorValue(make(a, b), axes)
    return y


def layer_norm(
    names: FreshNames,
    x: TensorValue,
    normalized_shape: Any,
    weight: TensorValue | None = None,
    bias: TensorValue | None = None,
    eps: float = 1e-5,
) -> TensorValue:
    last = x.axes[-1] if x.axes else None
    if last is None or tuple(normalized_shape) != x.sizes[-1:]:
        raise Untraceable("a norm over more than the last dim")
    centred = x.node - library.dim_mean(x.node, [last])
    y = centred * op("rsqrt", library.dim_var(x.node, [last]) + float(eps))
    return _scaled(names, TensorValue(y, x.axes), weight, bias)


def batch_norm(
    names: FreshNames,
    x: TensorValue,
    running_mean: TensorValue | None,
    running_var: TensorValue | None,
    weight: TensorValue | None = None,
    bias: TensorValue | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> TensorValue:
    """With the running mean and variance: those of the edges at hand are read and written in torch."""
    if training or running_mean is None or running_var is None or len(x.axes) != 1:
        raise Untraceable("the statistics of all edges")
    var = TensorValue(op("rsqrt", running_var.node + float(eps)), running_var.axes)
    (a, m, v), axes = _aligned(names, (x, running_mean, var))
    return _scaled(names, TensorValue((a - m) * v, axes), weight, bias)


def dropout(names: FreshNames, x: TensorValue, p: float = 0.5, training: bool = True) -> TensorValue:
    """By Philox, as in every program: the mask is drawn again in the backward pass."""
    if not isinstance(p, int | float) or not 0 <= p <= 1:
        raise Untraceable("a probability that is none")
    if not training or p == 0:
        return x
    if p == 1:
        return TensorValue(x.node * 0.0, x.axes)
    names.salts += 1
    seed = build.load("seed", Type(Domain.GLOBAL, (), Kind.INT), "seed")
    drawn = build.random(seed, names.salts, x.node.domain, x.node.dims)
    return TensorValue(library.where(drawn < float(p), 0.0, x.node * (1.0 / (1.0 - p))), x.axes)


def segment_softmax(names: FreshNames, x: TensorValue) -> TensorValue:
    """The softmax over the edges into each node."""
    check_real(x)
    return TensorValue(library.segment_softmax(x.node, "i", names.rows), x.axes)


def filled(number: float) -> Callable[..., TensorValue]:
    """A tensor of one number, of the shape of another."""

    def apply(names: FreshNames, x: TensorValue, /) -> TensorValue:
        check_real(x)
        return TensorValue(build.spread(build.const(number, x.node.dims), x.node.domain), x.axes)

    return apply


def detach(names: FreshNames, x: TensorValue, /) -> TensorValue:
    return TensorValue(build.stop_gradient(x.node), x.axes)


def clone(names: FreshNames, x: TensorValue, /) -> TensorValue:
    return x
