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

import torch

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


def _of(value: Any) -> TensorValue:
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
    values = [_of(v) for v in operands]
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


def _apart(names: FreshNames, value: TensorValue) -> TensorValue:
    """The same with dims that no other value has: a product of two matrices of one origin needs that."""
    own = {a: names.fresh() for a in value.axes if a is not None}
    return TensorValue(build.rename(value.node, own) if own else value.node, tuple(a and own[a] for a in value.axes))


def _real(*values: Any) -> None:
    """Arithmetic of truth values is another one."""
    if any(isinstance(v, bool) or (isinstance(v, TensorValue) and v.node.kind is not Kind.FLOAT) for v in values):
        raise Untraceable("arithmetic of truth values")


def function_of(make: Callable[..., Node]) -> Callable[..., TensorValue]:
    """An elementwise function of one tensor."""

    def apply(names: FreshNames, x: TensorValue, /, *args: Any, **kwargs: Any) -> TensorValue:
        _real(x)
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
        _real(a, b)
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
    _real(input, other)
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


# ------------------------------------------------------------------------------------------- the places


def _sizes(shape: tuple[Any, ...]) -> list[int]:
    sizes = list(shape[0] if len(shape) == 1 and isinstance(shape[0], list | tuple | torch.Size) else shape)
    if any(type(s) is not int for s in sizes):
        raise Untraceable("sizes that are no numbers")
    return sizes


def view(names: FreshNames, x: TensorValue, /, *shape: Any) -> TensorValue:
    """[E, ...] as another [E, ...]."""
    sizes = _sizes(shape)
    total = names.edges * math.prod(x.sizes)
    if -1 in sizes:
        known = math.prod(s for s in sizes if s != -1)
        if known <= 0 or total % known or sizes.count(-1) > 1:
            raise Untraceable("a view of sizes that do not fit")
        sizes[sizes.index(-1)] = total // known
    if not sizes or sizes[0] != names.edges or min(sizes) < 0 or math.prod(sizes[1:]) != math.prod(x.sizes):
        raise Untraceable("a view that mixes edges and features")
    return _shaped(names, x, sizes[1:])


def _shaped(names: FreshNames, x: TensorValue, sizes: Sequence[int]) -> TensorValue:
    """The same numbers of each edge under these sizes."""
    order = [a for a in x.axes if a is not None]
    node = build.transpose(x.node, order) if order != list(x.node.type.names) else x.node
    old = list(node.dims)
    new = [Dim(names.fresh(), s) for s in sizes if s != 1]
    if [d.size for d in new] == [d.size for d in old]:
        new = old
    else:
        node = build.reshape_like(node, Type(node.domain, tuple(new), node.kind))
    kept = iter(d.name for d in new)
    return TensorValue(node, tuple(None if s == 1 else next(kept) for s in sizes))


def flatten(names: FreshNames, x: TensorValue, start_dim: int = 0, end_dim: int = -1) -> TensorValue:
    first, last = x.axis(start_dim), x.axis(end_dim)
    if first > last:
        raise Untraceable("a flattening backwards")
    return _shaped(names, x, [*x.sizes[:first], math.prod(x.sizes[first : last + 1]), *x.sizes[last + 1 :]])


def unflatten(names: FreshNames, x: TensorValue, dim: int, sizes: Any) -> TensorValue:
    place, parts = x.axis(dim), _sizes((sizes,))
    size = x.sizes[place]
    if -1 in parts:
        known = math.prod(s for s in parts if s != -1)
        if known <= 0 or parts.count(-1) > 1:
            raise Untraceable("sizes that do not fit")
        parts[parts.index(-1)] = size // known
    if min(parts) < 0 or math.prod(parts) != size:
        raise Untraceable("sizes that do not fit")
    return _shaped(names, x, [*x.sizes[:place], *parts, *x.sizes[place + 1 :]])


def unsqueeze(names: FreshNames, x: TensorValue, dim: int) -> TensorValue:
    if type(dim) is not int or not -x.ndim - 1 <= dim <= x.ndim:
        raise Untraceable("a dim that is no place of the tensor")
    place = (dim + x.ndim + 1 if dim < 0 else dim) - x.on_rows
    if place < 0:
        raise Untraceable("a place before the edges")
    return TensorValue(x.node, (*x.axes[:place], None, *x.axes[place:]))


def squeeze(names: FreshNames, x: TensorValue, dim: int) -> TensorValue:
    place = x.axis(dim)
    return x if x.axes[place] is not None else TensorValue(x.node, (*x.axes[:place], *x.axes[place + 1 :]))


def transpose(names: FreshNames, x: TensorValue, dim0: int, dim1: int) -> TensorValue:
    axes, i, j = list(x.axes), x.axis(dim0), x.axis(dim1)
    axes[i], axes[j] = axes[j], axes[i]
    return TensorValue(x.node, tuple(axes))


def permute(names: FreshNames, x: TensorValue, /, *dims: Any) -> TensorValue:
    order = [d + x.ndim if d < 0 else d for d in _sizes(dims)]
    if sorted(order) != list(range(x.ndim)) or order[0] != 0:
        raise Untraceable("an order that moves the edges")
    return TensorValue(x.node, tuple(x.axes[d - 1] for d in order[1:]))


def getitem(names: FreshNames, x: TensorValue, index: Any, /) -> TensorValue:
    """``x[:, k]``, ``x[..., a:b]``, ``x[:, None]``."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(p is not None and p is not Ellipsis and type(p) not in (int, slice) for p in parts):
        raise Untraceable("this index")
    if any(isinstance(p, slice) and any(type(v) not in (int, type(None)) for v in (p.start, p.stop, p.step))
           for p in parts):  # fmt: skip
        raise Untraceable("this index")
    given = sum(p is not None and p is not Ellipsis for p in parts)
    dots = [k for k, p in enumerate(parts) if p is Ellipsis]
    if given > x.ndim or len(dots) > 1:
        raise Untraceable("this index")
    if dots:
        parts[dots[0] : dots[0] + 1] = [slice(None)] * (x.ndim - given)
    else:
        parts += [slice(None)] * (x.ndim - given)
    if parts[0] != slice(None):
        raise Untraceable("an index into the edges")
    node, place = x.node, 0
    axes: list[str | None] = []
    for part in parts[1:]:
        if part is None:
            axes.append(None)
            continue
        axis = x.axes[place]
        place += 1
        size = 1 if axis is None else node.type.dim(axis).size
        if part == slice(None):
            axes.append(axis)
        elif axis is None:
            raise Untraceable("an index into a dim of size 1")
        elif isinstance(part, int):
            if not -size <= part < size:
                raise Untraceable("an index out of range")
            node = build.select(node, axis, part % size)
        else:
            start, stop, step = part.indices(size)
            if step != 1:
                raise Untraceable("an index with steps")
            if stop - start == 1:
                node = build.select(node, axis, start)
                axes.append(None)
                continue
            new = Dim(names.fresh(), max(stop - start, 0))
            node = build.slice_dim(node, axis, start, new)
            axes.append(new.name)
    return TensorValue(node, tuple(axes))


def split(names: FreshNames, x: TensorValue, split_size_or_sections: Any, dim: int = 0) -> tuple[TensorValue, ...]:
    size = x.sizes[x.axis(dim)]
    given = split_size_or_sections
    if type(given) is int and given > 0:
        sections = [min(given, size - start) for start in range(0, size, given)]
    else:
        sections = _sizes((given,))
    if sum(sections) != size or not sections or min(sections) < 0:
        raise Untraceable("sections that do not fit")
    found, start = [], 0
    for section in sections:
        index = [slice(None)] * x.ndim
        index[dim] = slice(start, start + section)
        found.append(getitem(names, x, tuple(index)) if section != size else x)
        start += section
    return tuple(found)


def chunk(names: FreshNames, x: TensorValue, chunks: int, dim: int = 0) -> tuple[TensorValue, ...]:
    size = x.sizes[x.axis(dim)]
    if type(chunks) is not int or chunks < 1 or not size:
        raise Untraceable("chunks that do not fit")
    return split(names, x, -(-size // chunks), dim)


def cat(names: FreshNames, tensors: Sequence[Any], dim: int = 0) -> TensorValue:
    parts = [_of(t) for t in tensors]
    _real(*parts)
    first = parts[0]
    place = first.axis(dim)
    nodes: list[Node] = []
    along: list[str] = []
    for part in parts:
        if part.on_rows != first.on_rows or len(part.axes) != len(first.axes):
            raise Untraceable("cat of tensors of different dims")
        others = [v.sizes[:place] + v.sizes[place + 1 :] for v in (part, first)]
        if others[0] != others[1]:
            raise Untraceable("cat of tensors of different sizes")
        part = part if part is first else _apart(names, part)
        node, axis = part.node, part.axes[place]
        renamed = {
            a: b for k, (a, b) in enumerate(zip(part.axes, first.axes, strict=True))
            if k != place and a is not None and b is not None and a != b
        }  # fmt: skip
        node = build.rename(node, renamed) if renamed else node
        if axis is None:
            one = Dim(names.fresh(), 1)
            node, axis = build.reshape_like(node, Type(node.domain, (*node.dims, one), node.kind)), one.name
        nodes.append(node)
        along.append(axis)
    new = Dim(names.fresh(), sum(n.type.dim(a).size for n, a in zip(nodes, along, strict=True)))
    joined = build.cat(nodes, along, new)
    return TensorValue(joined, tuple(new.name if k == place else a for k, a in enumerate(first.axes)))


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
        _real(x)
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
    _real(x)
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
    _real(a, b)
    if a.sizes[-1] != b.sizes[0]:
        raise Untraceable("a product of matrices of sizes that do not fit")
    b = _apart(names, b)
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
    _real(x)
    return TensorValue(library.segment_softmax(x.node, "i", names.rows), x.axes)


def filled(number: float) -> Callable[..., TensorValue]:
    """A tensor of one number, of the shape of another."""

    def apply(names: FreshNames, x: TensorValue, /) -> TensorValue:
        _real(x)
        return TensorValue(build.spread(build.const(number, x.node.dims), x.node.domain), x.axes)

    return apply


def detach(names: FreshNames, x: TensorValue, /) -> TensorValue:
    return TensorValue(build.stop_gradient(x.node), x.axes)


def clone(names: FreshNames, x: TensorValue, /) -> TensorValue:
    return x
