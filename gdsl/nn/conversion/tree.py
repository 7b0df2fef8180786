"""A model with its torch_geometric layers replaced: which ones, and by a copy or in place."""

from __future__ import annotations

import copy
import types
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from gdsl.errors import InputError
from gdsl.nn.conversion.arguments import Refused
from gdsl.nn.conversion.layer import converted
from gdsl.nn.conversion.making import HOOKS
from gdsl.nn.conversion.report import Conversion, Left
from gdsl.nn.conversion.twins import is_theirs, kind_of, twin_of

# Wrappers that own the parameters of what they wrap, or copies of them.
_SHARDED = ("FSDPModule", "FullyShardedDataParallel")


def planned(model: nn.Module, check_copies: bool) -> tuple[nn.Module, Conversion, dict[int, str]]:
    """A copy of a model with its layers replaced, what became of each, and why others stay.

    Nothing of the model is changed. A layer that has to stay keeps its parts, so that nothing in it is another than its
    class expects: as often as one is found, all is begun anew.
    """
    stay: dict[int, str] = {}
    while True:
        walk = Walk(stay, in_place=False, wrapped=not check_copies)
        try:
            copied = walk.put(model)
        except _Again as again:
            stay[id(again.layer)] = again.reason
            continue
        walk.rewrite()
        return copied, walk.report(model), stay


def replaced(model: nn.Module, stay: Mapping[int, str]) -> nn.Module:
    """The same in place, as :func:`planned` has found."""
    walk = Walk(stay, in_place=True)
    result = walk.put(model)
    walk.rewrite()
    return result


def copied(model: nn.Module) -> nn.Module:
    """A model of its own on the same parameters."""
    walk = Walk({}, in_place=False)
    walk.whole = True
    result = walk.put(model)
    walk.rewrite()
    return result


class _Again(Exception):
    """A layer has to stay."""

    def __init__(self, layer: nn.Module, reason: str):
        self.layer, self.reason = layer, reason


@dataclass
class Walk:
    """One way through a model.

    stay:    the layers that stay, and why
    wrapped: whether wrappers that cannot be copied are let through, for a copy that nobody gets
    new:     what each module becomes, by its id
    old:     the modules of these ids, which must live as long
    """

    stay: Mapping[int, str]
    in_place: bool
    wrapped: bool = True
    new: dict[int, nn.Module] = field(default_factory=dict)
    old: dict[int, nn.Module] = field(default_factory=dict)
    whole: bool = False

    def put(self, module: nn.Module) -> nn.Module:
        """What a module becomes."""
        if id(module) in self.new:
            return self.new[id(module)]
        self.old[id(module)] = module
        kind = kind_of(module)
        if self.whole or id(module) in self.stay or twin_of(kind) is None:
            return self.keep(module)
        try:
            made = converted(module, self.put, keep_hooks=self.in_place)
        except Refused as reason:
            raise _Again(module, str(reason)) from reason
        self.new[id(module)] = made
        return made

    def keep(self, module: nn.Module) -> nn.Module:
        """A module of another kind with its parts replaced: itself, or a copy on the same parameters."""
        if isinstance(module, torch.jit.ScriptModule):
            self.new[id(module)] = module
            return module
        _check_not_sharded(module, self.wrapped)
        outer = self.whole
        self.whole = outer or (_passes_messages(module) and is_theirs(kind_of(module)))
        try:
            return self.compiled(module) if "_orig_mod" in module._modules else self.plain(module)
        finally:
            self.whole = outer

    def plain(self, module: nn.Module) -> nn.Module:
        kept = module if self.in_place else _copied(module)
        self.new[id(module)] = kept
        for name, part in module._modules.items():
            if part is not None:
                # A user's own layer calls its aggregation as torch_geometric's base class does.
                outer, self.whole = self.whole, self.whole or (name == "aggr_module" and _passes_messages(module))
                kept._modules[name] = self.put(part)
                self.whole = outer
        return kept

    def compiled(self, module: Any) -> nn.Module:
        """What torch.compile made of a module: of ours, the same way."""
        inside = self.put(module._orig_mod)
        kept = module if inside is module._orig_mod else type(module)(inside, module.dynamo_ctx)
        self.new[id(module)] = kept
        return kept

    def rewrite(self) -> None:
        """In lists, bound methods and hooks that modules keep, what has been replaced."""
        seen: dict[int, Any] = {}
        for module in self.new.values():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            for name, value in list(module.__dict__.items()):
                if name not in ("_parameters", "_buffers", "_modules", *HOOKS):
                    other = self.rewritten(value, seen)
                    if other is not value:
                        module.__dict__[name] = other
                elif name in HOOKS and isinstance(value, dict):
                    for key, hook in value.items():
                        if getattr(hook, "with_module", False):  # torch has wrapped it with its module
                            value[key] = type(hook)(hook.hook, module)
                        else:
                            value[key] = self.rewritten(hook, seen)

    def rewritten(self, value: Any, seen: dict[int, Any]) -> Any:
        """A value with the new modules in the place of the old ones, or itself where it has none."""
        if isinstance(value, nn.Module):
            return self.new.get(id(value), value)
        if isinstance(value, types.MethodType) and isinstance(value.__self__, nn.Module):
            owner = self.new.get(id(value.__self__), value.__self__)
            if owner is value.__self__:
                return value
            # What torch_geometric's layer does, ours does by its own method of that name.
            own = getattr(type(value.__self__), value.__name__, None) is value.__func__
            method = getattr(type(owner), value.__name__, None) if own else value.__func__
            return value if method is None else types.MethodType(method, owner)
        if type(value) not in (list, tuple, dict, set, OrderedDict):
            return value
        if id(value) not in seen:
            seen[id(value)] = (value, value)  # for one that has itself inside
            if isinstance(value, dict):
                other: Any = type(value)((k, self.rewritten(v, seen)) for k, v in value.items())
                same = all(other[k] is v for k, v in value.items())
            else:
                items = [self.rewritten(v, seen) for v in value]
                other, same = type(value)(items), all(map(lambda a, b: a is b, items, value))
            if same and (self.in_place or type(value) is tuple):
                other = value
            elif self.in_place and isinstance(value, list | dict):
                value.clear()
                value.extend(other) if isinstance(value, list) else value.update(other)
                other = value
            seen[id(value)] = (value, other)
        return seen[id(value)][1]

    def report(self, model: nn.Module) -> Conversion:
        """What became of each module, by its place in the model."""
        found: dict[str, str] = {}
        left: dict[str, Left] = {}
        theirs: list[str] = []
        for name, module in model.named_modules():
            kind, new = kind_of(module), self.new.get(id(module))
            if any(_is_inside(name, other) for other in found):
                continue
            if new is not None and twin_of(kind) is kind_of(new):
                found[name] = kind.__name__
            elif (reason := self.reason(module, kind)) and not any(_is_inside(name, other) for other in theirs):
                left[name] = Left(kind.__name__, reason)
                theirs += [name] if is_theirs(kind) else []
        # A model of torch_geometric's is a frame around the layers that it has.
        frames = [n for n, why in left.items() if why.reason == _NONE and any(_is_inside(other, n) for other in found)]
        return Conversion(found, {name: why for name, why in left.items() if name not in frames})

    def reason(self, module: nn.Module, kind: type) -> str:
        """Why a module stays, or nothing where it is none of torch_geometric's."""
        if id(module) in self.stay:
            return self.stay[id(module)]
        if isinstance(module, torch.jit.ScriptModule):
            return "it is scripted"
        if is_theirs(kind):
            return _NONE if twin_of(kind) is None else ""
        base = next((k for k in kind.__mro__[1:] if is_theirs(k)), None)
        if base is None or any(k.__module__.startswith("gdsl.") for k in kind.__mro__):  # which have its bases, too
            return ""
        if base.__name__ == "MessagePassing":
            return "a layer of your own: derive it from gdsl.nn.MessagePassing, which fuses its message where it can"
        return f"a class of your own, derived from {base.__name__}: derive it from gdsl.nn.{base.__name__}"


_NONE = "gdsl.nn has no such class"


def _is_inside(name: str, other: str) -> bool:
    """Whether a module's place is below another's."""
    return name != other and (not other or name.startswith(f"{other}."))


def _passes_messages(module: nn.Module) -> bool:
    return any(k.__name__ == "MessagePassing" and is_theirs(k) for k in type(module).__mro__)


def _check_not_sharded(module: nn.Module, wrapped: bool) -> None:
    """Raises :class:`gdsl.InputError` for a wrapper that cannot go on with other modules inside."""
    names = [kind.__name__ for kind in type(module).__mro__]
    if any(name in _SHARDED for name in names):
        raise InputError("the model's parameters are sharded: convert the model first, and shard the result")
    if "DistributedDataParallel" in names and not wrapped:
        raise InputError(
            "DistributedDataParallel cannot be copied: convert the model before it is wrapped, or with `inplace=True`"
        )


def _copied(module: nn.Module) -> nn.Module:
    """A module of its own on the same parameters, buffers and parts, as torch copies replicas."""
    if hasattr(type(module), "__copy__"):  # torch.fx gives each a class
        return copy.copy(module)
    made: nn.Module = object.__new__(type(module))
    made.__dict__.update(module.__dict__)
    made.__dict__.pop("_compiled_call_impl", None)
    for name in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", *HOOKS):
        value = module.__dict__.get(name)
        if value is not None and not isinstance(value, bool):
            made.__dict__[name] = value.copy()
    return made
