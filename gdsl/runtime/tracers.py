"""Tracers that record a call as torch's operations: they cannot see the kernels that a layer runs, so that what they
make of it would give memory that nobody writes. They are refused before anything is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import torch
from torch._C import _get_tracing_state, _len_torch_dispatch_stack
from torch._C._dynamo import eval_frame
from torch.fx import Proxy

from gdsl.errors import InputError

# Modes of torch that record, or whose tensors have no memory.
_MODES = {
    torch._C._TorchDispatchModeKey.PROXY: "make_fx",
    torch._C._TorchDispatchModeKey.FAKE: "FakeTensorMode",
}
_SKIP = eval_frame._FrameExecStrategy(eval_frame._FrameAction.SKIP, eval_frame._FrameAction.SKIP)

# What is not recorded of a call on a part of a distributed graph, and what to do.
NO_EXCHANGE = (
    "a part of a distributed graph runs without torch.compile, which records no exchange: leave fullgraph=True out, "
    "and it is called as it is"
)

Function = TypeVar("Function", bound=Callable[..., Any])


def run_as_it_is(function: Function) -> Function:
    """A function that torch.compile leaves alone, with all that it calls, where it meets it outside of what it traces.

    Where it cannot trace a call it runs it, and tries its luck with the functions inside one by one. What it makes of
    those that pass addresses to kernels writes to memory that is no longer there.
    """
    eval_frame.set_code_exec_strategy(function.__code__, _SKIP)
    return function


@contextmanager
def left_alone() -> Iterator[None]:
    """A block that torch.compile leaves alone, with all that it calls, outside of what it traces."""
    before = eval_frame.set_eval_frame(None)
    try:
        yield
    finally:
        eval_frame.set_eval_frame(before)


class NotScriptable:
    """A module that ``torch.jit`` refuses by name, at no cost to other calls."""

    def _slow_forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        """What torch calls in place of ``forward`` under ``torch.jit.trace``."""
        refuse("torch.jit.trace")

    def __prepare_scriptable__(self) -> NoReturn:
        """What ``torch.jit.script`` asks for first."""
        refuse("torch.jit.script")


def recording() -> bool:
    """Whether a tracer may be recording: what is quick to ask in each call."""
    return _get_tracing_state() is not None or _len_torch_dispatch_stack() > 0


def check_tracers(values: Iterable[Any] = ()) -> None:
    """Raises :class:`gdsl.InputError` where a tracer records that cannot follow a call; ``values`` are what it gets."""
    if _get_tracing_state() is not None:
        refuse("torch.jit.trace")
    if _len_torch_dispatch_stack():
        for key, name in _MODES.items():
            if torch._C._get_dispatch_mode(key) is not None:
                refuse(name)
    for value in values:
        check_proxy(value)


def check_proxy(value: Any) -> None:
    """Raises :class:`gdsl.InputError` for what ``torch.fx.symbolic_trace`` passes in place of a tensor."""
    if isinstance(value, Proxy):
        refuse("torch.fx.symbolic_trace")


def refuse(tracer: str) -> NoReturn:
    """Raises :class:`gdsl.InputError` with what to do instead."""
    raise InputError(
        f"{tracer} cannot record the generated kernels of a layer: use torch.export.export(model, arguments) for a "
        "model that runs without its Python code, or torch.compile(model)"
    )
