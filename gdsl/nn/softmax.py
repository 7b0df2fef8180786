"""The softmax over the edges into a node, which a user's ``message`` calls by torch_geometric's name or by ours."""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from gdsl.nn.grouped import count_in, group_of_each
from gdsl.nn.reach import contents, names_in
from gdsl.nn.symbols import Symbol


def softmax(
    src: Tensor, index: Tensor, ptr: Tensor | None = None, num_nodes: int | None = None, dim: int = 0
) -> Tensor:
    """The softmax of the rows of each group, as ``torch_geometric.utils.softmax``; part of the program in ``message``.

    src:       [E, ...]
    index:     [E] the group of each row
    num_nodes: the number of groups; without it the largest index plus one
    """
    if isinstance(src, Symbol):
        return src.tracing.softmax(softmax, src, index, ptr, num_nodes, dim)
    size = count_in(index) if num_nodes is None else num_nodes
    place = group_of_each(src, index, dim)
    full = list(src.shape)
    full[dim] = size
    top = src.new_zeros(full).scatter_reduce(dim, place, src.detach(), "amax", include_self=False)
    raised = (src - top.index_select(dim, index)).exp()
    total = raised.new_zeros(full).scatter_add(dim, place, raised) + 1e-16
    return raised / total.index_select(dim, index)


@functools.cache
def _softmax_of(theirs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch_geometric's softmax, put off where it is given a Symbol."""

    @functools.wraps(theirs)
    def put_off(src: Tensor, index: Any, ptr: Any = None, num_nodes: Any = None, dim: int = 0) -> Tensor:
        if isinstance(src, Symbol):
            return src.tracing.softmax(theirs, src, index, ptr, num_nodes, dim)
        return theirs(src, index, ptr, num_nodes, dim)

    return put_off


class _Globals(dict[str, Any]):
    """Names in front of the globals of a module."""

    def __init__(self, outer: dict[str, Any], names: Mapping[str, Any]):
        super().__init__(names)
        self.outer = outer

    def __missing__(self, name: str) -> Any:
        return self.outer[name]


def with_softmax(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that calls torch_geometric's softmax by a global name, with one that can be put off in its place."""
    theirs = getattr(sys.modules.get("torch_geometric.utils"), "softmax", None)
    function = getattr(method, "__func__", None)
    if theirs is None or type(function) is not types.FunctionType:
        return method
    outer = function.__globals__
    names = [name for name in names_in(function.__code__) if outer.get(name) is theirs]
    cells = function.__closure__ or ()
    closed = [cell for cell in cells if contents(cell) is theirs]
    if (not names and not closed) or _writes_globals(function.__code__):
        return method
    ours = _softmax_of(theirs)
    known = _Globals(outer, {"__builtins__": outer["__builtins__"], **dict.fromkeys(names, ours)})
    twin = types.FunctionType(
        function.__code__,
        known if names else outer,
        function.__name__,
        function.__defaults__,
        tuple(types.CellType(ours) if cell in closed else cell for cell in cells),
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    return types.MethodType(twin, method.__self__)  # type: ignore[attr-defined]


@functools.lru_cache(maxsize=1024)
def _writes_globals(code: types.CodeType) -> bool:
    inside = (_writes_globals(c) for c in code.co_consts if isinstance(c, types.CodeType))
    own = any(i.opname in ("STORE_GLOBAL", "DELETE_GLOBAL") for i in dis.get_instructions(code))
    return own or any(inside)
