"""Classes that torch_geometric takes for its own, where it is there: its tools ask what a module is an instance of.

Nothing here imports torch_geometric. An empty base of ours stands where torch_geometric's class is to be among the
bases, and gives its place to it: at once where that is imported already, else when it is.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeVar

from torch import nn

Class = TypeVar("Class", bound=type[nn.Module])

# By the modules that are not imported yet: what stands for which class of theirs.
_waiting: dict[str, list[tuple[type[nn.Module], str]]] = {}


class NotOurs:
    """A name of torch_geometric's class that ours does not have."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, module: nn.Module | None, owner: type) -> Any:
        raise AttributeError(f"type object '{owner.__name__}' has no attribute '{self.name}'")


def stands_for(module: str, name: str) -> Callable[[Class], Class]:
    """The decorator of a class without anything in it: it gets the class of this name and module as its base, once that
    is imported, and hides what it would inherit of it, so that nothing changes but what its instances are.
    """

    def register(ours: Class) -> Class:
        imported = sys.modules.get(module)
        theirs = getattr(imported, name, None)
        if theirs is None:
            _waiting.setdefault(module, []).append((ours, name))
        else:
            _take(ours, theirs)
        return ours

    return register


def is_imported() -> bool:
    """Whether there may be tools of torch_geometric's that ask."""
    return "torch_geometric.nn.conv.message_passing" in sys.modules


def hidden_names(ours: type[nn.Module]) -> set[str]:
    """What completion would show of torch_geometric's class, and ours does not have."""
    return {name for kind in ours.__mro__ for name, value in vars(kind).items() if isinstance(value, NotOurs)}


def _take(ours: type[nn.Module], theirs: type[nn.Module]) -> None:
    for kind in theirs.__mro__[: theirs.__mro__.index(nn.Module)]:
        for name in vars(kind).keys() - vars(ours).keys() - _OF_EACH_CLASS:
            value: Any = NotOurs()
            if name == "__call__":
                value = _call
            elif hasattr(nn.Module, name):
                value = getattr(nn.Module, name)
            else:
                value.__set_name__(ours, name)
            setattr(ours, name, value)
    ours.__bases__ = (theirs,)


def _call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Looked up in each call, since tracers put another one in its place."""
    return nn.Module.__call__(module, *args, **kwargs)


_OF_EACH_CLASS = vars(type("Empty", (nn.Module,), {"__annotations__": {}})).keys() | {
    "__annotate__", "__annotate_func__", "__annotations_cache__", "__firstlineno__", "__static_attributes__",
    "__parameters__", "__orig_bases__", "__slots__",
}  # fmt: skip


class _Arrivals(MetaPathFinder):
    """Sees that one of the modules is about to be imported, and finds nothing itself."""

    def __init__(self) -> None:
        self.looking: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _waiting or fullname in self.looking:
            return None
        self.looking.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.looking.discard(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def executed(module: ModuleType) -> None:
                execute(module)
                for ours, name in _waiting.pop(fullname, []):
                    _take(ours, getattr(module, name))

            spec.loader.exec_module = executed  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Arrivals())
