"""Torch modules in a program: read into IR when made of known layers, else called as they are.

A module that is read is differentiated, hoisted and fused like any other expression; one that is called runs
on whole tensors between kernels. torch is imported when a module is at hand, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gdsl.ir import build, library
from gdsl.ir.build import IRError
from gdsl.ir.library import op
from gdsl.ir.node import Node
from gdsl.ir.types import Dim, Domain, Kind, Type


@dataclass(frozen=True)
class ModuleParam:
    """A parameter or buffer that a module brings. ``name`` is its place in the layer's state."""

    name: str
    type: Type
    buffer: bool


@dataclass
class Reader:
    """Collects what a module reads while its layers are applied."""

    name: str
    dropout: Callable[[Node, float], Node]
    params: dict[str, ModuleParam] = field(default_factory=dict)

    def inside(self, name: str) -> Reader:
        """For a part of the module: what it reads is collected here too."""
        return replace(self, name=name)

    def load(self, path: str, dims: tuple[Dim, ...], buffer: bool = False) -> Node:
        type = Type(Domain.GLOBAL, dims)
        self.params[path] = ModuleParam(path, type, buffer)
        return build.load(path, type, "param")


class Unreadable(Exception):
    """This module, or this use of it, has no form in the IR."""


def apply(
    name: str, module: Any, inputs: Sequence[Node], dropout: Callable[[Node, float], Node]
) -> tuple[Node, dict[str, ModuleParam]]:
    """``module(*inputs)``, and the parameters that the program now reads itself."""
    real = [build.to_float(x) for x in inputs]
    if module is None:  # checked without one: it is taken to keep the dims
        return build.call(name, real, Type(build.join_domains(real), real[0].dims), kind="map"), {}
    reader = Reader(name, dropout)
    try:
        if len(inputs) == 1 and inputs[0].dims:
            return read(reader, module, real[0]), reader.params
        if len(inputs) in (2, 3):
            return read_cell(reader, module, *real), reader.params
    except Unreadable:
        pass
    shape, inputs = _try(name, module, inputs)
    x = real[0]
    dims = x.dims if shape == x.type.shape and _keeps_features(module) else _new_dims(name, x, shape)
    domain = build.join_domains(inputs)
    if domain is not Domain.GLOBAL:
        return build.call(name, _on_rows(inputs, domain), Type(domain, dims), kind="map"), {}
    # What is the same everywhere is one row.
    one = Dim(f"{name}.row", 1)
    rows = [build.reshape_like(x, x.type.with_dims((one, *x.dims))) for x in inputs]
    return build.select(build.call(name, rows, Type(domain, (one, *dims)), kind="map"), one.name, 0), {}


def _on_rows(values: Sequence[Node], domain: Domain) -> list[Node]:
    """Values as a module takes them: with rows, also of what is the same for all."""
    return [build.spread(x, domain) if x.domain is Domain.GLOBAL else x for x in values]


def aggregate(
    name: str, module: Any, inputs: Sequence[Node], place: tuple[str, Domain]
) -> tuple[Node, dict[str, ModuleParam]]:
    """A module that reduces the edges of each node at an end (``place``), and the parameters read out of it.

    One with a method ``read_aggregation`` says itself what it computes, as the modules of ``gdsl.nn.aggr`` do; another
    is called with the edge values and the node of each edge.
    """
    end, rows = place
    real = [build.to_float(x) for x in inputs]
    if module is None:
        return build.call(name, real, Type(rows, real[0].dims), kind="aggregate", end=end), {}
    if len(inputs) == 1:
        reader = Reader(name, no_dropout)
        try:
            return read_aggregation(reader, name, module, real[0], end, rows), reader.params
        except Unreadable:
            pass
    # The dims of a result of the same shape keep their names.
    shape, inputs = _try(name, module, inputs, aggregates=True)
    dims = real[0].dims if shape == real[0].type.shape else _new_dims(name, real[0], shape)
    inputs = _on_rows(inputs, build.join_domains(inputs))
    return build.call(name, inputs, Type(rows, dims), kind="aggregate", end=end), {}


def read_aggregation(reader: Reader, path: str, module: Any, m: Node, end: str, rows: Domain) -> Node:
    """What a module says with ``read_aggregation`` that it computes. Raises :class:`Unreadable` where it must run."""
    from gdsl.language.parts import class_of, must_run

    if must_run(module) or not _says_itself(class_of(module)):
        raise Unreadable
    result: Node = module.read_aggregation(reader, path, m, end, rows)
    return result


def _says_itself(kind: type) -> bool:
    """Whether no ``forward`` was written since ``read_aggregation`` was: a subclass may compute something else."""
    for base in kind.__mro__:
        if "read_aggregation" in base.__dict__:
            return True
        if "forward" in base.__dict__:
            return False
    return False


def no_dropout(x: Node, p: float) -> Node:
    """Of a module that draws where no program does."""
    raise Unreadable


# ------------------------------------------------------------------------------------ reading


def _leaves(path: str, module: Any) -> Iterator[tuple[str, Any]]:
    """The layers of nested Sequentials, and of modules that list theirs, each with its path. One that is there twice
    comes twice.
    """
    from torch import nn

    from gdsl.language.parts import class_of, must_run

    if not isinstance(module, nn.Module) or must_run(module):
        raise Unreadable
    listed = class_of(module).__dict__.get("read_parts")  # of this very class: a subclass may do anything
    if class_of(module) is nn.Sequential or listed is not None:
        for key, child in module._modules.items() if listed is None else listed(module):
            yield from _leaves(f"{path}.{key}", child)
    else:
        yield path, module


def read(reader: Reader, module: Any, x: Node) -> Node:
    """``module(x)`` in the IR. Raises :class:`Unreadable` for a module with a part that has no form in it."""
    from torch import nn

    from gdsl.language.parts import class_of, has_plain_options, read_as

    leaves = list(_leaves(reader.name, module))
    table = _table()
    # A function that a class has for itself; of this very class, since a subclass may do anything.
    own = [class_of(leaf).__dict__.get("read_value") for _, leaf in leaves]
    for (_, leaf), function in zip(leaves, own, strict=True):
        if function is None and not (read_as(leaf) in table and has_plain_options(leaf)):
            raise Unreadable

    linear = [k for k, (_, leaf) in enumerate(leaves) if read_as(leaf) is nn.Linear]
    for k, (path, leaf) in enumerate(leaves):
        out = f"{reader.name}.out" if linear and k == linear[-1] else f"{path}.out"
        function = own[k]
        x = table[read_as(leaf)](reader, path, leaf, x, out) if function is None else function(leaf, x)
    return x


def read_cell(reader: Reader, cell: Any, x: Node, *states: Node) -> Node:
    """``cell(x, h)``, a step of a recurrence, or ``cell(x, h, c)``, of an LSTM, in the IR. Raises :class:`Unreadable`
    for any other module.
    """
    from torch import nn

    from gdsl.language.parts import has_plain_options, must_run, read_as

    steps = _cells()
    if not isinstance(cell, nn.Module) or must_run(cell) or read_as(cell) not in steps or not has_plain_options(cell):
        raise Unreadable
    count, step = steps[read_as(cell)]
    if len(states) != count or any(len(value.dims) != 1 for value in (x, *states)):
        raise Unreadable
    taken = [(x, cell.input_size, "features"), *((h, cell.hidden_size, "numbers of the state") for h in states)]
    for value, size, what in taken:
        if value.dims[0].size != size:
            message = f"module `{reader.name}` takes {size} {what}, and dim `{value.dims[0].name}` has"
            raise IRError(f"{message} {value.dims[0].size}")
    out = f"{reader.name}.out"
    return step(reader, cell, x, *(build.rename(h, {h.dims[0].name: out}) for h in states))


def _gates(reader: Reader, cell: Any, x: Node, kind: str, count: int) -> list[Node]:
    """``count`` linear maps of x, which lie in one weight: the rows of each make a value with the dim ``out``."""
    path, last, size = reader.name, x.dims[0], cell.hidden_size
    rows, inside = Dim(f"{path}.gates", count * size), Dim(f"{path}.in", last.size)
    weight = build.rename(reader.load(f"{path}.weight_{kind}", (rows, inside)), {inside.name: last.name})
    y = build.contract([x, weight], [last.name], order=[rows.name])
    if getattr(cell, f"bias_{kind}") is not None:
        y = y + reader.load(f"{path}.bias_{kind}", (rows,))
    out = Dim(f"{path}.out", size)
    return [build.slice_dim(y, rows.name, k * size, out) for k in range(count)]


def _gru_cell(reader: Reader, cell: Any, x: Node, h: Node) -> Node:
    """Cho et al., 2014, as torch has it: the reset gate is on the mapped state."""
    own, back = _gates(reader, cell, x, "ih", 3), _gates(reader, cell, h, "hh", 3)
    reset, update = (op("sigmoid", own[k] + back[k]) for k in (0, 1))
    new = op("tanh", own[2] + reset * back[2])
    return (1.0 - update) * new + update * h


def _lstm_cell(reader: Reader, cell: Any, x: Node, h: Node, c: Node) -> Node:
    """Hochreiter and Schmidhuber, 1997, with a forget gate: the state and the cell, in a first dim of two places."""
    own, back = _gates(reader, cell, x, "ih", 4), _gates(reader, cell, h, "hh", 4)
    keep_new, keep_old, new, shown = (a + b for a, b in zip(own, back, strict=True))
    c = op("sigmoid", keep_old) * c + op("sigmoid", keep_new) * op("tanh", new)
    both = [op("sigmoid", shown) * op("tanh", c), c]
    return library.side_by_side(both, Dim(f"{reader.name}.states", 2), first=True)


def _rnn_cell(reader: Reader, cell: Any, x: Node, h: Node) -> Node:
    (own,), (back,) = _gates(reader, cell, x, "ih", 1), _gates(reader, cell, h, "hh", 1)
    return op(cell.nonlinearity, own + back)


def _linear(reader: Reader, path: str, m: Any, x: Node, out: str) -> Node:
    """x W^T + b, over the last dim. The weight takes the name of that dim, so that x is left as it is."""
    last = x.dims[-1]
    if last.size != m.in_features:
        raise IRError(f"module `{path}` takes {m.in_features} features, and dim `{last.name}` has {last.size}")
    weight = reader.load(f"{path}.weight", (Dim(f"{path}.out", m.out_features), Dim(f"{path}.in", last.size)))
    if out in x.type.names:  # the module reads its own result
        x = build.rename(x, {out: f"{path}.in"})
        last = x.dims[-1] if x.dims[-1].name == f"{path}.in" else last
    weight = build.rename(weight, {f"{path}.out": out, f"{path}.in": last.name})
    y = build.contract([x, weight], [last.name], order=[*x.type.names[:-1], out])
    if m.bias is not None:
        bias = reader.load(f"{path}.bias", (Dim(f"{path}.out", m.out_features),))
        y = y + build.rename(bias, {f"{path}.out": out})
    return y


def _per_feature(reader: Reader, path: str, x: Node, name: str, buffer: bool = False) -> Node:
    """A vector over the last dim of x."""
    last = x.dims[-1]
    vector = reader.load(f"{path}.{name}", (Dim(f"{path}.features", last.size),), buffer)
    return build.rename(vector, {f"{path}.features": last.name})


def _batch_norm(reader: Reader, path: str, m: Any, x: Node, out: str) -> Node:
    """(x - mean) / sqrt(var + eps) * weight + bias, with the running mean and variance."""
    if m.training or m.running_mean is None or len(x.dims) != 1:
        raise Unreadable
    mean = _per_feature(reader, path, x, "running_mean", True)
    var = _per_feature(reader, path, x, "running_var", True)
    y = (x - mean) * op("rsqrt", var + float(m.eps))
    return _scaled(reader, path, m, y)


def _layer_norm(reader: Reader, path: str, m: Any, x: Node, out: str) -> Node:
    if tuple(m.normalized_shape) != (x.dims[-1].size,):
        raise Unreadable
    dims = [x.dims[-1].name]
    y = (x - library.dim_mean(x, dims)) * op("rsqrt", library.dim_var(x, dims) + float(m.eps))
    return _scaled(reader, path, m, y)


def _scaled(reader: Reader, path: str, m: Any, y: Node) -> Node:
    if m.weight is not None:
        y = y * _per_feature(reader, path, y, "weight")
    if m.bias is not None:
        y = y + _per_feature(reader, path, y, "bias")
    return y


def _gelu(reader: Reader, path: str, m: Any, x: Node, out: str) -> Node:
    if m.approximate != "none":
        raise Unreadable
    return library.gelu(x)


def _softplus(reader: Reader, path: str, m: Any, x: Node, out: str) -> Node:
    if m.beta == 0:
        raise Unreadable
    beta = float(m.beta)
    scaled = x if beta == 1 else x * beta
    y = library.softplus(scaled)
    return library.where(scaled > float(m.threshold), x, y if beta == 1 else y * (1.0 / beta))


def _dropout(reader: Reader, path: str, m: Any, x: Node, out: str) -> Node:
    return reader.dropout(x, float(m.p)) if m.training and m.p > 0 else x


def _simple(function: Callable[[Node], Node]) -> Callable[..., Node]:
    return lambda reader, path, m, x, out: function(x)


def _table() -> dict[type, Callable[..., Node]]:
    """The layers that can be read, by their exact class (``parts.read_as``), since a subclass may do anything."""
    from torch import nn

    return {
        nn.Linear: _linear,
        nn.BatchNorm1d: _batch_norm,
        nn.LayerNorm: _layer_norm,
        nn.Dropout: _dropout,
        nn.GELU: _gelu,
        nn.Softplus: _softplus,
        nn.Identity: _simple(lambda x: x),
        nn.ReLU: _simple(lambda x: op("relu", x)),
        nn.Tanh: _simple(lambda x: op("tanh", x)),
        nn.Sigmoid: _simple(lambda x: op("sigmoid", x)),
        nn.SiLU: _simple(library.silu),
        nn.LeakyReLU: lambda reader, path, m, x, out: op("leaky_relu", x, float(m.negative_slope)),
        nn.ELU: lambda reader, path, m, x, out: library.elu(x, float(m.alpha)),
    }


def _cells() -> dict[type, tuple[int, Callable[..., Node]]]:
    """The steps of recurrences that can be read, by their exact class, with how many values a state is."""
    from torch import nn

    return {nn.GRUCell: (1, _gru_cell), nn.LSTMCell: (2, _lstm_cell), nn.RNNCell: (1, _rnn_cell)}


# ------------------------------------------------------------------------------------- calling


def _try(
    name: str, module: Any, inputs: Sequence[Node], aggregates: bool = False
) -> tuple[tuple[int, ...], Sequence[Node]]:
    """The shape of a row of the result, and the inputs as the module takes them, from a run on two rows of zeros.

    Integers stay what they are where the module takes them, as ``nn.Embedding`` does.
    """
    import torch

    from gdsl.language.parts import try_rows

    real = [build.to_float(x) for x in inputs]
    whole = [x if x.kind is Kind.INT else r for x, r in zip(inputs, real, strict=True)]
    failed: Exception | None = None
    for given in (whole, real) if whole != real else (real,):
        try:
            with torch.no_grad():
                result = try_rows(module, [(x.type.shape, x.kind is Kind.FLOAT) for x in given], aggregates)
        except Exception as error:  # any mistake of the user's module: shown with its words
            failed = error
            continue
        shape = tuple(getattr(result, "shape", ()))
        if not isinstance(result, torch.Tensor) or shape[:1] != (2,):
            raise IRError(f"module `{name}` must give a tensor with one row for each row it takes")
        if result.is_floating_point() or given is real:
            return shape[1:], given
    types = ", ".join(str(x.type) for x in inputs)
    raise IRError(f"module `{name}` does not take {types}: {failed}") from failed


def _new_dims(name: str, x: Node, shape: tuple[int, ...]) -> tuple[Dim, ...]:
    dims = [d if k < len(x.dims) and d.size == size else Dim(f"{name}.out{k}", size) for k, (d, size) in
            enumerate(zip([*x.dims, *[Dim("", -1)] * len(shape)], shape, strict=False))]  # fmt: skip
    if dims:
        dims[-1] = Dim(f"{name}.out", shape[-1])
    return tuple(dims)


def _keeps_features(module: Any) -> bool:
    """Whether nothing but elementwise layers and norms is inside: then a dim keeps its name, as when read."""
    from torch import nn

    from gdsl.language.parts import read_as

    known = {*_table(), nn.Sequential} - {nn.Linear}
    return all(read_as(m) in known for m in module.modules())
