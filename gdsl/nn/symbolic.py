"""A user's ``message`` method as an expression of the IR: it is called once with stand-ins for its tensors.

A :class:`Symbol` looks like the tensor of all edges, [E, ...], or of a parameter. Torch functions and methods that it
meets become nodes; anything else raises :class:`Untraceable`, and the method then runs as it is. What is read is the
meaning that torch gives it, where dims have places and no names: the names here are made up and stand for places.
"""

from __future__ import annotations

import functools
import math
import numbers
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.ir import build, library
from gdsl.ir.build import IRError
from gdsl.ir.library import op
from gdsl.ir.node import Node
from gdsl.ir.types import Dim, Domain, Kind, Type


class Untraceable(Exception):
    """Something that has no form in the IR; the message says what."""


class Rows:
    """The number of edges, which is not known while a method is traced."""


ROWS = Rows()


@dataclass
class Tracer:
    """What one trace collects.

    owner:    the module whose parameters and buffers may be read
    training: whether dropout is active
    rows:     where the targets of the edges live
    reads:    the parameters and buffers that were met, by name
    """

    owner: nn.Module
    training: bool
    rows: Domain
    reads: dict[str, Tensor] = field(default_factory=dict)
    uses_seed: bool = False
    salts: int = 0
    names: int = 0

    def fresh(self) -> str:
        self.names += 1
        return f"d{self.names}"

    def load(self, name: str, domain: Domain, shape: Sequence[int], kind: Kind = Kind.FLOAT) -> Node:
        """An input or parameter of this shape, without the rows."""
        dims = tuple(Dim(self.fresh(), size) for size in shape)
        return build.load(name, Type(domain, dims, kind), "param" if domain is Domain.GLOBAL else "input")

    def symbol(self, node: Node) -> Symbol:
        """A node as a tensor. Dims of size 1 are kept as places only: what torch broadcasts, names do."""
        axes: list[str | None] = []
        for d in node.dims:
            if d.size == 1:
                node = build.select(node, d.name, 0)
            axes.append(None if d.size == 1 else d.name)
        return Symbol(self, node, tuple(axes))

    def state(self, tensor: Tensor) -> Symbol:
        """A parameter or buffer of the owner. Another tensor may be another one in the next call."""
        for name, value in [*self.owner.named_parameters(), *self.owner.named_buffers()]:
            if value is tensor:
                if not tensor.is_floating_point():
                    raise Untraceable(f"`{name}` does not hold real numbers")
                self.reads[name] = value
                return self.symbol(self.load(name, Domain.GLOBAL, tensor.shape))
        raise Untraceable("a tensor that is neither an argument nor a parameter or buffer of the layer")

    def of(self, value: Any) -> Symbol:
        """An operand."""
        if isinstance(value, Symbol):
            return value
        if isinstance(value, Tensor):
            return self.state(value)
        if isinstance(value, numbers.Real):
            return Symbol(self, build.const(float(value)), ())
        raise Untraceable(f"an operand of type {type(value).__name__}")


class Symbol:
    """A stand-in for a tensor.

    axes: the places after the rows, from the left: the name of a dim of the node, or None for a place of size 1
    """

    def __init__(self, tracer: Tracer, node: Node, axes: tuple[str | None, ...]):
        self.tracer, self.node, self.axes = tracer, node, axes

    @property
    def on_rows(self) -> bool:
        return self.node.domain is not Domain.GLOBAL

    @property
    def sizes(self) -> tuple[int, ...]:
        """Without the rows."""
        return tuple(1 if a is None else self.node.type.dim(a).size for a in self.axes)

    @property
    def ndim(self) -> int:
        return len(self.axes) + self.on_rows

    @property
    def shape(self) -> tuple[Any, ...]:
        return ((ROWS,) if self.on_rows else ()) + self.sizes

    def axis(self, dim: int) -> int:
        """A place among the axes from torch's number."""
        place = (dim + self.ndim if dim < 0 else dim) - self.on_rows
        if not 0 <= place < len(self.axes):
            raise Untraceable("an operation along the edges")
        return place

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.ndim

    def type_as(self, other: Any) -> Symbol:
        return self

    def contiguous(self) -> Symbol:
        return self

    def with_axes(self, node: Node, axes: Iterable[str | None]) -> Symbol:
        return Symbol(self.tracer, node, tuple(axes))

    def ordered(self) -> Node:
        """The node with its dims in the order of the places, those of size 1 among them."""
        named = [a for a in self.axes if a is not None]
        node = build.transpose(self.node, named) if list(self.node.type.names) != named else self.node
        if None not in self.axes:
            return node
        dims = tuple(Dim(self.tracer.fresh(), 1) if a is None else self.node.type.dim(a) for a in self.axes)
        return build.reshape_like(node, Type(node.domain, dims, node.kind))

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(function, "__name__", "").strip("_")
        if name not in FUNCTIONS:
            raise Untraceable(f"torch's `{name}`")
        tracer = next(a.tracer for a in _flat([*args, *(kwargs or {}).values()]) if isinstance(a, Symbol))
        try:
            return FUNCTIONS[name](tracer, *args, **(kwargs or {}))
        except (IRError, TypeError) as error:
            raise Untraceable(f"`{name}` called in this way: {error}") from error

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__") or name not in FUNCTIONS:
            raise Untraceable(f"the tensor method `{name}`")
        return lambda *args, **kwargs: Symbol.__torch_function__(
            types.SimpleNamespace(__name__=name), (), (self, *args), kwargs
        )

    def __getitem__(self, index: Any) -> Symbol:
        return _getitem(self.tracer, self, index)

    def __bool__(self) -> bool:
        raise Untraceable("a condition on values")

    def __iter__(self) -> Any:
        raise Untraceable("a loop over edges")


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


# ---------------------------------------------------------------------------------------- broadcasting


def _aligned(tracer: Tracer, values: Sequence[Any]) -> tuple[list[Node], tuple[str | None, ...]]:
    """Operands of an elementwise function, their dims named alike where torch would put them side by side."""
    symbols = [tracer.of(v) for v in values]
    on_rows = any(s.on_rows for s in symbols)
    places = max(len(s.axes) for s in symbols if s.on_rows) if on_rows else max(len(s.axes) for s in symbols)
    lists = []
    for s in symbols:
        axes: tuple[str | None, ...] = s.axes
        if s.on_rows and len(axes) < places:
            raise Untraceable("a broadcast that puts the edges beside features")
        if len(axes) > places:  # a parameter with a place for the rows
            if len(axes) > places + 1 or axes[0] is not None:
                raise Untraceable("a broadcast over the edges of a tensor without edges")
            axes = axes[1:]
        lists.append((None,) * (places - len(axes)) + axes)
    nodes = [s.node for s in symbols]
    result: list[str | None] = []
    for place in range(places):
        here = [axes[place] for axes in lists]
        sizes = {n.type.dim(a).size for n, a in zip(nodes, here, strict=True) if a is not None}
        if len(sizes) > 1:
            raise Untraceable(f"operands of sizes {sorted(sizes)} side by side")
        wanted = next((a for a in here if a is not None and a not in result), None)
        if wanted is None and sizes:
            wanted = tracer.fresh()
        result.append(wanted)
    renamed = []
    for node, axes in zip(nodes, lists, strict=True):
        names = {a: b for a, b in zip(axes, result, strict=True) if a is not None and b is not None and a != b}
        renamed.append(build.rename(node, names) if names else node)
    return renamed, tuple(result)


def _elementwise(make: Callable[..., Node], arity: int) -> Callable[..., Symbol]:
    def apply(tracer: Tracer, *args: Any, **kwargs: Any) -> Symbol:
        if len(args) < arity:
            raise Untraceable("operands given by name")
        kwargs.pop("inplace", None)
        nodes, axes = _aligned(tracer, args[:arity])
        return Symbol(tracer, make(*nodes, *args[arity:], **kwargs), axes)

    return apply


def _reversed(function: Callable[..., Symbol]) -> Callable[..., Symbol]:
    return lambda tracer, a, b: function(tracer, b, a)


def _add(sign: float) -> Callable[..., Node]:
    return lambda a, b, alpha=1: a + b * (sign * alpha) if alpha != 1 else (a + b if sign > 0 else a - b)


def _clamp(x: Node, min: float | None = None, max: float | None = None) -> Node:
    return library.clamp(x, -math.inf if min is None else float(min), math.inf if max is None else float(max))


def _gelu(x: Node, approximate: str = "none") -> Node:
    if approximate != "none":
        raise Untraceable("the approximate gelu")
    return library.gelu(x)


def _softplus(x: Node, beta: float = 1.0, threshold: float = 20.0) -> Node:
    if beta != 1:
        raise Untraceable("softplus with a beta")
    return library.softplus(x)


# ------------------------------------------------------------------------------------------- the places


def _view(tracer: Tracer, x: Symbol, *shape: Any) -> Symbol:
    """[E, ...] as another [E, ...]."""
    sizes = list(shape[0] if len(shape) == 1 and isinstance(shape[0], list | tuple | torch.Size) else shape)
    if not x.on_rows:
        raise Untraceable("a view of a tensor without edges")
    total = math.prod(x.sizes)
    if sizes[:1] == [ROWS] or (sizes[:1] == [-1] and all(isinstance(s, int) and s >= 0 for s in sizes[1:])):
        rest = sizes[1:]
    else:
        raise Untraceable("a view that mixes edges and features")
    if any(not isinstance(s, int) for s in rest):
        raise Untraceable("a view that mixes edges and features")
    if -1 in rest:
        known = math.prod(s for s in rest if s != -1)
        rest[rest.index(-1)] = total // max(known, 1)
    if math.prod(rest) != total:
        raise Untraceable("a view that mixes edges and features")
    order = [a for a in x.axes if a is not None]
    node = build.transpose(x.node, order) if order != list(x.node.type.names) else x.node
    old = list(node.dims)
    new = [Dim(tracer.fresh(), s) for s in rest if s != 1]
    if [d.size for d in new] == [d.size for d in old]:
        new = old
    else:
        node = build.reshape_like(node, Type(node.domain, tuple(new), node.kind))
    names = iter(d.name for d in new)
    return Symbol(tracer, node, tuple(None if s == 1 else next(names) for s in rest))


def _flatten(tracer: Tracer, x: Symbol, start_dim: int = 0, end_dim: int = -1) -> Symbol:
    first, last = x.axis(start_dim), x.axis(end_dim)
    sizes = [*x.sizes[:first], math.prod(x.sizes[first : last + 1]), *x.sizes[last + 1 :]]
    return _view(tracer, x, ROWS, *sizes)


def _unsqueeze(tracer: Tracer, x: Symbol, dim: int) -> Symbol:
    place = (dim + x.ndim + 1 if dim < 0 else dim) - x.on_rows
    if place < 0:
        raise Untraceable("a place before the edges")
    return x.with_axes(x.node, (*x.axes[:place], None, *x.axes[place:]))


def _squeeze(tracer: Tracer, x: Symbol, dim: int | None = None) -> Symbol:
    if dim is None:
        raise Untraceable("squeeze without a dim, which depends on the number of edges")
    place = x.axis(dim)
    return x if x.axes[place] is not None else x.with_axes(x.node, (*x.axes[:place], *x.axes[place + 1 :]))


def _transpose(tracer: Tracer, x: Symbol, a: int, b: int) -> Symbol:
    axes, i, j = list(x.axes), x.axis(a), x.axis(b)
    axes[i], axes[j] = axes[j], axes[i]
    return x.with_axes(x.node, axes)


def _getitem(tracer: Tracer, x: Symbol, index: Any) -> Symbol:
    """``x[:, k]``, ``x[..., a:b]``, ``x[:, None]``."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        given = sum(p is not None for p in parts) - 1
        parts[at : at + 1] = [slice(None)] * (x.ndim - given)
    if x.on_rows:
        if not parts or parts[0] != slice(None):
            raise Untraceable("an index into the edges")
        parts = parts[1:]
    node, place = x.node, 0
    axes: list[str | None] = []
    for part in [*parts, *[slice(None)] * (len(x.axes) - sum(p is not None for p in parts))]:
        if part is None:
            axes.append(None)
            continue
        axis = x.axes[place]
        place += 1
        if part == slice(None):
            axes.append(axis)
        elif isinstance(part, int) and axis is not None:
            node = build.select(node, axis, part % node.type.dim(axis).size)
        elif isinstance(part, slice) and axis is not None and part.step in (None, 1):
            start, stop, _ = part.indices(node.type.dim(axis).size)
            if stop - start == 1:
                node = build.select(node, axis, start)
                axes.append(None)
                continue
            new = Dim(tracer.fresh(), stop - start)
            node = build.slice_dim(node, axis, start, new)
            axes.append(new.name)
        else:
            raise Untraceable("this index")
    return Symbol(tracer, node, tuple(axes))


def _cat(tracer: Tracer, tensors: Sequence[Any], dim: int = 0) -> Symbol:
    parts = [tracer.of(t) for t in tensors]
    place = parts[0].axis(dim)
    nodes: list[Node] = []
    along: list[str] = []
    first = parts[0]
    for part in parts:
        if part.on_rows != first.on_rows or len(part.axes) != len(first.axes):
            raise Untraceable("cat of tensors of different dims")
        node, axis = part.node, part.axes[place]
        names = {
            a: b for k, (a, b) in enumerate(zip(part.axes, first.axes, strict=True))
            if k != place and a is not None and b is not None and a != b
        }  # fmt: skip
        others = [axes[:place] + axes[place + 1 :] for axes in (part.axes, first.axes)]
        if [a is None for a in others[0]] != [a is None for a in others[1]]:
            raise Untraceable("cat of tensors of different sizes")
        if axis is not None and axis in names.values():
            fresh = tracer.fresh()
            node, axis = build.rename(node, {axis: fresh}), fresh
        node = build.rename(node, names) if names else node
        if axis is None:
            one = Dim(tracer.fresh(), 1)
            node, axis = build.reshape_like(node, Type(node.domain, (*node.dims, one), node.kind)), one.name
        nodes.append(node)
        along.append(axis)
    new = Dim(tracer.fresh(), sum(n.type.dim(a).size for n, a in zip(nodes, along, strict=True)))
    joined = build.cat(nodes, along, new)
    return Symbol(tracer, joined, tuple(new.name if k == place else a for k, a in enumerate(first.axes)))


def _stack_of(x: Symbol, dim: Any) -> list[int]:
    dims = list(range(-len(x.axes), 0)) if dim is None and not x.on_rows else dim
    if dims is None:
        raise Untraceable("a reduction over the edges")
    return [x.axis(d) for d in (dims if isinstance(dims, list | tuple) else [dims])]


def _over(reduce: Callable[[Node, list[str]], Node]) -> Callable[..., Symbol]:
    def apply(tracer: Tracer, x: Symbol, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Symbol:
        if kwargs:
            raise Untraceable(f"a reduction with {', '.join(kwargs)}")
        places = _stack_of(x, dim)
        names = [a for k, a in enumerate(x.axes) if k in places and a is not None]
        node = reduce(x.node, names) if names else x.node
        axes = [None if k in places else a for k, a in enumerate(x.axes) if keepdim or k not in places]
        return Symbol(tracer, node, tuple(axes))

    return apply


def _norm(tracer: Tracer, x: Symbol, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Symbol:
    if p not in (2, 2.0, "fro"):
        raise Untraceable("a norm other than the Euclidean one")
    return _over(library.dim_norm)(tracer, x, dim, keepdim)


def _softmax(tracer: Tracer, x: Symbol, dim: int | None = None, **kwargs: Any) -> Symbol:
    if dim is None:
        raise Untraceable("softmax without a dim")
    name = x.axes[x.axis(dim)]
    return x.with_axes(library.dim_softmax(x.node, [name]) if name else x.node * 0.0 + 1.0, x.axes)


def _linear(tracer: Tracer, x: Any, weight: Any, bias: Any = None) -> Symbol:
    """x W^T + b over the last place."""
    x, w = tracer.of(x), tracer.of(weight)
    y = _matmul(tracer, x, w.with_axes(w.node, (w.axes[1], w.axes[0])))
    return y if bias is None else FUNCTIONS["add"](tracer, y, bias)


def _matmul(tracer: Tracer, a: Any, b: Any) -> Symbol:
    a, b = tracer.of(a), tracer.of(b)
    if b.on_rows or len(b.axes) != 2 or not a.on_rows or not a.axes:
        raise Untraceable("a product that is not with a matrix of the layer")
    inner, outer = b.axes
    last = a.axes[-1]
    node = b.node
    if last is None or inner is None:
        if a.sizes[-1] != b.sizes[0]:
            raise Untraceable("a product of matrices of sizes that do not fit")
        made = _aligned(tracer, [a.with_axes(a.node, (*a.axes[:-1], None)), b.with_axes(node, (outer,))])
        return Symbol(tracer, made[0][0] * made[0][1], made[1])
    name = tracer.fresh()
    names = {inner: last, **({outer: name} if outer is not None else {})}
    y = build.contract([a.node, build.rename(node, names)], [last])
    return Symbol(tracer, y, (*a.axes[:-1], None if outer is None else name))


def _dropout(tracer: Tracer, x: Symbol, p: float = 0.5, training: bool = True, inplace: bool = False) -> Symbol:
    """By Philox, as in every program: the mask is drawn again in the backward pass."""
    if not training or p == 0:
        return x
    if p == 1:
        return x.with_axes(x.node * 0.0, x.axes)
    tracer.uses_seed = True
    tracer.salts += 1
    seed = build.load("seed", Type(Domain.GLOBAL, (), Kind.INT), "seed")
    drawn = build.random(seed, tracer.salts, x.node.domain, x.node.dims)
    return x.with_axes(library.where(drawn < float(p), 0.0, x.node * (1.0 / (1.0 - p))), x.axes)


def segment_softmax(x: Symbol) -> Symbol:
    """The softmax over the edges into each node."""
    return x.with_axes(library.segment_softmax(x.node, "i", x.tracer.rows), x.axes)


def _same(tracer: Tracer, x: Symbol, *args: Any, **kwargs: Any) -> Symbol:
    return x


_UNARY: dict[str, Callable[..., Node]] = {
    **{name: functools.partial(op, name) for name in (
        "abs", "exp", "log", "log1p", "sqrt", "rsqrt", "sin", "cos", "tanh", "sigmoid", "relu", "erf",
    )},
    "neg": lambda x: -x,
    "square": library.square,
    "elu": lambda x, alpha=1.0: library.elu(x, float(alpha)),
    "selu": library.selu,
    "gelu": _gelu,
    "silu": library.silu,
    "softplus": _softplus,
    "logsigmoid": library.log_sigmoid,
    "leaky_relu": lambda x, negative_slope=0.01: op("leaky_relu", x, float(negative_slope)),
    "clamp": _clamp,
    "reciprocal": lambda x: 1.0 / x,
}  # fmt: skip

_BINARY: dict[str, Callable[..., Node]] = {
    "add": _add(1.0),
    "sub": _add(-1.0),
    "mul": lambda a, b: a * b,
    "multiply": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "truediv": lambda a, b: a / b,
    "true_divide": lambda a, b: a / b,
    "pow": lambda a, b: op("pow", a, b),
    "maximum": lambda a, b: op("maximum", a, b),
    "minimum": lambda a, b: op("minimum", a, b),
    **{name: functools.partial(op, name) for name in ("gt", "ge", "lt", "le", "eq", "ne")},
}  # fmt: skip

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _elementwise(make, 1) for name, make in _UNARY.items()},
    **{name: _elementwise(make, 2) for name, make in _BINARY.items()},
    "where": _elementwise(library.where, 3),
    "cat": _cat,
    "concat": _cat,
    "dropout": _dropout,
    "flatten": _flatten,
    "linear": _linear,
    "logsumexp": _over(library.dim_logsumexp),
    "matmul": _matmul,
    "mean": _over(library.dim_mean),
    "norm": _norm,
    "reshape": _view,
    "softmax": _softmax,
    "squeeze": _squeeze,
    "sum": _over(build.sum_dims),
    "transpose": _transpose,
    "unsqueeze": _unsqueeze,
    "view": _view,
    "float": _same,
    "to": _same,
}
for _name in ("add", "sub", "mul", "truediv", "pow"):
    FUNCTIONS[f"r{_name}"] = _reversed(FUNCTIONS[_name])


def _operator(name: str) -> Callable[..., Any]:
    def apply(self: Symbol, *args: Any) -> Any:
        return Symbol.__torch_function__(types.SimpleNamespace(__name__=name), (), (self, *args))

    return apply


for _name in "add radd sub rsub mul rmul truediv rtruediv pow rpow matmul neg abs gt ge lt le".split():
    setattr(Symbol, f"__{_name}__", _operator(_name))


# ------------------------------------------------------------------------------------------ the method


def call(method: Callable[..., Any], arguments: Mapping[str, Any], replaced: Mapping[Any, Any]) -> Any:
    """Call a method with stand-ins; functions that it knows by a global or an outer name are replaced by others.

    Raises :class:`Untraceable` for whatever goes wrong: the method then runs as it is, with its own errors.
    """
    function = getattr(method, "__func__", None)
    if function is None or not isinstance(function, types.FunctionType):
        raise Untraceable("a method that is not written in Python")
    known = {name: _replacement(value, replaced) for name, value in function.__globals__.items()}
    cells = tuple(types.CellType(_replacement(c.cell_contents, replaced)) for c in function.__closure__ or ())
    twin = types.FunctionType(function.__code__, known, function.__name__, function.__defaults__, cells)
    twin.__kwdefaults__ = function.__kwdefaults__
    try:
        return twin(method.__self__, **arguments)  # type: ignore[attr-defined]
    except Untraceable:
        raise
    except Exception as error:  # whatever a user's method does with what is no tensor
        raise Untraceable(f"{type(error).__name__}: {error}") from error


def _replacement(value: Any, replaced: Mapping[Any, Any]) -> Any:
    return replaced.get(value, value) if isinstance(value, types.FunctionType) else value
