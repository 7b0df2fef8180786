"""Tensors of all edges that are not computed until they are needed: what ``message`` of a user's layer runs on.

A :class:`Symbol` is a tensor of torch by class, shape, dtype and device, without numbers. The method runs in each call,
with all that Python does in it; functions of torch that the IR has become part of an expression. Any other function,
or a use of one that has no form in the IR, *breaks* the expression: every Symbol that somebody still holds is computed
by the user's own calls of torch, in their order, and becomes that tensor, the same object with another inside. What
comes after runs on tensors, so that nothing ever runs twice.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.ir import build
from gdsl.ir.types import Domain, Kind
from gdsl.nn.symbolic import FreshNames, TensorValue, Untraceable, loaded, segment_softmax
from gdsl.nn.symbols import Deferred, Restart, Symbol, alias_of, put, uses, within
from gdsl.nn.torch_rules import RULES, TorchRule
from gdsl.runtime.dtypes import AUTOCAST, lower, short
from gdsl.runtime.graph import Graph

# Tensors of a layer that are copied when read, so that the layer may write to them afterwards: up to so many numbers.
MOST_COPIED = 1 << 16

MOST_REMEMBERED = 8192

# How the names of tensors begin that are not the layer's own.
GIVEN = "given."


class Recording:
    """One run of a method on Symbols.

    rows:   where the targets of the edges live
    graph:  of the edges
    dtype, device: of all Symbols that are numbers
    ptr:    where the edges into each node begin, where the method can ask for it
    name_of: the name of a tensor of the layer; None for others

    reason: why the expression was broken, None where it was not
    tensors: the tensors that the expression reads, by name
    """

    def __init__(
        self,
        rows: Domain,
        graph: Graph,
        dtype: torch.dtype,
        device: torch.device,
        ptr: Tensor | None = None,
        name_of: Callable[[Tensor], str | None] = lambda tensor: None,
    ):
        self.graph, self.ptr, self.name_of = graph, ptr, name_of
        self.names = FreshNames(rows, graph.num_edges, dtype == torch.get_default_dtype())
        self.dtype, self.device = dtype, device
        self.reason: str | None = None
        self.restarted: str | None = None
        self.tensors: dict[str, Tensor] = {}
        self.grad = torch.is_grad_enabled()
        self.autocast = _autocast(device.type)
        self._symbols: list[Symbol] = []
        self._given: dict[Any, tuple[TensorValue, Tensor, Tensor]] = {}
        self._watched: list[tuple[Tensor, int]] = []

    # -- symbols ---------------------------------------------------------------------------------

    def input(self, name: str, tensor: Tensor, domain: Domain, end: int | None) -> Symbol:
        """An argument of the method: a node value [N, ...] read at an end of the edges, or an edge value [E, ...]."""
        self.tensors[name] = self.lowered(tensor)
        self._watch(tensor)
        value = loaded(name, domain, tuple(tensor.shape[1:]), Kind.FLOAT, None if end is None else "ji"[end])
        function, args = (_identity, (tensor,)) if end is None else (_gathered, (tensor, self.graph, end))
        cell = Deferred(function, args, {}, value, self.grad)
        # An edge value is the user's own tensor: what is written to it is written to that.
        return self._symbol(cell, tensor.requires_grad and self.grad, [2 if end is None else 1])

    def lowered(self, tensor: Tensor) -> Tensor:
        """As autocast wants it beside the others, of which float64 stays."""
        return lower(tensor) if self.autocast[0] and self.dtype != torch.float64 else tensor

    def _symbol(self, cell: Deferred, requires_grad: bool, alias: list[int]) -> Symbol:
        value = cell.value
        real = value.node.kind is Kind.FLOAT
        symbol: Symbol = Tensor._make_wrapper_subclass(
            Symbol,
            (self.names.edges, *value.sizes),
            dtype=self.dtype if real else torch.bool,
            device=self.device,
            requires_grad=requires_grad and real,
        )
        symbol.__dict__.update(tracing=self, cell=cell, alias=alias, needs_grad=requires_grad and real)
        self._symbols.append(symbol)
        return symbol

    def made(self, cell: Deferred, requires_grad: bool) -> Symbol:
        """A Symbol with memory of its own."""
        return self._symbol(cell, requires_grad, [1])

    def softmax(
        self, function: Callable[..., Tensor], src: Symbol, index: Tensor, ptr: Any, num_nodes: Any, dim: int
    ) -> Tensor:
        """The softmax over the edges into each node."""
        wanted, count = self.graph.edge_index[1], self.graph.num_targets
        same = (ptr is None or ptr is self.ptr) and isinstance(index, Tensor) and (
            index is wanted or (index.data_ptr(), index.shape, index.stride(), index.dtype)
            == (wanted.data_ptr(), wanted.shape, wanted.stride(), wanted.dtype)
        )  # fmt: skip
        grad = torch.is_grad_enabled()
        first = dim == 0 or dim == -len(src.shape)
        if not same or not first or num_nodes not in (None, count) or grad != self.grad:
            self.break_off("a softmax over groups other than the edges into a node")
        elif self.autocast != _autocast(self.device.type) or src.dtype == torch.bool:
            self.break_off("a softmax under other circumstances than those of the call")
        else:
            value = segment_softmax(self.names, src.cell.value)
            cell = Deferred(function, (src.cell, index, ptr, num_nodes, dim), {}, value, grad)
            return self.made(cell, src.needs_grad)
        return function(src, index, ptr, num_nodes, dim)

    def _watch(self, tensor: Tensor) -> None:
        if not tensor.is_inference():
            self._watched.append((tensor, tensor._version))

    def _operand(self, tensor: Tensor, rank: int, beside: bool, grad: bool) -> tuple[TensorValue, Tensor]:
        """A tensor of the layer or of the method itself beside Symbols of ``rank`` dims; and as it is now."""
        cut = self.grad and not grad and tensor.requires_grad
        edges = self.names.edges
        on_rows = beside and tensor.dim() == rank and edges != 1 and tensor.shape[0] == edges
        key = (id(tensor), on_rows, beside, cut, None if tensor.is_inference() else tensor._version)
        known = self._given.get(key)
        if known is not None:
            return known[:2]
        if type(tensor) is not Tensor and type(tensor) is not nn.Parameter:
            raise Untraceable(f"a tensor of the class {type(tensor).__name__}")
        if tensor.layout is not torch.strided or 0 in tensor.shape or tensor.is_complex():
            raise Untraceable(f"a tensor of {tensor.dtype}, {tensor.layout}, of shape {list(tensor.shape)}")
        if tensor.device != self.device and tensor.dim():
            raise Untraceable(f"a tensor on {tensor.device}")
        now = tensor
        if tensor.requires_grad or tensor.numel() > MOST_COPIED:
            self._watch(tensor)
        else:
            now = tensor.clone()
        fed = now.detach() if cut else now
        if tensor.dtype != torch.bool:
            fed = self.lowered(fed)
            if not beside and fed.dtype != self.dtype:
                raise Untraceable(f"{short(tensor.dtype)} beside {short(self.dtype)}")
            if fed.dim() and torch.promote_types(fed.dtype, self.dtype) != self.dtype:
                raise Untraceable(f"{short(tensor.dtype)} beside {short(self.dtype)}")
            fed = fed if fed.dtype == self.dtype else fed.to(self.dtype)
        name = self.name_of(tensor)
        if name is None or name in self.tensors:
            name = f"{GIVEN}{len(self._given)}"
        kind = Kind.BOOL if tensor.dtype == torch.bool else Kind.FLOAT
        shape = tuple(tensor.shape)
        value = loaded(name, Domain.EDGE, shape[1:], kind) if on_rows else loaded(name, Domain.GLOBAL, shape, kind)
        self.tensors[name] = fed if fed.device == self.device else fed.to(self.device)
        self._given[key] = value, now, tensor
        return value, now

    # -- a call of torch -------------------------------------------------------------------------

    def apply(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A function of torch on Symbols. Raises :class:`Untraceable` where it has no form in the IR."""
        found = RULES.get(function)
        if found is None:
            other = _OTHERS.get(function)
            if other is None:
                raise Untraceable("has no form in a program")
            return other(*args, **kwargs)
        if self.reason is not None:
            raise Untraceable(self.reason)
        if self.autocast != _autocast(self.device.type):
            raise Untraceable("a block of autocast inside the method")
        grad = torch.is_grad_enabled()
        if grad and not self.grad:
            raise Untraceable("gradients are recorded inside the method, and not around it")
        # What torch's own functions hand on where the user has not given it.
        given = {n: v for n, v in kwargs.items() if v is not None or n not in ("dtype", "out")} if kwargs else {}
        inplace = found.result == "in place"
        if found.inplace:
            inplace = bool(given.pop("inplace", False))
        reader = _Arguments(self, args, given, found.beside, grad)
        values = self._values(found, function, reader)
        return self._results(found, function, args, values, reader, inplace, grad)

    def _values(self, rule: TorchRule, function: Any, reader: _Arguments) -> Any:
        names = self.names
        if rule.draws:
            return rule.apply(names, *reader.values, **reader.by_name)
        key = (function, names.names, names.rows, names.edges if rule.counts else None, names.default, reader.key)
        known = _remembered.get(key)
        if known is None:
            found = rule.apply(names, *reader.values, **reader.by_name)
            if len(_remembered) >= MOST_REMEMBERED:
                _remembered.clear()
            _remembered[key] = known = found, names.names
        names.names = known[1]
        return known[0]

    def _results(
        self,
        rule: TorchRule,
        function: Any,
        args: Sequence[Any],
        values: Any,
        reader: _Arguments,
        inplace: bool,
        grad: bool,
    ) -> Any:
        first = args[0] if isinstance(args[0], Symbol) else None
        if rule.result == "view or same" and first is not None and values is first.cell.value:
            return first
        cut = self.grad and not grad and reader.requires_grad
        cell = Deferred(function, reader.cells, reader.cells_by_name, values, grad, inplace)
        if isinstance(values, tuple):
            if cut:
                values = tuple(_cut(v) for v in values)
            parts = [Deferred(_item, (cell, k), {}, v, grad) for k, v in enumerate(values)]
        else:
            cell.value = _cut(values) if cut else values
            parts = [cell]
        requires_grad = grad and reader.requires_grad and function not in _CUTTING
        if inplace:
            return self._rebound(first, cell, requires_grad, cut)
        alias = [1]
        if rule.result == "view" and first is not None:
            alias = first.alias
            alias[0] += len(parts)
        symbols = tuple([self._symbol(part, requires_grad, alias) for part in parts])
        return symbols if isinstance(values, tuple) else symbols[0]

    def _rebound(self, symbol: Symbol | None, cell: Deferred, requires_grad: bool, cut: bool) -> Symbol:
        """A Symbol that is written to in place."""
        if symbol is None or symbol.alias[0] > 1:
            raise Untraceable("written in place to memory that other tensors share")
        before = symbol.cell.value
        if cut or before.sizes != cell.value.sizes or before.node.kind is not cell.value.node.kind:
            raise Untraceable("written in place in this way")
        symbol.cell = cell
        if requires_grad:
            symbol.needs_grad = True
            with torch._C.DisableTorchFunctionSubclass():
                symbol.requires_grad_()
        return symbol

    # -- the end ---------------------------------------------------------------------------------

    def restart(self, reason: str) -> Restart:
        self.restarted = self.restarted or reason
        return Restart(self.restarted)

    def check(self) -> None:
        """Raises :class:`Restart` where what the expression reads, or a Symbol, was used behind its back."""
        if self.restarted is not None:  # and somebody has caught that
            raise Restart(self.restarted)
        for tensor, version in self._watched:
            if tensor._version != version:
                raise self.restart("a tensor was written to in place after the method had read it")
        with torch._C.DisableTorchFunctionSubclass():
            for symbol in self._symbols:
                # Once is Python. What has recorded it for a gradient refers to it, too.
                if uses(symbol) != 1:
                    raise self.restart("an autograd.Function or code outside of Python has taken its tensors")

    def break_off(self, reason: str) -> None:
        """Every Symbol that somebody holds becomes a tensor."""
        if self.reason is None:
            self.reason = reason
        self.check()
        held = self.held()
        self._symbols.clear()
        self._watched.clear()
        with self._modes():
            # Later ones are made of earlier ones themselves.
            for symbol in held:
                cell = symbol.cell
                put(symbol, self._real(cell))
                cell.real = symbol

    def held(self, result: Deferred | None = None) -> list[Symbol]:
        """The Symbols that something besides this trace refers to, in the order in which torch would have made them.

        result: of a Symbol that the caller refers to
        """
        counts = _counts(self._symbols)
        found = [s for s, n in zip(self._symbols, counts, strict=True) if n > _UNHELD + (s.cell is result)]
        return sorted(found, key=lambda symbol: symbol.cell.number)

    def forget(self) -> None:
        """Let go of the Symbols: those that are held are somebody else's now."""
        self._symbols.clear()

    @contextlib.contextmanager
    def _modes(self) -> Iterator[None]:
        """As it was around the method."""
        if self.autocast == _autocast(self.device.type):
            yield
            return
        enabled, dtype = self.autocast
        with torch.autocast(self.device.type, dtype, enabled):
            yield

    def _real(self, wanted: Deferred) -> Any:
        """The tensor of a cell, by the user's own calls."""
        stack = [wanted]
        while stack:
            cell = stack[-1]
            below = [c for c in within(Deferred, (*cell.args, *cell.kwargs.values())) if c.real is None]
            if cell.real is None and below:
                stack += below
                continue
            stack.pop()
            if cell.real is None:
                args, kwargs = _computed(cell.args), {k: _computed(v) for k, v in cell.kwargs.items()}
                with torch.set_grad_enabled(cell.grad):
                    args = [args[0].clone(), *args[1:]] if cell.copy else args
                    result = cell.function(*args, **kwargs)
                # What it was given stays what it is.
                cell.real = alias_of(result) if any(result is a for a in args) else result
        return wanted.real


class _Arguments:
    """The arguments of one call: as values for a rule, as cells for later, and as a key under which both are known."""

    def __init__(self, trace: Recording, args: Sequence[Any], kwargs: Mapping[str, Any], beside: bool, grad: bool):
        self.trace, self.beside, self.grad = trace, beside, grad
        self.given = (args, *kwargs.values())
        self.requires_grad = False
        self.values, self.cells, key = [], [], []
        for given in args:
            value, cell, known = self._read(given)
            self.values.append(value)
            self.cells.append(cell)
            key.append(known)
        self.by_name, self.cells_by_name = {}, {}
        for name, given in kwargs.items():
            self.by_name[name], self.cells_by_name[name], known = self._read(given)
            key.append((name, known))
        self.key = tuple(key)

    def _read(self, given: Any) -> tuple[Any, Any, Any]:
        kind = type(given)
        if kind is Symbol:
            if given.tracing is not self.trace:
                raise Untraceable("tensors of two calls")
            self.requires_grad |= given.needs_grad
            cell = given.cell
            return cell.value, cell, cell.value
        if kind is float:
            return given, given, (kind, given, math.copysign(1.0, given))
        if kind in _PLAIN:
            return given, given, (kind, given)
        if kind is slice:
            return given, given, (kind, given.start, given.stop, given.step)
        if isinstance(given, list | tuple):
            parts = [self._read(g) for g in given]
            whole = list if kind is list else tuple
            return whole(p[0] for p in parts), whole(p[1] for p in parts), (kind, *[p[2] for p in parts])
        if isinstance(given, Tensor):
            values = [s.cell.value for s in within(Symbol, self.given)]
            # Beside truth values alone the result is of the tensor's own dtype, be it integers or wider.
            own = dtype_of(given) if given.is_floating_point() else given.dtype
            if own not in (torch.bool, self.trace.dtype) and all(v.node.kind is Kind.BOOL for v in values):
                raise Untraceable(f"{short(own)} beside truth values")
            rank = max(len(v.axes) + 1 for v in values) if self.beside else 0
            value, now = self.trace._operand(given, rank, self.beside, self.grad)
            self.requires_grad |= given.requires_grad
            return value, now, value
        raise Untraceable(f"an argument of type {kind.__name__}")


_PLAIN = frozenset({int, bool, str, type(None), torch.dtype, torch.device, type(Ellipsis)})

# Values by the function, its arguments and the names used before: a speed-up, and nothing else.
_remembered: dict[Any, tuple[Any, int]] = {}


def _identity(tensor: Tensor) -> Tensor:
    return tensor


def _gathered(tensor: Tensor, graph: Graph, end: int) -> Tensor:
    return tensor.index_select(0, graph.edge_index[end])


def _item(values: Sequence[Tensor], k: int) -> Tensor:
    return values[k]


def _cut(value: TensorValue) -> TensorValue:
    return TensorValue(build.stop_gradient(value.node), value.axes)


def _computed(value: Any) -> Any:
    if isinstance(value, Deferred):
        return value.real
    if isinstance(value, list | tuple):
        return type(value)(_computed(v) for v in value)
    return value


def _autocast(kind: str) -> tuple[bool, Any]:
    if kind not in AUTOCAST or not torch.is_autocast_enabled(kind):
        return False, None
    return True, torch.get_autocast_dtype(kind)


def dtype_of(tensor: Tensor) -> torch.dtype:
    """Of a tensor of real numbers as the call computes with it: see :func:`gdsl.runtime.dtypes.lower`."""
    enabled, lower = _autocast(tensor.device.type)
    return lower if enabled and tensor.dtype != torch.float64 else tensor.dtype


def _counts(symbols: list[Any]) -> list[int]:
    return [sys.getrefcount(symbol) for symbol in symbols]


# What a Symbol counts that nothing but its trace refers to.
_UNHELD = _counts([object()])[0]


# -------------------------------------------------------------------------- functions that read no numbers


def _converted(x: Symbol, *args: Any, **kwargs: Any) -> Any:
    """``to`` of what is already there."""
    if len(args) != 1 or kwargs:
        raise Untraceable("this conversion")
    wanted = args[0]
    if isinstance(wanted, Tensor):
        if wanted.device != x.device:
            raise Untraceable("another device")
        wanted = wanted.dtype
    if isinstance(wanted, torch.dtype):
        return _as_dtype(x, wanted)
    if torch.device(wanted) != x.device:
        raise Untraceable("another device")
    return x


def _as_dtype(x: Symbol, dtype: torch.dtype) -> Symbol:
    if x.dtype == dtype:
        return x
    if x.dtype == torch.bool and dtype == x.tracing.dtype:
        value = TensorValue(build.to_float(x.cell.value.node), x.cell.value.axes)
        return x.tracing.made(Deferred(Tensor.to, (x.cell, dtype), {}, value), False)
    raise Untraceable(f"from {short(x.dtype)} to {short(dtype)}")


def _like(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that makes a tensor of the shape and dtype of another."""

    def make(x: Any, *args: Any, **kwargs: Any) -> Tensor:
        return function(torch.empty(x.shape, dtype=x.dtype, device=x.device), *args, **kwargs)

    return make


def _new(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A method that makes a tensor of the dtype of another."""

    def make(x: Any, *args: Any, **kwargs: Any) -> Tensor:
        return function(torch.empty(0, dtype=x.dtype, device=x.device), *args, **kwargs)

    return make


def _same_dtype(dtype: torch.dtype) -> Callable[[Symbol], Symbol]:
    return lambda x: _as_dtype(x, dtype)


_OTHERS: dict[Any, Callable[..., Any]] = {
    Tensor.to: _converted,
    Tensor.type_as: lambda x, other: _converted(x, other),
    Tensor.float: _same_dtype(torch.float32),
    Tensor.double: _same_dtype(torch.float64),
    Tensor.half: _same_dtype(torch.float16),
    Tensor.bfloat16: _same_dtype(torch.bfloat16),
    Tensor.bool: _same_dtype(torch.bool),
    **{f: _like(f) for f in (torch.rand_like, torch.randn_like, torch.empty_like, torch.full_like)},
    **{f: _new(f) for f in (Tensor.new_zeros, Tensor.new_ones, Tensor.new_empty, Tensor.new_full, Tensor.new_tensor)},
}

# Functions whose results have no gradient.
_CUTTING = frozenset({Tensor.detach, torch.detach, torch.zeros_like, torch.ones_like})
