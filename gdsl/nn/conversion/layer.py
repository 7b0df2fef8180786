"""One layer of torch_geometric as the one of gdsl.nn, on the same parameters.

The arguments of the layer are read back from it, and torch_geometric's own class is made with them a second time: where
the second one keeps anything else than the first, the layer is left as it is. Where it keeps the same, so does ours.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from gdsl.nn.conversion.arguments import TAKEN, Refused, arguments_of
from gdsl.nn.conversion.making import (
    HOOKS,
    PLAIN,
    alike,
    check_same_state,
    computed_names,
    made,
    modules_in,
    read_with_base,
)
from gdsl.nn.conversion.twins import is_theirs, kind_of, twin_of

# What torch_geometric's layers keep for themselves, and no number depends on.
_INNER = frozenset((
    "inspector", "_user_args", "_fused_user_args", "_edge_user_args", "fuse", "_hook", "_timing_cache",
    "_deterministic", "_use_segment_matmul_heuristic_output", "propagate", "edge_updater",
))  # fmt: skip

_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


def converted(old: nn.Module, put: Callable[[nn.Module], nn.Module], keep_hooks: bool) -> nn.Module:
    """A layer of torch_geometric as ours.

    put:        what a part of the layer becomes: ours, or what it was
    keep_hooks: whether the hooks' handles go on to work, and no longer for the old layer

    Raises :class:`Refused` where it cannot be done exactly.
    """
    kind = kind_of(old)
    twin = twin_of(kind)
    assert twin is not None
    arguments = arguments_of(old, twin)
    if getattr(old, "_explain", None) or getattr(old, "_edge_mask", None) is not None:
        raise Refused("it has an edge mask of an explanation")
    if old.__dict__.get("_compiled_call_impl") is not None:
        raise Refused("its `compile()` was called: convert it before")
    given = {id(m): m for m in (old._modules.get(name) for name in TAKEN.get(kind.__name__, ())) if m is not None}
    arguments, fresh = read_with_base(old, kind, arguments)
    given |= {id(m): m for m in modules_in(arguments.values())}
    mine = {ident: put(module) for ident, module in given.items()}
    new = made(twin, arguments, mine)
    if any(part._non_persistent_buffers_set for part in new.modules()):
        new = _placed(made(twin, arguments, mine, ("cpu",)), old)
    _Filling(given, put, keep_hooks).fill(new, old, fresh, "")
    _keep_cached(new, old)
    if getattr(old, "_explain", None) is False and hasattr(type(new), "explain"):
        new.explain = False  # type: ignore[assignment]  # it is left out of explanations
    _check_complete(new, old)
    return new


def _placed(new: nn.Module, old: nn.Module) -> nn.Module:
    """A module whose own tables, which no state has, are where a layer's parameters are, and in their dtype."""
    floats = [p for p in old.parameters() if p.is_floating_point()]
    for part in new.modules():
        for name in part._non_persistent_buffers_set:
            table = part._buffers[name]
            if table is not None and floats:
                dtype = floats[0].dtype if table.is_floating_point() else table.dtype
                part._buffers[name] = table.to(floats[0].device, dtype)
    return new


class _Filling:
    """Parameters, buffers, parts, attributes and hooks of a layer, into ours."""

    def __init__(self, given: Mapping[int, nn.Module], put: Callable[[nn.Module], nn.Module], keep_hooks: bool):
        self.given = given
        self.put = put
        self.keep_hooks = keep_hooks
        self.filled: dict[int, nn.Module] = {}

    def fill(self, new: nn.Module, old: nn.Module, fresh: nn.Module, path: str) -> nn.Module:
        """Ours with what a layer has.

        fresh: the layer made again, to tell what its constructor does
        """
        if id(old) in self.filled:
            return self.filled[id(old)]
        self.filled[id(old)] = new
        self.check_names(old, fresh, path)
        self.parts(new, old, fresh, path)
        self.attributes(new, old, fresh, path)
        self.tensors(new, old, path)
        self.hooks(new, old, fresh, path)
        new.training = old.training
        return new

    def check_names(self, old: nn.Module, fresh: nn.Module, path: str) -> None:
        """Raises :class:`Refused` where the two have other parameters or buffers."""
        computed = computed_names(old)
        for what in ("_parameters", "_buffers"):
            mine, other = getattr(old, what), getattr(fresh, what)
            for name, value in other.items():
                if name in computed:
                    continue
                have = mine.get(name)
                if name not in mine or (have is None) is not (value is None):
                    raise Refused(f"`{path}{name}` is not what its arguments make")
                lazy = isinstance(value, UninitializedParameter) or isinstance(have, UninitializedParameter)
                if value is not None and not lazy and have.shape != value.shape:
                    sizes = list(have.shape), list(value.shape)
                    raise Refused(f"`{path}{name}` has shape {sizes[0]}, and its arguments make {sizes[1]}")
            if not computed and (more := [name for name in mine if name not in other]):
                raise Refused(f"it has `{path}{more[0]}`, which its class has not")

    def parts(self, new: nn.Module, old: nn.Module, fresh: nn.Module, path: str) -> None:
        for name in {**old._modules, **fresh._modules}:
            if name == "parametrizations":
                continue
            part, like, mine = (m._modules.get(name) for m in (old, fresh, new))
            if part is None and like is None:
                continue
            here = f"{path}{name}"
            if part is None or (like is None and _has_state(part)):
                raise Refused(f"`{here}` is not what its arguments make")
            self.part(new, name, mine, part, like, here)

    def part(
        self, new: nn.Module, name: str, mine: nn.Module | None, part: nn.Module, like: nn.Module | None, here: str
    ) -> None:
        kind = kind_of(part)
        twin = twin_of(kind)
        if id(part) in self.given or like is None:
            put = self.put(part)
        elif mine is not None and _is_inner(kind, twin, type(mine)):
            put = self.fill(mine, part, like, f"{here}.")
        elif mine is None and not _has_state(part):
            return  # what it does, a program does
        elif mine is None:
            raise Refused(f"`{here}` has no place in gdsl.nn's")
        else:
            if twin is None and kind is not kind_of(like):
                raise Refused(f"`{here}` is a {kind.__name__}, and its arguments make a {kind_of(like).__name__}")
            check_same_state(part, like, here)
            put = self.put(part)
        if is_theirs(kind_of(put)):
            raise Refused(f"its part `{here}` stays as it is")
        new._modules[name] = put

    def attributes(self, new: nn.Module, old: nn.Module, fresh: nn.Module, path: str) -> None:
        written = set(getattr(type(fresh).__init__, "__code__", _nothing.__code__).co_names)
        for name, value in old.__dict__.items():
            if name in PLAIN or name in _INNER or name.startswith("_cached") or name in computed_names(old):
                continue
            if name.endswith("_hooks"):
                if value:
                    raise Refused(f"it has hooks of its messages (`{path}{name}`)")
                continue
            if name in ("_explain", "_edge_mask", "_loop_mask", "_apply_sigmoid", "_decomposed_layers"):
                continue
            if isinstance(getattr(type(new), name, None), property):
                continue  # what ours tells from the rest
            if name in fresh.__dict__:
                if alike(value, fresh.__dict__[name]) and not _has_tensors(value):
                    continue
                if name not in new.__dict__ or not alike(new.__dict__[name], fresh.__dict__[name]):
                    raise Refused(f"`{path}{name}` is {value!r}, and its arguments make {fresh.__dict__[name]!r}")
            elif name in written:
                raise Refused(f"`{path}{name}` is not what its arguments make")
            elif callable(getattr(type(old), name, None)):
                raise Refused(f"its `{path}{name}` is another one than that of its class")
            setattr(new, name, (twin_of(value) if isinstance(value, type) else None) or value)
        gone = [n for n in fresh.__dict__ if n not in old.__dict__ and n not in _INNER and n not in computed_names(old)]
        if gone:
            raise Refused(f"`{path}{gone[0]}` was taken away")

    def tensors(self, new: nn.Module, old: nn.Module, path: str) -> None:
        computed = computed_names(old)
        for what in ("_parameters", "_buffers"):
            values, mine = getattr(old, what), getattr(new, what)
            names = [name for name in values if name not in mine]
            if names and not computed and any(values[name] is not None for name in names):
                raise Refused(f"`{path}{names[0]}` has no place in gdsl.nn's")
            own = computed | new._non_persistent_buffers_set
            if more := [n for n, v in mine.items() if n not in values and n not in own and v is not None]:
                raise Refused(f"it has no `{path}{more[0]}`")
        plain = computed & old.__dict__.keys()
        if parametrize.is_parametrized(old):
            parametrized: Any = old.parametrizations
            for name in parametrized:
                parametrize.register_parametrization(new, name, nn.Identity(), unsafe=True)
            new._modules["parametrizations"] = self.put(parametrized)
        for what in ("_parameters", "_buffers"):
            values, mine = getattr(old, what), getattr(new, what)
            for name in plain:
                mine.pop(name, None)
            mine.update({name: value for name, value in values.items() if name in mine or value is not None})
        for name in plain:
            new.__dict__[name] = old.__dict__[name]
        new._non_persistent_buffers_set |= old._non_persistent_buffers_set

    def hooks(self, new: nn.Module, old: nn.Module, fresh: nn.Module, path: str) -> None:
        own = {inspect.unwrap(_function(hook)).__qualname__ for n in HOOKS for hook in _values(fresh.__dict__[n])}
        for name in HOOKS:
            hooks, mine = old.__dict__[name], new.__dict__[name]
            if not isinstance(hooks, dict):
                new.__dict__[name] = hooks
                continue
            kept = {
                key: _bound_to(hook, new)
                for key, hook in hooks.items()
                if not (getattr(_function(hook), "__self__", None) is old and _function(hook).__qualname__ in own)
            }
            if self.keep_hooks:
                before = dict(mine)
                hooks.clear()
                hooks.update(before | kept)
                new.__dict__[name] = hooks
            else:
                mine.update(kept)
        new._is_full_backward_hook = old._is_full_backward_hook


def _is_inner(kind: type, twin: type | None, mine: type) -> bool:
    """Whether a part is one that only a constructor makes, here and there, so that its own parts are looked at."""
    if twin is None:
        return is_theirs(kind) or (kind in _CONTAINERS and mine is kind)
    return mine is not twin and mine.__module__.startswith("gdsl.")


def _nothing() -> None:
    pass


def _values(hooks: Any) -> list[Any]:
    return list(hooks.values()) if isinstance(hooks, dict) else []


def _function(hook: Any) -> Any:
    return getattr(hook, "hook", hook)


def _bound_to(hook: Any, new: nn.Module) -> Any:
    """A hook that torch has wrapped with its module, with ours."""
    return type(hook)(hook.hook, new) if getattr(hook, "with_module", False) else hook


def _has_tensors(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value)


def _has_state(module: nn.Module) -> bool:
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())


def _keep_cached(new: Any, old: Any) -> None:
    """What a layer with ``cached=True`` has seen: features, or a graph with normalised weights."""
    names = ("_cached_x", "_cached_h")  # of SGConv and of SSGConv
    features = next((value for name in names if (value := getattr(old, name, None)) is not None), None)
    edges, matrix = getattr(old, "_cached_edge_index", None), getattr(old, "_cached_adj_t", None)
    if features is not None:
        place = next((name for name in names if hasattr(new, name)), None)
        if place is None:
            raise Refused("gdsl.nn's keeps no features")
        setattr(new, place, features)
    if edges is not None and matrix is not None:
        raise Refused("it has kept two graphs, one of edges and one of a sparse matrix")
    if edges is not None or matrix is not None:
        new._normalised = edges if matrix is None else (matrix, None)


def _tensors_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All tensors that modules keep, by their places."""
    for path, module in model.named_modules():
        for name, value in (*module._parameters.items(), *module._buffers.items(), *module.__dict__.items()):
            for one in value if isinstance(value, list | tuple) else (value,):
                if isinstance(one, Tensor):
                    yield f"{path}.{name}".removeprefix("."), one


def _check_complete(new: nn.Module, old: nn.Module) -> None:
    """Raises :class:`Refused` where a tensor of ours has no numbers."""
    known = {id(value) for _, value in _tensors_of(old)}
    for name, value in _tensors_of(new):
        if value.is_meta and id(value) not in known:
            raise Refused(f"`{name}` has no twin to take its numbers from")
