"""The arguments of a call by the names that a program has for them."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gdsl.errors import InputError
from gdsl.language.signature import Input, Signature
from gdsl.runtime.dtypes import short
from gdsl.runtime.extremes import extremes
from gdsl.runtime.transforms import concrete


@dataclass(frozen=True)
class Bound:
    """A call's arguments by name. ``graph``: of a layer on several, these by name."""

    values: Mapping[str, Any]
    graph: Any
    batch: Tensor | None = None
    num_graphs: int | None = None


def parameters(signature: Signature) -> list[tuple[str, bool]]:
    """The call's parameters in order, each with whether it may be left out."""
    before, after = signature.before_graph, signature.after_graph
    names = [(i.name, False) for i in before if not i.optional]
    if signature.graphs:
        names += [(name, False) for name in signature.graphs]
    elif not signature.builds_graph:
        names.append(("graph", False))
    names += [(i.name, False) for i in after if not i.optional]
    names += [(i.name, True) for i in (*before, *after) if i.optional]
    if signature.batched or signature.builds_graph:
        names += [("batch", True), ("num_graphs", True)]
    return names


def call_signature(signature: Signature) -> inspect.Signature:
    """The Python signature of a layer's call."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    expected = parameters(signature)
    empty = inspect.Parameter.empty
    return inspect.Signature([inspect.Parameter(n, kind, default=None if opt else empty) for n, opt in expected])


def bind(signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Bound:
    """Match positional and keyword arguments with the layer's inputs."""
    expected = parameters(signature)
    names = [name for name, _ in expected]
    flat = spread_pair(signature, args)
    usage = f"{signature.name} is called as layer({', '.join(n + ('=None' if opt else '') for n, opt in expected)})"
    if len(flat) > len(names):
        raise InputError(f"{usage}, and got {len(flat)} arguments")
    values = dict(zip(names, flat, strict=False))
    for name, value in kwargs.items():
        name = "graph" if name == "edge_index" and not (signature.builds_graph or signature.graphs) else name
        if name not in names:
            raise InputError(f"{usage}: there is no `{name}`")
        if name in values:
            raise InputError(f"{usage}, and `{name}` came twice")
        values[name] = value
    missing = [name for name, optional in expected if not optional and values.get(name) is None]
    if missing:
        raise InputError(f"{usage}: `{missing[0]}` is missing")
    for name in names:
        values.setdefault(name, None)
    graphs = {name: values.pop(name) for name in signature.graphs}
    graph, batch, count = values.pop("graph", None), values.pop("batch", None), values.pop("num_graphs", None)
    return Bound(values, graphs or graph, concrete(batch, "batch") if isinstance(batch, Tensor) else batch, count)


def by_place(names: Sequence[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """All arguments by place; one that was left out is None. None for names that there are not, or twice."""
    if not kwargs:
        return args
    rest = names[len(args) :]
    used = [name for name in rest if name in kwargs]
    return (*args, *map(kwargs.get, rest)) if len(used) == len(kwargs) else None


def between(signature: Signature) -> tuple[Input, ...]:
    """The one value of sources and the one of targets that a call begins with, if it does."""
    pair = [i for i in signature.before_graph if not i.optional and i.domain in ("source", "target")]
    return tuple(pair) if len(pair) == 2 else ()


def spread_pair(signature: Signature, args: Sequence[Any]) -> list[Any]:
    """``layer((x_source, x_target), edge_index)`` as torch_geometric writes it, and its ``layer(x, edge_index)`` of
    edges between nodes of one set, which are both."""
    pair = between(signature)
    if not (pair and args):
        return list(args)
    if isinstance(args[0], tuple | list) and len(args[0]) == 2:
        by_domain = {"source": args[0][0], "target": args[0][1]}
        return [by_domain[i.domain] for i in pair] + list(args[1:])
    one = signature.before_graph[:2] == pair and pair[1].real and not any(map(is_graph, args[2:3]))
    return [args[0], *args] if one and any(map(is_graph, args[1:2])) else list(args)


def is_graph(value: Any) -> bool:
    """Whether an argument where features of nodes may stand is a graph."""
    if not isinstance(value, Tensor):
        return value is not None
    return value.layout is not torch.strided or (not value.is_floating_point() and value.shape[:1] == (2,))


def count_graphs(batch: Any, count: Any, device: torch.device | None = None) -> int:
    """How many graphs the batch vector tells apart, or a user says that there are."""
    if count is not None:
        if isinstance(count, bool) or not hasattr(count, "__index__") or operator.index(count) < 0:
            raise InputError(f"`num_graphs` must be a whole number from 0, not {count!r}")
        count = operator.index(count)
    if batch is None:
        return 1 if count is None else count
    if not isinstance(batch, Tensor) or batch.dtype not in (torch.int64, torch.int32):
        kind = short(batch.dtype) if isinstance(batch, Tensor) else type(batch).__name__
        raise InputError(f"`batch` must be an int64 or int32 tensor [N], the graph of each node, not {kind}")
    if device is not None and batch.device != device:
        raise InputError(f"`batch` is on {batch.device}, and the inputs are on {device}: move one with .to()")
    if not batch.numel():
        return count or 0
    low, high = extremes(batch)
    count = high + 1 if count is None else count
    if low < 0 or high >= count:
        bad = int(((batch < 0) | (batch >= count)).flatten().nonzero()[0])
        given = int(batch.flatten()[bad])
        raise InputError(f"node {bad} is in graph {given}, and graphs are numbered 0 to {count - 1}")
    return count


def free_sizes(signature: Signature, values: Mapping[str, Any], given: Mapping[str, int]) -> dict[str, int]:
    """Sizes of dims that are no arguments, from the tensors of this call."""
    sizes: dict[str, int] = dict(given)
    domains = {i.name: i.domain for i in signature.inputs}
    for name, place, dim in signature.free_places:
        value = values.get(name)
        if not isinstance(value, Tensor):
            continue
        shape = value.shape if domains[name] == "global" else value.shape[1:]
        if domains[name] == "graph" and value.dim() == place + 1:
            shape = value.shape
        if place < len(shape) and sizes.setdefault(dim, shape[place]) != shape[place]:
            raise InputError(f"dim `{dim}` has size {sizes[dim]} and, in `{name}`, size {shape[place]}")
    for name in signature.free_dims:
        sizes.setdefault(name, 1)
    return sizes


# ------------------------------------------------------------------------------------- constructors


def plain(value: Any) -> Any:
    """A number of NumPy as one of Python."""
    return value.item() if isinstance(value, np.generic) else value


def constructor_arguments(
    signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, nn.Module], dict[str, int]]:
    """Constructor arguments by what they are: constants, modules and sizes of free dims.

    Raises :class:`gdsl.InputError` where one is missing, or is not what it should be.
    """
    names = [name for name in constructor_signature(signature).parameters if name != "backend"]
    if len(args) > len(names):
        raise InputError(f"{signature.name} takes {len(names)} arguments, and got {len(args)}")
    given = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name in given:
            raise InputError(f"{signature.name} got `{name}` twice")
        given[name] = value
    modules: dict[str, nn.Module] = {}
    chosen = {p.name for p in signature.arguments}
    for name, optional in signature.modules:
        value = given.get(name)
        if isinstance(value, nn.Module):
            modules[name] = given.pop(name)
        elif name in chosen:
            if callable(value):
                raise InputError(f"`{name}` must be a torch.nn.Module or a name, not {_called(value)}")
            continue  # whether it is there, or the function that stands for it
        elif value is not None:
            raise InputError(f"`{name}` must be a torch.nn.Module, not {_called(value)}")
        elif name in given and optional:
            raise InputError(
                f"`{name}` cannot be left out, and is not None: leave the argument out for its own maps, pass "
                f"a torch.nn.Module, or write `= none` after its declaration"
            )
        elif not optional:
            raise InputError(f"{signature.name} needs a torch module for `{name}`")
        given.pop(name, None)
    free = {name: plain(given.pop(name)) for name in signature.free_dims if name in given}
    for name, size in free.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise InputError(f"`{name}` is the size of a dim: a whole number from 0, not {size!r}")
    return given, modules, {**signature.sizes_of_tables(given), **free}


def _called(value: Any) -> str:
    """What a user has passed for a module."""
    if not callable(value) or isinstance(value, type):
        return type(value).__name__ if not isinstance(value, type) else f"the class {value.__name__}"
    name = getattr(value, "__name__", type(value).__name__)
    return f"the function {name}: make a module whose `forward` calls it"


def constructor_signature(signature: Signature) -> inspect.Signature:
    """The Python signature of a layer's class."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    required = [inspect.Parameter(p.name, kind) for p in signature.arguments if p.required]
    modules = [inspect.Parameter(name, kind) for name, optional in signature.modules if not optional]
    defaults = [inspect.Parameter(p.name, kind, default=p.default) for p in signature.arguments if not p.required]
    known = {p.name for p in signature.arguments}
    without = (name for name, optional in signature.modules if optional and name not in known)
    absent = [inspect.Parameter(name, kind, default=None) for name in without]
    backend = inspect.Parameter("backend", inspect.Parameter.KEYWORD_ONLY, default="auto")
    return inspect.Signature([*required, *modules, *defaults, *absent, backend])
