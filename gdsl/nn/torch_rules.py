"""Which rule of :mod:`gdsl.nn.symbolic` or :mod:`gdsl.nn.places` reads which function of torch: by the function itself,
not by its name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gdsl.ir import build, library
from gdsl.ir.library import op
from gdsl.ir.node import Node
from gdsl.nn import places
from gdsl.nn import symbolic as sym
from gdsl.nn.symbolic import FreshNames, TensorValue, Untraceable


@dataclass(frozen=True)
class TorchRule:
    """How one function of torch is read.

    apply:   (names, *the function's arguments) -> value, or a tuple of values
    beside:  tensors of the layer stand beside those of the edges, and may have a row for each edge
    result:  "new"; "view" of the first argument; "view or same" where torch may give the argument itself; "in place"
    counts:  whether the number of edges decides more than the number of rows
    draws:   whether it draws random numbers
    inplace: whether it has an argument of that name, which is not handed to ``apply``
    """

    apply: Callable[..., Any]
    beside: bool = True
    result: str = "new"
    counts: bool = False
    draws: bool = False
    inplace: bool = False


_UNARY: dict[str, Callable[..., Node]] = {
    **{name: functools.partial(lambda name, x: op(name, x), name) for name in (
        "abs", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "sin", "cos", "tanh", "sigmoid", "erf",
    )},
    "neg": lambda x: -x,
    "square": library.square,
    "clamp": sym.clamp,
    "clip": sym.clamp,
    "reciprocal": lambda x: 1.0 / x,
}  # fmt: skip

# Those with an argument ``inplace`` in torch.nn.functional.
_ACTIVATIONS: dict[str, Callable[..., Node]] = {
    "relu": lambda x: op("relu", x),
    "elu": lambda x, alpha=1.0: library.elu(x, float(alpha)),
    "selu": library.selu,
    "silu": library.silu,
    "leaky_relu": lambda x, negative_slope=0.01: op("leaky_relu", x, float(negative_slope)),
}

_BINARY: dict[str, Callable[..., Node]] = {
    "add": sym.sum_of(1.0),
    "sub": sym.sum_of(-1.0),
    "subtract": sym.sum_of(-1.0),
    "mul": lambda a, b: a * b,
    "multiply": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "divide": lambda a, b: a / b,
    "true_divide": lambda a, b: a / b,
    "pow": lambda a, b: op("pow", a, b),
    "maximum": lambda a, b: op("maximum", a, b),
    "minimum": lambda a, b: op("minimum", a, b),
}

_COMPARISONS = ("gt", "ge", "lt", "le", "eq", "ne")

_rsub, _rdiv, _rpow = (sym.swapped(sym.arithmetic(_BINARY[name])) for name in ("sub", "div", "pow"))

_SHAPES: dict[str, Callable[..., Any]] = {
    "flatten": places.flatten,
    "unflatten": places.unflatten,
    "unsqueeze": places.unsqueeze,
    "squeeze": places.squeeze,
    "transpose": places.transpose,
    "swapaxes": places.transpose,
    "permute": places.permute,
    "split": places.split,
    "chunk": places.chunk,
}

# The same meaning, places and names of arguments as a function of torch and as a method.
_BOTH: dict[str, TorchRule] = {
    **{name: TorchRule(sym.function_of(make)) for name, make in _UNARY.items()},
    "relu": TorchRule(sym.function_of(_ACTIVATIONS["relu"])),
    **{name: TorchRule(sym.arithmetic(make)) for name, make in _BINARY.items()},
    **{name: TorchRule(sym.comparison(name)) for name in _COMPARISONS},
    "greater": TorchRule(sym.comparison("gt")), "greater_equal": TorchRule(sym.comparison("ge")),
    "less": TorchRule(sym.comparison("lt")), "less_equal": TorchRule(sym.comparison("le")),
    "not_equal": TorchRule(sym.comparison("ne")),
    "logical_and": TorchRule(sym.logical("and")), "logical_or": TorchRule(sym.logical("or")),
    "logical_not": TorchRule(sym.logical_not),
    "bitwise_and": TorchRule(sym.logical("and")), "bitwise_or": TorchRule(sym.logical("or")),
    "bitwise_not": TorchRule(sym.logical_not),
    "masked_fill": TorchRule(sym.masked_fill),
    **{name: TorchRule(rule, result="view") for name, rule in _SHAPES.items()},
    "reshape": TorchRule(places.view, result="view", counts=True),
    "sum": TorchRule(sym.over(build.sum_dims)),
    "mean": TorchRule(sym.over(library.dim_mean)),
    "logsumexp": TorchRule(sym.unless_none(library.dim_logsumexp, lambda x: x)),
    "norm": TorchRule(sym.norm),
    "softmax": TorchRule(lambda names, x, dim: sym.softmax(names, x, dim)),
    "log_softmax": TorchRule(lambda names, x, dim: sym.log_softmax(names, x, dim)),
    "matmul": TorchRule(sym.matmul, beside=False),
    "mm": TorchRule(lambda names, a, b, /: _matmul_of_matrices(names, a, b), beside=False),
    "detach": TorchRule(sym.detach, result="view"),
    "clone": TorchRule(sym.clone),
}  # fmt: skip


def _matmul_of_matrices(names: FreshNames, a: Any, b: Any) -> TensorValue:
    if not isinstance(a, TensorValue) or a.ndim != 2:
        raise Untraceable("a product that is not of matrices")
    return sym.matmul(names, a, b)


def _rules() -> dict[Any, TorchRule]:
    """By the function that torch hands over, so that two functions of one name are two."""
    found: dict[Any, TorchRule] = {}
    for name, rule in _BOTH.items():
        for owner in (torch, Tensor):
            if hasattr(owner, name):
                found[getattr(owner, name)] = rule
    for name in ("add", "sub", "mul", "div", "pow", "clamp", "relu", "sigmoid", "tanh", "exp", "neg", "abs", "sqrt",
                 "masked_fill"):  # fmt: skip
        rule = TorchRule(_BOTH[name].apply, result="in place")
        for owner in (torch, Tensor):
            if hasattr(owner, f"{name}_"):
                found[getattr(owner, f"{name}_")] = rule
    found[Tensor.view] = _BOTH["reshape"]
    for name, rule in {
        "__rsub__": TorchRule(_rsub), "__rtruediv__": TorchRule(_rdiv), "__rdiv__": TorchRule(_rdiv),
        "__rpow__": TorchRule(_rpow),
        "__getitem__": TorchRule(places.getitem, result="view"),
        **{f"__{n}__": _BOTH[n] for n in ("add", "sub", "mul", "pow", "matmul", "neg", "abs", *_COMPARISONS)},
        "__radd__": _BOTH["add"], "__rmul__": _BOTH["mul"], "__truediv__": _BOTH["div"],
        "__and__": _BOTH["logical_and"], "__or__": _BOTH["logical_or"], "__invert__": _BOTH["logical_not"],
    }.items():  # fmt: skip
        found[getattr(Tensor, name)] = rule
    for name in ("add", "sub", "mul", "truediv", "pow"):  # h += 1, where torch has no other name for it
        plain = _BOTH["div" if name == "truediv" else name]
        found[getattr(Tensor, f"__i{name}__")] = TorchRule(plain.apply, result="in place")
    functions: dict[Any, Callable[..., Any]] = {
        torch.cat: places.cat, torch.concat: places.cat, torch.concatenate: places.cat, torch.where: sym.where,
        F.softmax: sym.softmax, F.log_softmax: sym.log_softmax, F.normalize: sym.normalize,
        F.gelu: sym.function_of(sym.gelu), F.softplus: sym.function_of(sym.softplus),
        F.logsigmoid: sym.function_of(library.log_sigmoid),
        torch.linalg.norm: sym.vector_norm, torch.zeros_like: sym.filled(0.0), torch.ones_like: sym.filled(1.0),
        torch.rsub: _rsub,
    }  # fmt: skip
    found |= {function: TorchRule(rule) for function, rule in functions.items()}
    for name, make in _ACTIVATIONS.items():
        found[getattr(F, name)] = TorchRule(sym.function_of(make), inplace=True)
    for name in ("relu_", "elu_", "selu_", "leaky_relu_"):
        found[getattr(F, name)] = TorchRule(sym.function_of(_ACTIVATIONS[name[:-1]]), result="in place")
    layers: dict[Any, Callable[..., Any]] = {
        F.linear: sym.linear, F.layer_norm: sym.layer_norm, F.batch_norm: sym.batch_norm
    }  # fmt: skip
    found |= {function: TorchRule(rule, beside=False) for function, rule in layers.items()}
    found[F.dropout] = TorchRule(sym.dropout, result="view or same", draws=True, inplace=True)
    found[Tensor.contiguous] = TorchRule(sym.clone, result="view")
    return found


RULES: Mapping[Any, TorchRule] = _rules()
