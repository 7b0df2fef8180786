"""Layers made again: with arguments and without memory, and whether two are the same."""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from gdsl.nn.conversion.arguments import Maker, Refused
from gdsl.nn.conversion.twins import kind_of

# What a module of torch has: parts, parameters and hooks, which are moved each by itself.
PLAIN = frozenset(nn.Module().__dict__)
HOOKS = tuple(name for name in nn.Module().__dict__ if "hooks" in name)

# Arguments of the base of the layers, which their constructors take besides those that they name.
_OF_BASE = ("aggr", "flow", "node_dim", "decomposed_layers")


def read_with_base(old: nn.Module, kind: type, arguments: dict[str, Any]) -> tuple[dict[str, Any], nn.Module]:
    """The arguments of a layer with those of its base class, and the layer that they make.

    An aggregation is told by its name where that makes the same one, else it is given as it is.
    """
    aggr: Any = old._modules.get("aggr_module")
    try:
        fresh = made(kind, arguments, {})
        arguments = arguments | {name: getattr(old, name) for name in _OF_BASE if _differs(old, fresh, name)}
        fresh = made(kind, arguments, {})
        if aggr is None or same_state(aggr, fresh.get_submodule("aggr_module")):
            return arguments, fresh
    except Refused:
        if aggr is None or isinstance(arguments.get("aggr"), nn.Module):
            raise
    arguments = arguments | {"aggr": aggr}
    return arguments, made(kind, arguments, {})


def _differs(old: nn.Module, fresh: nn.Module, name: str) -> bool:
    missing = object()
    return not alike(getattr(old, name, missing), getattr(fresh, name, missing))


def made(
    kind: type, arguments: Mapping[str, Any], mine: Mapping[int, nn.Module], devices: tuple[str, ...] = ("meta", "cpu")
) -> nn.Module:
    """A module of a class by arguments, without a draw and, on the first device, without memory for its parameters."""
    shells: dict[int, nn.Module] = {}

    def stand_in(value: Any, device: str) -> Any:
        if isinstance(value, Maker):
            return lambda *args, **kwargs: stand_in(value.made, device)
        if isinstance(value, nn.Module):
            return _shell(mine.get(id(value), value), shells)
        if isinstance(value, Tensor):
            return value.detach().to(device)
        if isinstance(value, list | tuple):
            return type(value)(stand_in(v, device) for v in value)
        return {k: stand_in(v, device) for k, v in value.items()} if isinstance(value, dict) else value

    for device in devices:  # where a constructor computes with numbers, it has to have some
        try:
            with torch.random.fork_rng(devices=[]), torch.device(device), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return kind(**{name: stand_in(value, device) for name, value in arguments.items()})
        except Exception as error:
            why = error
    raise Refused(f"{kind.__name__} cannot be made again with its arguments: {why}")


def _shell(module: nn.Module, made: dict[int, nn.Module]) -> nn.Module:
    """The same modules on parameters without numbers, for a constructor to look at and to draw."""
    if id(module) not in made:
        shell = object.__new__(type(module))
        made[id(module)] = shell
        shell.__dict__.update({k: _without_numbers(v) for k, v in module.__dict__.items()})
        for name in ("_parameters", "_buffers"):
            shell.__dict__[name] = {k: _without_numbers(v) for k, v in module.__dict__[name].items()}
        for name in HOOKS:
            shell.__dict__[name] = module.__dict__[name].copy()
        shell.__dict__["_modules"] = {k: m and _shell(m, made) for k, m in module._modules.items()}
    return made[id(module)]


def _without_numbers(value: Any) -> Any:
    if isinstance(value, UninitializedParameter):
        return UninitializedParameter(value.requires_grad, device="meta")  # type: ignore[call-arg, arg-type]
    if isinstance(value, nn.Parameter):
        return nn.Parameter(value.detach().to("meta"), value.requires_grad)
    return value.detach().to("meta") if isinstance(value, Tensor) else value


def modules_in(values: Any) -> Iterator[nn.Module]:
    for value in values:
        if isinstance(value, Maker):
            yield value.made
        elif isinstance(value, nn.Module):
            yield value
        elif isinstance(value, list | tuple):
            yield from modules_in(value)
        elif isinstance(value, dict):
            yield from modules_in(value.values())


def alike(a: Any, b: Any) -> bool:
    """Whether two values that modules keep are the same, as far as can be seen."""
    if isinstance(a, nn.Module) or isinstance(b, nn.Module):
        return type(a) is type(b)  # its parts are looked at elsewhere
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, types.FunctionType | types.MethodType):
        return a is b or a.__qualname__ == b.__qualname__
    if isinstance(a, int | float | str | bool | torch.dtype | type | None | set | frozenset):
        return a == b or a != a
    return a is b or type(a) is type(b)


def computed_names(module: nn.Module) -> set[str]:
    """Tensors that are made of parameters before each call: parametrized, weight-normed, pruned ones."""
    found = {name for name, value in module.__dict__.items() if isinstance(value, Tensor) and name not in PLAIN}
    made: Any = module.parametrizations if parametrize.is_parametrized(module) else ()
    return found | {*made}


def same_state(part: nn.Module, like: nn.Module) -> bool:
    """Whether two modules are of one class with parameters of the same names and sizes."""
    try:
        check_same_state(part, like, "")
    except Refused:
        return False
    return kind_of(part) is kind_of(like)


def check_same_state(part: nn.Module, like: nn.Module, path: str) -> None:
    def shapes(module: nn.Module) -> dict[str, Any]:
        computed = any(computed_names(m) for m in part.modules())
        return (
            {}
            if computed
            else {
                name: None if isinstance(value, UninitializedParameter) else tuple(value.shape)
                for name, value in (
                    *module.named_parameters(remove_duplicate=False),
                    *module.named_buffers(remove_duplicate=False),
                )
            }
        )

    mine, other = shapes(part), shapes(like)
    if mine.keys() != other.keys():
        odd = sorted(mine.keys() ^ other.keys())[0]
        raise Refused(f"`{path}.{odd}` is not what its arguments make")
    for name, shape in mine.items():
        if None not in (shape, other[name]) and shape != other[name]:
            raise Refused(f"`{path}.{name}` has shape {list(shape)}, and its arguments make {list(other[name])}")
