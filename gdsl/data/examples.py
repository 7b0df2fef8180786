"""The graphs of a batch one by one, as torch_geometric's objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gdsl.data import given
from gdsl.data.columns import Column
from gdsl.errors import InputError

if TYPE_CHECKING:
    from gdsl.data.batch import Batch, Type

# Attributes from which torch_geometric tells how many nodes there are.
TELLING = ("x", "pos")


@dataclass(frozen=True)
class Cut:
    """How an attribute of a batch is cut into those of its graphs.

    length, shifts  which of the offsets tell where each graph begins, and what was added to its numbers: one for each
                    of ``rows``, the dimensions before the joined one
    """

    length: int
    along: int
    rows: tuple[int, ...]
    shifts: tuple[int, ...]
    whole: bool

    @classmethod
    def of(cls, column: Column) -> Cut:
        rows = tuple(n for n in column.shape[: column.joined] if n is not None)
        return cls(column.length, column.joined, rows, column.shifts, column.whole)

    def __call__(self, name: str, value: Tensor, placed: Tensor, graph: int) -> Tensor:
        """The part of a graph."""
        bounds = placed[self.length]
        if value.dim() <= self.along or value.shape[self.along] != int(bounds[-1]):
            raise InputError(
                f"`{name}` of the batch has shape {list(value.shape)} now, and cannot be cut into graphs: they have "
                f"{int(bounds[-1])} along dimension {self.along}"
            )
        first, last = int(bounds[graph]), int(bounds[graph + 1])
        found = value.narrow(self.along, first, last - first)
        if self.shifts:
            more = placed[list(self.shifts), graph].reshape(*self.rows, *[1] * (value.dim() - len(self.rows)))
            found = found - more.to(found.device, found.dtype)
        return found.squeeze(0) if self.whole else found


@dataclass(frozen=True)
class Layout:
    """What is known of all batches of a data set.

    nodes  of each type of nodes, which of the offsets counts them
    """

    cuts: Mapping[tuple[Type, str], Cut]
    lists: frozenset[tuple[Type, str]]
    nodes: Mapping[str, int]


@dataclass(frozen=True)
class Examples:
    """Where the graphs of a batch lie in it: ``placed`` [offsets, graphs + 1] int64."""

    layout: Layout
    placed: Tensor

    def example(self, batch: Batch, graph: Any) -> Any:
        """See :meth:`gdsl.data.Batch.get_example`."""
        count, number = self.placed.shape[1] - 1, given.integer("the number of a graph", graph)
        if not -count <= number < count:
            raise InputError(f"there is no graph {number} in this batch: there are {count}, numbered from 0")
        number %= count
        data = _empty(bool(batch.node_types))
        for (type, name), cut in self.layout.cuts.items():
            store = batch[type] if type else batch
            if name in store:
                self._of(data, type)[name] = cut(name, store[name], self.placed, number)
        for type, name in self.layout.lists:
            store = batch[type] if type else batch
            if name in store:
                self._of(data, type)[name] = store[name][number]
        for type, k in self.layout.nodes.items():
            store = self._of(data, type)
            if not any(name in store for name in TELLING):
                store.num_nodes = int(self.placed[k, number + 1] - self.placed[k, number])
        return data

    def chosen(self, which: Any) -> list[int]:
        """The numbers of some graphs, which are named as those of a list are."""
        count = self.placed.shape[1] - 1
        if isinstance(which, slice):
            return list(range(count)[which])
        ids = given.tensor("the numbers of graphs", which).flatten()
        if ids.dtype is torch.bool:
            if len(ids) != count:
                raise InputError(f"a mask of {count} graphs is needed, not one of {len(ids)}")
            ids = ids.nonzero().flatten()
        if ids.numel() and not given.is_integral(ids):
            raise InputError(f"numbers of graphs must be integers, not {ids.dtype}")
        return ids.tolist()

    @staticmethod
    def _of(data: Any, type: Type) -> Any:
        return data[type] if type else data


def _empty(several_types: bool) -> Any:
    try:
        from torch_geometric.data import Data, HeteroData
    except ImportError:
        raise InputError(
            "the graphs of a batch or of a set are torch_geometric's Data, and torch_geometric is not installed: "
            "packed.batch([number]) gives one as a batch of gdsl"
        ) from None
    return HeteroData() if several_types else Data()
