"""Batches of a packed data set, again and again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from gdsl.data.batch import Batch
from gdsl.data.packed import Packed, pack
from gdsl.errors import InputError

T = TypeVar("T")
U = TypeVar("U")

# What keeps the draws of neighbouring seeds and epochs apart.
_EPOCHS = 0x9E3779B97F4A7C15


class Loader:
    """Batches of graphs, ready for layers: nothing is sorted, and no Python runs graph by graph.

    data:        a :class:`Packed` set, or what :func:`pack` takes
    batch_size:  graphs of a batch; 1 without a budget
    max_nodes, max_edges: a budget of a batch instead, or besides
    shuffle:     another order in each epoch
    seed:        of the orders; drawn from torch's generator where it is None
    drop_last:   leaves out a last batch that is smaller than the others
    prefetch:    batches that are made ahead on threads; 0 makes each when it is asked for
    workers:     these threads
    follow_batch, exclude_keys: as torch_geometric's ``DataLoader`` has them
    transform:   called with each batch

    ``epoch`` counts the times that it was walked through; setting it repeats or skips orders. Batches are the same for
    any number of threads.

    Raises ``InputError`` for an empty data set, for sizes below one, and for a graph that is larger than the budget.
    """

    def __init__(
        self,
        data: Packed | Iterable[Any],
        batch_size: int | None = None,
        shuffle: bool = False,
        *,
        max_nodes: int | None = None,
        max_edges: int | None = None,
        seed: int | None = None,
        drop_last: bool = False,
        prefetch: int = 2,
        workers: int = 1,
        follow_batch: Sequence[str] | None = None,
        exclude_keys: Sequence[str] | None = None,
        transform: Callable[[Batch], Any] | None = None,
    ):
        self.data = data if isinstance(data, Packed) else pack(data)
        if not len(self.data):
            raise InputError("the data set is empty: there is no graph in it")
        budget = max_nodes is not None or max_edges is not None
        self.batch_size = (None if budget else 1) if batch_size is None else batch_size
        self.max_nodes, self.max_edges = max_nodes, max_edges
        self.prefetch, self.workers, self.transform = prefetch, workers, transform
        for name, least in (("batch_size", 1), ("max_nodes", 1), ("max_edges", 1), ("prefetch", 0), ("workers", 1)):
            _check_count(name, getattr(self, name), least)
        self.shuffle, self.drop_last = shuffle, drop_last
        self.seed = int(torch.empty((), dtype=torch.int64).random_()) if seed is None else int(seed)
        self.follow_batch = tuple(follow_batch or ())
        self.data = self.data.without(exclude_keys or ())
        self.epoch = 0
        self._check_budget()
        self._batches: tuple[int, list[Tensor]] | None = None

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

    def batches(self) -> list[Tensor]:
        """The numbers of the graphs of each batch of the coming epoch."""
        if self._batches is None or self._batches[0] != self.epoch:
            self._batches = self.epoch, self._divided()
        return self._batches[1]

    def _divided(self) -> list[Tensor]:
        order = drawn_order(len(self.data), self.seed, self.epoch) if self.shuffle else torch.arange(len(self.data))
        if self.max_nodes is None and self.max_edges is None:
            assert self.batch_size is not None
            parts = list(order.split(self.batch_size))
            whole = len(parts[-1]) == self.batch_size
        else:
            parts = self._by_budget(order)
            whole = len(parts) == 1
        return parts[:-1] if self.drop_last and not whole else parts

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

    def __len__(self) -> int:
        return len(self.batches())

    def __iter__(self) -> Iterator[Any]:
        batches = self.batches()
        self.epoch += 1
        return ahead(self._make, batches, self.prefetch, self.workers)

    def _make(self, graphs: Tensor) -> Any:
        ids = graphs if self.data.ids is None else self.data.ids[graphs]
        batch = self.data.gathered(ids, self.follow_batch)
        return batch if self.transform is None else self.transform(batch)

    def __repr__(self) -> str:
        return f"Loader({self.data!r}, batch_size={self.batch_size})"


def drawn_order(count: int, seed: int, epoch: int) -> Tensor:
    """[count] an order of all numbers that depends on nothing else."""
    generator = torch.Generator().manual_seed((seed + epoch * _EPOCHS) % (1 << 63))
    return torch.randperm(count, generator=generator)


def ahead(make: Callable[[T], U], items: Sequence[T], prefetch: int, workers: int) -> Iterator[U]:
    """``make`` of each item in order, some of them ahead on threads."""
    if not prefetch or len(items) < 2:
        yield from map(make, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="gdsl-loader")
    waiting: deque[Future[U]] = deque()
    try:
        rest = iter(items)
        waiting.extend(pool.submit(make, item) for item in islice(rest, prefetch))
        while waiting:
            found = waiting.popleft().result()
            waiting.extend(pool.submit(make, item) for item in islice(rest, 1))
            yield found
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check_count(name: str, value: Any, least: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise InputError(f"{name} must be an integer of at least {least}, not {value!r}")
