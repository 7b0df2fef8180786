"""A tensor of all edges without numbers, of torch by its class, and how it comes about: see :mod:`gdsl.nn.lazy`."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.utils import swap_tensors

from gdsl.nn.symbolic import TensorValue

if TYPE_CHECKING:
    from gdsl.nn.lazy import Recording

T = TypeVar("T")


class Restart(Exception):
    """The call must run again, on tensors: something happened to a Symbol that cannot be made good."""


@dataclass(slots=True, eq=False)
class Deferred:
    """One call of torch that was put off. ``args`` hold cells in the places of Symbols.

    grad: whether gradients were recorded then
    copy: whether the first argument is written to, which must not change it for earlier readers
    """

    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    value: TensorValue
    grad: bool = True
    copy: bool = False
    real: Any = None
    number: int = field(default_factory=itertools.count().__next__)


class Symbol(Tensor):
    """A tensor of all edges, [E, ...], without numbers.

    tracing: the call that it belongs to
    cell:    how it comes about
    alias:   how many tensors share its memory, as a list of one number that all of them hold
    needs_grad: ``requires_grad``, where Python finds it sooner
    """

    tracing: Recording
    cell: Deferred
    alias: list[int]
    needs_grad: bool

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _FACTS:
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **kwargs)
        trace = args[0].tracing if args and type(args[0]) is Symbol else trace_of(args, kwargs)
        try:
            return trace.apply(function, args, kwargs)
        except Exception as reason:  # whatever: the function itself has the last word
            name = getattr(function, "__name__", str(function)).strip("_")
            trace.break_off(f"`{name}`: {reason}")
        return function(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Something that does not ask ``__torch_function__``: compiled code, or a transform."""
        raise trace_of(args, kwargs or {}).restart(f"`{function}` outside of Python's sight")


def within(kind: type[T], values: Any) -> Iterator[T]:
    """Those of a kind among values, and in lists, tuples and dicts among them."""
    for value in values:
        if isinstance(value, kind):
            yield value
        elif isinstance(value, list | tuple):
            yield from within(kind, value)
        elif isinstance(value, dict):
            yield from within(kind, value.values())


def trace_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Recording:
    return next(within(Symbol, (*args, *kwargs.values()))).tracing


def put(symbol: Symbol, real: Tensor) -> None:
    """Make a Symbol this tensor: the same object with another inside."""
    if weakref.getweakrefs(symbol):
        raise symbol.tracing.restart("a weak reference to one of its tensors")
    with torch._C.DisableTorchFunctionSubclass():
        real = real if uses(real) == 1 else alias_of(real)
        swap_tensors(symbol, real)
        real.__dict__.clear()


def like(symbol: Symbol, real: Tensor) -> Tensor:
    """A computed tensor of the shape, dtype and gradient of the Symbol that it is to replace."""
    with torch._C.DisableTorchFunctionSubclass():
        shape, dtype = symbol.shape, symbol.dtype
    real = real if symbol.needs_grad else real.detach()
    return real.view(shape) if dtype == real.dtype else real.to(dtype).view(shape)


def uses(tensor: Tensor) -> int:
    """How often torch refers to a tensor, Python counting once."""
    return tensor._use_count()  # type: ignore[attr-defined]


def alias_of(tensor: Tensor) -> Tensor:
    """The same memory and the same gradient in a tensor of its own."""
    with torch.enable_grad():
        return tensor.view_as(tensor)


# What a Symbol knows of itself.
_FACTS = frozenset({
    *[getattr(Tensor, name).__get__ for name in (
        "shape", "dtype", "device", "ndim", "requires_grad", "is_cuda", "is_cpu", "is_meta", "is_sparse", "layout",
        "is_quantized", "is_nested", "itemsize",
    )],
    Tensor.size, Tensor.dim, Tensor.ndimension, Tensor.numel, Tensor.nelement, Tensor.__len__, Tensor.get_device,
    Tensor.is_floating_point, Tensor.is_complex, Tensor.is_signed, Tensor.element_size, Tensor.__hash__,
    torch.is_floating_point, torch.is_complex, torch.numel, Tensor.is_inference,
})  # fmt: skip
