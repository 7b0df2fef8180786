"""Initial values of parameters, as ``param w[...] ~ glorot`` names them.

Fans are read off the program: the dims over which a product with the parameter sums are its inputs, those after
them its outputs. What comes before, or is indexed (one slice a relation, a hop, a stack), counts as neither. So a
weight ``[in, heads, out]`` used as ``x @ weight`` starts as the matrix ``[in, heads * out]`` would, and each slice of
``[relations, in, out]`` as ``[in, out]``. Where the sum is over the last dims, as in ``h @ att``, the dims before it
are the outputs. A parameter that no ``@`` reads takes its last two dims.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gdsl.errors import InputError
from gdsl.ir.node import Node
from gdsl.ir.ops import of


def fans(param: Node, read_by: Mapping[Node, Sequence[Node]]) -> tuple[int, int]:
    """(fan in, fan out) of a parameter in a program, whose nodes and their readers are given: see
    :func:`gdsl.ir.node.users`."""
    sizes = [d.size for d in param.dims]
    for reader, value in _products(param, read_by):
        own, read = ({d.name for d in n.dims} for n in (param, value))
        # In the order of the declaration, where the names are still the same: a transpose changes no fan.
        dims = [d for d in param.dims if d.name in read] if read <= own else list(value.dims)
        summed = [k for k, d in enumerate(dims) if d.name in reader.attrs.reduce]
        if summed:
            others = [k for k in range(len(dims)) if k not in summed]
            after = [k for k in others if k > summed[0]]
            return math.prod(dims[k].size for k in summed), math.prod(dims[k].size for k in after or others)
    if len(sizes) < 2:
        return math.prod(sizes), math.prod(sizes)
    return sizes[-2], sizes[-1]


def _products(param: Node, read_by: Mapping[Node, Sequence[Node]]) -> list[tuple[Node, Node]]:
    """Contractions that read the parameter, possibly sliced or reshaped, with the operand that they read."""
    views = {param: None}  # in order, so that the same program always starts the same
    found = []
    for node in read_by:
        if (of(node).view or node.op == "index") and node.inputs[0] in views:
            views[node] = None
    for view in views:
        found += [(reader, view) for reader in read_by.get(view, ()) if reader.op == "contract"]
    return found


def fill(tensor: Tensor, name: str, arguments: Sequence[float], fan_in: int, fan_out: int) -> None:
    """Fill a parameter in place. ``name`` is one of the language's initialisers."""
    with torch.no_grad():
        _RULES[name](tensor, tuple(arguments), fan_in, fan_out)


def _uniform(tensor: Tensor, bound: float) -> None:
    tensor.uniform_(-bound, bound)


def _glorot(t: Tensor, args: tuple[float, ...], fan_in: int, fan_out: int) -> None:
    """Glorot and Bengio, "Understanding the difficulty of training deep feedforward networks", 2010."""
    gain = args[0] if args else 1.0
    _uniform(t, gain * math.sqrt(6.0 / max(fan_in + fan_out, 1)))


def _glorot_normal(t: Tensor, args: tuple[float, ...], fan_in: int, fan_out: int) -> None:
    gain = args[0] if args else 1.0
    t.normal_(0.0, gain * math.sqrt(2.0 / max(fan_in + fan_out, 1)))


def _kaiming_uniform(t: Tensor, args: tuple[float, ...], fan_in: int, fan_out: int) -> None:
    """He et al., "Delving deep into rectifiers", 2015; arguments: fan in, slope of the leaky relu."""
    fan, slope = (args[0] if args else fan_in), (args[1] if len(args) > 1 else 0.0)
    _uniform(t, math.sqrt(6.0 / ((1 + slope**2) * max(fan, 1))))


def _kaiming_normal(t: Tensor, args: tuple[float, ...], fan_in: int, fan_out: int) -> None:
    fan, slope = (args[0] if args else fan_in), (args[1] if len(args) > 1 else 0.0)
    t.normal_(0.0, math.sqrt(2.0 / ((1 + slope**2) * max(fan, 1))))


def _linear(t: Tensor, args: tuple[float, ...], fan_in: int, fan_out: int) -> None:
    """As torch.nn.Linear, for weights and biases alike; the argument is the fan in."""
    _uniform(t, 1.0 / math.sqrt(max(args[0] if args else fan_in, 1)))


def _orthogonal(t: Tensor, args: tuple[float, ...], fan_in: int, fan_out: int) -> None:
    torch.nn.init.orthogonal_(t, args[0] if args else 1.0)


def _uniform_between(t: Tensor, args: tuple[float, ...], fan_in: int, fan_out: int) -> None:
    """Arguments: the bounds, or one for both signs; from 0 to 1 without."""
    low, high = args if len(args) == 2 else (-args[0], args[0]) if args else (0.0, 1.0)
    t.uniform_(low, high)


def _normal(t: Tensor, args: tuple[float, ...], fan_in: int, fan_out: int) -> None:
    """Arguments: mean and deviation, or the deviation; 0 and 1 without."""
    mean, deviation = args if len(args) == 2 else (0.0, args[0] if args else 1.0)
    t.normal_(mean, deviation)


def _eye(t: Tensor, args: tuple[float, ...], fan_in: int, fan_out: int) -> None:
    """The identity in the last two dims, for each place in the others."""
    if t.dim() < 2:
        raise InputError(f"`eye` is for params of two dims or more, and this one has {t.dim()}")
    t.copy_(torch.eye(*t.shape[-2:]).expand_as(t))


def _linspace(t: Tensor, args: tuple[float, ...], fan_in: int, fan_out: int) -> None:
    """From the first argument to the second along the last dim, for each place in the others."""
    t.copy_(torch.linspace(args[0], args[1], t.shape[-1], dtype=torch.float64).expand_as(t))


def _arange(t: Tensor, args: tuple[float, ...], fan_in: int, fan_out: int) -> None:
    """0, 1, 2, ... along the last dim; arguments: the first number and the step."""
    start, step = (args[0] if args else 0.0), (args[1] if len(args) > 1 else 1.0)
    t.copy_((start + step * torch.arange(t.shape[-1], dtype=torch.float64)).expand_as(t))


def _values(t: Tensor, args: tuple[float, ...], fan_in: int, fan_out: int) -> None:
    t.copy_(torch.tensor(args, dtype=torch.float64).view_as(t))


_RULES: dict[str, Callable[[Tensor, tuple[float, ...], int, int], object]] = {
    "zeros": lambda t, args, fan_in, fan_out: t.zero_(),
    "ones": lambda t, args, fan_in, fan_out: t.fill_(1.0),
    "constant": lambda t, args, fan_in, fan_out: t.fill_(args[0]),
    "glorot": _glorot,
    "glorot_normal": _glorot_normal,
    "kaiming_uniform": _kaiming_uniform,
    "kaiming_normal": _kaiming_normal,
    "linear": _linear,
    "uniform": _uniform_between,
    "normal": _normal,
    "orthogonal": _orthogonal,
    "eye": _eye,
    "linspace": _linspace,
    "arange": _arange,
    "values": _values,
}
