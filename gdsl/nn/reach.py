"""What a user's method can reach: functions that hide what they do, and state that it may change."""

from __future__ import annotations

import copy
import functools
import inspect
import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


@functools.lru_cache(maxsize=1024)
def names_in(code: types.CodeType) -> tuple[str, ...]:
    """The names that a piece of code and pieces inside it use."""
    found: list[str] = []
    todo = [code]
    while todo:
        part = todo.pop()
        found += part.co_names
        todo += [c for c in part.co_consts if isinstance(c, types.CodeType)]
    return tuple(dict.fromkeys(found))


def contents(cell: types.CellType) -> Any:
    """What a closure holds, None where it is not bound yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def opaque(layer: nn.Module) -> str | None:
    """A function within reach of ``message`` that torch hands tensors to without asking their class: one with a
    gradient of its own, or a scripted one. Where this overlooks one, the call notices, and runs again."""
    todo: list[tuple[Any, Any]] = [(layer.message, layer)]
    seen: set[Any] = set()
    while todo:
        found, owner = todo.pop()
        if isinstance(found, torch.jit.ScriptFunction | torch.jit.ScriptModule):
            return str(getattr(found, "name", type(found).__name__))
        if isinstance(found, type) and issubclass(found, torch.autograd.Function):
            return found.__name__
        if isinstance(found, nn.Module):
            own = [part for part in found.modules() if not type(part).__module__.startswith("torch.nn.")]
            todo += [(part, part) for part in own if isinstance(part, torch.jit.ScriptModule)]
            todo += [(type(part).forward, part) for part in own]
            continue
        function = getattr(found, "__func__", found.fget if isinstance(found, property) else found)
        function = inspect.unwrap(function) if isinstance(function, types.FunctionType) else None
        if not isinstance(function, types.FunctionType) or function in seen:
            continue
        seen.add(function)
        if (function.__module__ or "").startswith(("torch.", "torch_geometric.", "gdsl.")):
            continue
        names = names_in(function.__code__)
        todo += [(function.__globals__[name], owner) for name in names if name in function.__globals__]
        todo += [(contents(cell), owner) for cell in function.__closure__ or ()]
        todo += [(owner._modules.get(name) or inspect.getattr_static(owner, name, None), owner) for name in names]
    return None


class Before:
    """What a layer held before its method ran for the first time."""

    def __init__(self, layer: nn.Module):
        self._parts = [(part, dict(part.__dict__), _copies(part.__dict__)) for part in layer.modules()]
        self._buffers = [(b, b.detach().clone()) for b in layer.buffers()]
        self._random = torch.get_rng_state()

    def restore(self) -> None:
        torch.set_rng_state(self._random)
        for part, attributes, copies in self._parts:
            part.__dict__.clear()
            part.__dict__.update(attributes)
            for held, was in copies:
                held.clear()
                held.extend(was) if isinstance(held, list) else held.update(was)
        with torch.no_grad():
            for buffer, was in self._buffers:
                buffer.copy_(was)


def _copies(attributes: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """The lists, dicts and sets among attributes, each with a copy."""
    return [(v, copy.copy(v)) for v in attributes.values() if type(v) in (list, dict, set)]
