"""What the methods of a user's layer ask for by name: arguments of ``propagate``, and what is known of the edges."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# The arguments of a method, each with whether it may be left out.
Asked = tuple[tuple[str, bool], ...]

EMPTY = inspect.Parameter.empty


@dataclass(frozen=True)
class Sending:
    """One call of ``propagate`` or ``edge_updater``.

    given:     the graph as the user gave it
    graph:     the same as messages flow along it
    kwargs:    the arguments by name, of which node values may be pairs (source, target)
    bipartite: whether the two ends are nodes of two sets
    ptr:       [num_targets + 1] where the edges into each node begin, where the user gave them in this order
    node_dim:  the dimension of the nodes in node values
    backwards: whether messages flow against the edges that the user gave
    """

    given: Any
    graph: Any
    kwargs: Mapping[str, Any]
    bipartite: Any
    ptr: Tensor | None
    node_dim: int
    backwards: bool

    def collected(self, asked: Asked, lift: Callable[[str, Tensor, int | None], Any] | None = None) -> dict[str, Any]:
        """The arguments that a method asks for.

        lift: (name, tensor, end) -> the tensor at an end of the edges, or as it is for no end. By default its rows

        Raises TypeError for one that is missing.
        """
        found: dict[str, Any] = {}
        for name, optional in asked:
            if name in SPECIAL:
                found[name] = _ABOUT[name](self)
                continue
            value, end = self.argument(name)
            if isinstance(value, Tensor):
                value = self.lifted(value, end) if lift is None else lift(name, value, end)
            if value is not EMPTY:
                found[name] = value
            elif not optional:
                raise TypeError(f"Required parameter '{name}' is empty.")
        return found

    def argument(self, name: str) -> tuple[Any, int | None]:
        """What an argument of a method is read from, and the end of the edges at which, if any."""
        if not is_end(name):
            return self.kwargs.get(name, EMPTY), None
        end = 0 if name.endswith("_j") else 1
        value = self.kwargs.get(name[:-2], EMPTY)
        return (value[end] if isinstance(value, tuple | list) else value), end

    def lifted(self, value: Tensor, end: int | None) -> Tensor:
        """The rows of a node value at an end of the edges."""
        return value if end is None else value.index_select(self.node_dim, self.graph.edge_index[end])

    @property
    def edges(self) -> Tensor:
        """[2, E] the way round that the user has them."""
        if isinstance(self.given, Tensor) and self.given.layout is torch.strided:
            return self.given
        edges: Tensor = self.graph.edge_index
        return edges.flip(0) if self.backwards else edges

    @property
    def sizes(self) -> list[Any]:
        """How many nodes there are at the ends in the first and in the second row of ``edges``."""
        sizes = [self.graph.num_sources, self.graph.num_targets]
        return sizes[::-1] if self.backwards else sizes


# Arguments that are about the edges and not among those of ``propagate``.
_ABOUT: dict[str, Callable[[Sending], Any]] = {
    "index": lambda call: call.graph.edge_index[1],
    "ptr": lambda call: call.ptr,
    "size_i": lambda call: call.graph.num_targets,
    "size_j": lambda call: call.graph.num_sources,
    "dim_size": lambda call: call.graph.num_targets,
    "size": lambda call: call.sizes,
    "edge_index": lambda call: call.edges,
    "edge_index_i": lambda call: call.graph.edge_index[1],
    "edge_index_j": lambda call: call.graph.edge_index[0],
    "adj_t": lambda call: call.given if is_matrix(call.given) else None,
}
SPECIAL = frozenset(_ABOUT)

# Which argument the values of a matrix are: the first of these that is asked for.
_VALUES = ("edge_weight", "edge_attr", "edge_type")


def with_values(kwargs: dict[str, Any], values: Tensor, asked: Iterable[Asked]) -> dict[str, Any]:
    """The arguments with the values of the matrix that the graph was given as, [E, ...], where the user gives none.

    One number for each edge is no ``edge_attr``: torch's matrices always have some.
    """
    wanted = {name for arguments in asked for name, _ in arguments}
    name = next((name for name in _VALUES if name in wanted), None)
    if name is None or kwargs.get(name) is not None:
        return kwargs
    return {**kwargs, name: None if name == "edge_attr" and values.dim() == 1 else values}


def is_matrix(given: Any) -> bool:
    """Whether a graph was given as a sparse matrix of torch or torch_sparse, whose rows are targets."""
    if isinstance(given, Tensor):
        return given.layout is not torch.strided
    return type(given).__name__ == "SparseTensor"


def pointer(given: Any, targets: int, backwards: bool) -> Tensor | None:
    """Where the edges into each node begin: of a matrix by rows, or of edges that are known to be sorted."""
    found = None
    if type(given).__name__ == "EdgeIndex" and (given.is_sorted_by_row if backwards else given.is_sorted_by_col):
        (found, _), _ = given.get_csr() if backwards else given.get_csc()
    elif type(given).__name__ == "SparseTensor":
        found = given.csr()[0]
    elif isinstance(given, Tensor) and given.layout is torch.sparse_csr:
        found = given.crow_indices()
    # torch_geometric's sorted edges may not know of nodes without any.
    return found if found is not None and found.numel() == targets + 1 else None


def is_end(name: str) -> bool:
    """Whether an argument asks for a node value at an end of the edges."""
    return name[-2:] in ("_i", "_j") and name not in SPECIAL


def reads_edges(asked: Iterable[Asked]) -> bool:
    """Whether an argument is about the edges or read at their ends, for which a graph must be made."""
    return any(name in SPECIAL or is_end(name) for arguments in asked for name, _ in arguments)


@functools.lru_cache(maxsize=4096)
def ends_of(*asked: Asked) -> tuple[tuple[str, int], ...]:
    """The arguments that are read at an end of the edges: 0 for the source, 1 for the target."""
    names = {name for arguments in asked for name, _ in arguments}
    return tuple(sorted((name[:-2], 0 if name.endswith("_j") else 1) for name in names if is_end(name)))


def asked_by(method: Any, skip: int) -> Asked:
    """The arguments of a method, without the first ones."""
    bound = hasattr(method, "__self__")
    return _arguments(getattr(method, "__func__", method), skip + bound)


@functools.lru_cache(maxsize=4096)
def _arguments(function: Callable[..., Any], skip: int) -> Asked:
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return tuple((p.name, p.default is not p.empty) for p in named)
