"""The parts of a torch module: which of them have to run, what decides how one is read, and where their tensors are.

Nothing here holds a module: what is compiled for a layer serves its copies and replicas, each with its own tensors.
"""

from __future__ import annotations

import copy
import functools
import inspect
import operator
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from gdsl.errors import InputError

_PLAIN = frozenset({bool, int, float, str, type(None)})
_WITHOUT_SIZE = (UninitializedParameter, UninitializedBuffer)
_NUMBERS = (int, float, str, list, tuple)
# What every module has of torch's own, or a replica of one.
_TORCHS = (frozenset(nn.Module().__dict__) | {"_is_replica", "_former_parameters"}) - {"training"}

# The classes that can be read, and what of them decides how; further classes are looked at as a whole.
OPTIONS: dict[type, Callable[[nn.Module], tuple[Any, ...]]] = {
    kind: operator.attrgetter("training", *names)
    for kind, *names in (
        (nn.Sequential, "training"),
        (nn.Linear, "in_features", "out_features"),
        (nn.BatchNorm1d, "num_features", "eps"),
        (nn.LayerNorm, "normalized_shape", "eps"),
        (nn.Dropout, "p"),
        (nn.GELU, "approximate"),
        (nn.Softplus, "beta", "threshold"),
        (nn.Identity, "training"),
        (nn.ReLU, "inplace"),
        (nn.Tanh, "training"),
        (nn.Sigmoid, "training"),
        (nn.SiLU, "inplace"),
        (nn.LeakyReLU, "negative_slope"),
        (nn.ELU, "alpha"),
        (nn.GRUCell, "input_size", "hidden_size"),
        (nn.LSTMCell, "input_size", "hidden_size"),
        (nn.RNNCell, "input_size", "hidden_size", "nonlinearity"),
    )
}


class Itself(nn.Module):
    """An aggregation seen from inside its own call: its hooks have been called, so that it can be read."""

    def __init__(self, aggr: nn.Module):
        super().__init__()
        self.aggr = aggr

    def read_aggregation(self, reader: Any, path: str, *value: Any) -> Any:
        inner: Any = self.aggr
        return inner.read_aggregation(reader, f"{path}.aggr", *value)


# ------------------------------------------------------------------------------------ what is read


def read_as(module: nn.Module) -> type:
    """The class that says how a module is read: its own, unless that one says that it computes as another does."""
    kind = class_of(module)
    found: type = kind.__dict__.get("reads_as", kind)
    return found


def class_of(module: nn.Module) -> type:
    """The class of a module, also where torch.export shows one that has two places by a stand-in of a subclass."""
    kind = type(module)
    bases = kind.__bases__
    return bases[1] if len(bases) == 2 and bases[0].__name__ == "AttrProxy" else kind


# Hooks on every module of the process, by kinds.
GLOBAL_HOOKS = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)


def global_hooks() -> bool:
    """Whether there are hooks on every module of the process."""
    return any(GLOBAL_HOOKS)


def changed(part: nn.Module) -> bool:
    """Whether a call of this part does more, or something else, than its class says."""
    return bool(
        part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
        or "forward" in part.__dict__
    )


def must_run(part: nn.Module) -> bool:
    """Whether nothing may read past a call of this part."""
    return class_of(part) is not Itself and (global_hooks() or changed(part))


def states(modules: Iterable[nn.Module | None]) -> tuple[Any, ...]:
    """What decides how modules are read into a program: a change of it asks for another program."""
    return (global_hooks(), *[None if module is None else _state(module) for module in modules])


def _state(module: nn.Module) -> tuple[Any, ...]:
    """The same of one module and the parts in it.

    It names no module, so that replicas have the same, but for modules of the user's: what they give is only known
    from running them. A replica of theirs is taken to give what the other one gives.
    """
    kind = class_of(module)
    options = OPTIONS.get(read_as(module))
    if options is not None:
        facts = (kind, changed(module), options(module), *_absent(module))
    elif hasattr(kind, "read_aggregation") or kind.__module__.startswith("torch.nn.modules."):
        facts = _facts(module)
    else:
        who = None if module.__dict__.get("_is_replica") else weakref.ref(module)
        return (who, *[_facts(part) for part in module.modules()])
    inner = module._modules
    return (facts, *[(name, part and _state(part)) for name, part in inner.items()]) if inner else facts


def can_be_read(part: nn.Module) -> bool:
    """Whether a part is of a class that a program may read."""
    own = class_of(part).__dict__
    return (
        read_as(part) in OPTIONS
        or hasattr(class_of(part), "read_aggregation")
        or "read_parts" in own
        or "read_value" in own
    )


def has_plain_options(module: nn.Module) -> bool:
    """Whether the options of a module whose class can be read are numbers and names: a tensor may change in place."""
    values = OPTIONS[read_as(module)](module)
    return all(type(value) in _PLAIN or type(value) is tuple for value in values)


def _facts(part: nn.Module) -> tuple[Any, ...]:
    """Class, hooks, plain attributes, and the parameters and buffers that are None."""
    kind = class_of(part)
    found: list[Any] = [kind, changed(part)]
    # What torch's own keep for themselves, such as the names of an LSTM's weights, follows from the rest.
    hidden = "_" if kind.__module__.startswith("torch.nn.modules.") else "\0"
    for item in part.__dict__.items():
        name, value = item
        if name not in _TORCHS and not name.startswith(hidden):
            if type(value) in _PLAIN:
                found.append(item)
            elif isinstance(value, _NUMBERS):
                found.append((name, _plain(value)))
    return (*found, *_absent(part))


def _absent(part: nn.Module) -> list[str]:
    return [name for kept in (part._parameters, part._buffers) for name, value in kept.items() if value is None]


def _plain(value: Any) -> Any:
    """What there is of numbers and names in an attribute."""
    if isinstance(value, list | tuple):
        return tuple([_plain(v) for v in value])
    return value if isinstance(value, _NUMBERS) else None


# ------------------------------------------------------------------------------------ where it is


@functools.cache
def _places(name: str) -> tuple[tuple[str, ...], str]:
    *path, leaf = name.split(".")
    return tuple(path), leaf


def part_of(owner: nn.Module, path: Iterable[str]) -> Any:
    """The part of a module at the end of a path of names; None where there is none."""
    found: Any = owner
    for name in path:
        inner = found._modules.get(name)
        found = getattr(found, name, None) if inner is None else inner
        if found is None:
            return None
    return found


def module_of(owner: nn.Module, name: str) -> nn.Module:
    """A part of a module by its name, "lins.0".

    Raises :class:`gdsl.InputError` where there is none.
    """
    found = part_of(owner, name.split("."))
    if not isinstance(found, nn.Module):
        raise InputError(f"the layer has no part `{name}`")
    return found


def tensor_of(owner: nn.Module, name: str) -> Tensor:
    """A tensor of a module by its name, "lin.weight": the one that the module computes with at this moment.

    Not all of them are parameters: replicas, pruned modules and FSDP keep tensors as attributes, and a parametrised one
    is computed.

    Raises :class:`gdsl.InputError` where there is none.
    """
    path, leaf = _places(name)
    found = part_of(owner, path) if path else owner
    value = None if found is None else found._parameters.get(leaf)
    if value is None:
        value = getattr(found, leaf, None)
        if not isinstance(value, Tensor):
            raise InputError(f"the layer has no parameter `{name}`")
    return value


# ------------------------------------------------------------------------------------ what runs


def twin(module: nn.Module) -> nn.Module:
    """A copy to try out: with tensors, lists and counters of its own, and without hooks, in evaluation mode.

    ``copy.deepcopy`` refuses modules whose tensors are computed, as pruned ones are.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return copy.deepcopy(module).eval()
    made: nn.Module = _copied(module, {})
    return made.eval()


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, Tensor) and not isinstance(value, _WITHOUT_SIZE):
        made: Any = _fresh(value)
    elif isinstance(value, nn.Module) and not isinstance(value, torch.jit.ScriptModule):
        made = value.__class__.__new__(value.__class__)
        memo[id(value)] = made
        # A module without sizes takes them in a hook.
        lazy = any(isinstance(p, _WITHOUT_SIZE) for p in value._parameters.values())
        own = made.__dict__
        for name, inner in value.__dict__.items():
            hooks = not lazy and name.endswith("_hooks") and isinstance(inner, dict)
            own[name] = type(inner)() if hooks else _copied(inner, memo)
        if not lazy:
            own["_compiled_call_impl"] = made.forward  # what a call then is: global hooks are not told either
    elif type(value) in (dict, OrderedDict):
        made = type(value)((k, _copied(v, memo)) for k, v in value.items())
    elif type(value) in (list, tuple, set):
        made = type(value)(_copied(v, memo) for v in value)
    else:
        try:
            made = copy.deepcopy(value, memo)
        except Exception:  # a lock, an open file: whatever cannot be copied is shared
            made = value
    memo[id(value)] = made
    return made


def _fresh(value: Tensor) -> Tensor:
    """A tensor with memory of its own. The numbers of a shard or of a tensor under a transform are not to be had."""
    plain = type(value) in (Tensor, nn.Parameter) and not torch._C._functorch.is_functorch_wrapped_tensor(value)
    if plain and value.device.type != "meta":
        made = value.detach().clone()
    else:
        made = torch.zeros(value.shape, dtype=value.dtype, device=value.device)
    return nn.Parameter(made, value.requires_grad) if isinstance(value, nn.Parameter) else made


def on_rows(module: nn.Module, values: Sequence[Tensor]) -> Any:
    """Call a module on the rows of a program's values. These are no variables: an input, what later rules read and what
    is kept for the backward pass is not written to.
    """
    writes = any(getattr(part, "inplace", False) for part in module.modules())
    return _called(module, [v.clone() for v in values] if writes else values)


def _called(module: nn.Module, values: Sequence[Tensor]) -> Any:
    """The state of an LSTM and its cell are two tensors to torch; to a program they are the two places of a dim."""
    if isinstance(module, nn.LSTMCell) and len(values) == 3:
        return torch.stack(module(values[0], (values[1], values[2])), 1)
    return module(*values)


def operands(values: Sequence[Tensor]) -> list[Tensor]:
    """Values as modules take them: integers as torch has them."""
    return [v if v.is_floating_point() else v.long() for v in values]


def aggregate(module: nn.Module, values: Sequence[Tensor], index: Tensor, groups: int) -> Any:
    """Call an aggregating module on the rows of values, sorted by group. Where rows have other dims than one, it is
    told which dim is that of the rows, as in torch_geometric, if it takes that.
    """
    more = {"dim": 0} if values[0].dim() != 2 and "dim" in inspect.signature(module.forward).parameters else {}
    return module(*values, index=index, ptr=None, dim_size=groups, **more)


def try_rows(module: nn.Module, rows: Iterable[tuple[tuple[int, ...], bool]], aggregates: bool) -> Any:
    """What a module gives for two rows of zeros of each shape, real numbers or integers. It leaves no trace in it.

    aggregates: whether it is told that each row is a group
    """
    made = twin(module)
    like = next((t for t in _tensors(made) if t.is_floating_point()), torch.zeros(()))
    given = [
        torch.zeros((2, *shape), dtype=like.dtype if real else torch.int64, device=like.device) for shape, real in rows
    ]
    # A forward that was put in the place of a class's often calls the module itself.
    reaches = any("forward" in part.__dict__ for part in module.modules())
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()] if reaches else []
    try:
        return aggregate(made, given, torch.arange(2, device=like.device), 2) if aggregates else _called(made, given)
    finally:
        for buffer, before in kept:
            if not torch.equal(buffer, before):
                buffer.copy_(before)


def _tensors(module: nn.Module) -> Iterable[Tensor]:
    for part in module.modules():
        kept = (*part._parameters.values(), *part._buffers.values(), *part.__dict__.values())
        yield from (t for t in kept if isinstance(t, Tensor) and not isinstance(t, _WITHOUT_SIZE))
