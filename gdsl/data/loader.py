"""Batches of a packed data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from gdsl.data import given
from gdsl.data.batch import Batch
from gdsl.data.epochs import Epochs
from gdsl.data.packed import Packed, pack
from gdsl.errors import InputError

# Bytes of a batch from which copying it takes longer than waking a thread and waiting for the interpreter's lock.
LARGE = 1 << 22


class Loader(Epochs):
    """Batches of graphs, ready for layers: nothing is sorted, and no Python runs graph by graph.

    data:        a :class:`Packed` set, or what :func:`pack` takes
    batch_size:  graphs of a batch; 1 without a budget
    max_nodes, max_edges: a budget of a batch instead, or besides
    num_workers: threads that make batches ahead; None: one where batches are large or lie on a disk, else none, for a
                 small one is made sooner than a thread is woken
    follow_batch, exclude_keys: as torch_geometric's ``DataLoader`` has them

    The others are those of :class:`gdsl.data.epochs.Epochs`.

    Raises ``InputError`` for an empty data set, for sizes below one, and for a graph that is larger than the budget.
    """

    def __init__(
        self,
        data: Packed | Iterable[Any],
        batch_size: int | None = None,
        shuffle: bool = False,
        follow_batch: Sequence[str] | None = None,
        exclude_keys: Sequence[str] | None = None,
        *,
        max_nodes: int | None = None,
        max_edges: int | None = None,
        num_workers: int | None = None,
        **settings: Any,
    ):
        self.max_nodes = given.count_or_none("max_nodes", max_nodes, 1)
        self.max_edges = given.count_or_none("max_edges", max_edges, 1)
        budget = max_nodes is not None or max_edges is not None
        threads = 0 if num_workers is None else num_workers
        size = 1 if batch_size is None else batch_size
        super().__init__(**settings, batch_size=size, shuffle=shuffle, num_workers=threads)
        if budget and batch_size is None:
            self.batch_size = None
        packed = data if isinstance(data, Packed) else pack(data)
        if not len(packed):
            raise InputError("the data set is empty: there is no graph in it")
        self.data = packed.without(given.names("exclude_keys", exclude_keys))
        self.follow_batch = given.names("follow_batch", follow_batch)
        self._check_budget()
        if num_workers is None:
            self.num_workers = int(packed.is_mapped or self._typical_bytes() > LARGE)

    def _check_budget(self) -> None:
        for most, sizes, what in (
            (self.max_nodes, self.data.num_nodes, "nodes"),
            (self.max_edges, self.data.num_edges, "edges"),
        ):
            if most is not None and int(sizes.max()) > most:
                raise InputError(
                    f"graph {int(sizes.argmax())} has {int(sizes.max())} {what}, more than the {most} of a batch: "
                    f"leave it out with packed[packed.num_{what} <= {most}], or raise max_{what}"
                )

    def _typical_bytes(self) -> int:
        """Of a batch, about."""
        return self.data.nbytes_of_batches * len(self.batches()[0]) // self.data.total if len(self) else 0

    @property
    def dataset(self) -> Packed:
        """The graphs."""
        return self.data

    def _items(self) -> int:
        return len(self.data)

    def _divided(self) -> list[Tensor]:
        if self.max_nodes is None and self.max_edges is None:
            return super()._divided()
        parts = self._by_budget(self._order())
        return parts[:-1] if self.drop_last and len(parts) > 1 else parts

    def _by_budget(self, order: Tensor) -> list[Tensor]:
        limits = [
            (torch.cat([order.new_zeros(1), sizes[order].cumsum(0)]), most)
            for sizes, most in ((self.data.num_nodes, self.max_nodes), (self.data.num_edges, self.max_edges))
            if most is not None
        ]
        parts, first = [], 0
        while first < len(order):
            ends = [int(torch.searchsorted(upto, int(upto[first]) + most, right=True)) - 1 for upto, most in limits]
            if self.batch_size is not None:
                ends.append(first + self.batch_size)
            last = min(*ends, len(order))
            parts.append(order[first:last])
            first = last
        return parts

    def _make(self, items: Tensor, key: int) -> Batch:
        return self.data.gathered(items if self.data.ids is None else self.data.ids[items], self.follow_batch)

    def __repr__(self) -> str:
        return f"Loader({self.data!r}, batch_size={self.batch_size})"
