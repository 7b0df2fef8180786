"""``layer.check(x, graph)``: a module as a function of its float inputs and parameters, for :mod:`gdsl.look.check`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gdsl.look.check import CheckReport, check
from gdsl.module.copies import copy_of
from gdsl.runtime import cache
from gdsl.runtime.backend import backend_for

if TYPE_CHECKING:
    from gdsl.module.inspected import Inspected


def check_module(module: Inspected, args: Sequence[Any], kwargs: Mapping[str, Any]) -> CheckReport:
    """Check a module on the arguments of a call: on copies, in float64 and evaluation mode.

    Raises what the call itself would raise; a check that fails is a row of the report.
    """
    twin, own = _copy(module).double(), _copy(module)
    plain = copy.deepcopy(twin)
    plain._choose(replace(module._options, optimise=False))
    given = module._named_arguments(args, kwargs)
    inputs = {n: v for name, value in given.items() for n, v in _tensors(name, value) if v.is_floating_point()}
    state = dict(own.named_parameters())
    values = {n: v.detach().to(torch.float64).clone().requires_grad_() for n, v in {**inputs, **state}.items()}

    def call(backend: str, found: Sequence[Tensor], optimise: bool) -> tuple[Tensor, ...]:
        doubled = not found or found[0].dtype is torch.float64
        subject, by_name = (twin if optimise else plain) if doubled else own, dict(zip(values, found, strict=True))
        subject.backend = backend
        arguments = {name: _filled(name, value, by_name) for name, value in given.items()}
        result = torch.func.functional_call(subject, {n: by_name[n] for n in state}, (), arguments)
        return tuple(v for _, v in _tensors("", result))

    with torch.no_grad():
        count = len(call("torch", tuple(values.values()), True))
    names = [name for name, _ in twin.program.outputs]
    names = names if len(names) == count else [str(k) for k in range(count)]
    tensors = [*inputs.values(), *(v for n, g in given.items() for _, v in _tensors(n, g)), *state.values()]
    others = other_backends(module.backend, tensors[0].device if tensors else torch.device("cpu"))
    backend = next(iter(others), "torch") if module.backend == "auto" else module.backend
    dtype = next((v.dtype for v in tensors if v.is_floating_point()), torch.float64)
    return check(module._get_name(), call, values, names, backend, others, dtype)


def other_backends(asked: str, device: torch.device) -> tuple[str, ...]:
    """Those besides the reference that run here on the device of the data: what "auto" takes there, and the layer's."""
    by_itself = device.type != "cpu" or cache.find_compiler() is not None
    auto = backend_for("auto", torch.float64, device) if by_itself else "torch"
    return tuple(dict.fromkeys(b for b in (auto, asked) if b not in ("auto", "torch")))


def _copy(module: Inspected) -> Inspected:
    """A copy in evaluation mode, with parameters of its own."""
    return copy_of(module).eval().requires_grad_(True)


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The dense tensors of an argument, by name: those of a pair are ``x[0]`` and ``x[1]``."""
    if isinstance(value, Tensor) and value.layout is torch.strided:
        yield name, value
    elif isinstance(value, tuple | list):
        for k, part in enumerate(value):
            yield from _tensors(f"{name}[{k}]", part)


def _filled(name: str, value: Any, found: Mapping[str, Tensor]) -> Any:
    """An argument with other tensors."""
    if name in found:
        return found[name]
    if type(value) in (tuple, list):
        return type(value)(_filled(f"{name}[{k}]", part, found) for k, part in enumerate(value))
    return value
