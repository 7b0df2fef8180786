"""What all loaders share: the order of an epoch, seeds, and batches that are made ahead on threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from gdsl.data import given
from gdsl.data.geometric import transformed
from gdsl.errors import InputError
from gdsl.runtime.dtypes import CPU
from gdsl.runtime.transforms import ordinary

T = TypeVar("T")
U = TypeVar("U")

MASK = (1 << 64) - 1


class Epochs:
    """A loader: walked through again and again, each time an epoch.

    batch_size, drop_last  how many items are in a batch, and whether a last one that is smaller is left out
    shuffle, seed  another order in each epoch; the seed is drawn from torch's generator where it is None
    rank, world  which of several processes this is, and how many there are: each has every ``world``-th of the batches
                 that one process has, to the bit. Some have one more than others, which ``torch.distributed``'s
                 ``Join`` is for, unless ``drop_last`` leaves out those that not all have. The seed is 0 where it is
                 None, as torch's ``DistributedSampler`` has it
    num_workers  threads that make batches ahead; 0 makes each when it is asked for
    prefetch  batches that are made ahead, at least one a thread
    pin_memory  puts batches where a GPU reads them by itself, if there is one
    transform  called with each batch; one of torch_geometric's with its own object of it, of which it makes a batch

    ``epoch`` counts the epochs that were begun; setting it repeats or skips orders. Batches are the same for any number
    of threads. ``persistent_workers`` is not needed, and taken for the sake of programs that have it.
    """

    def __init__(
        self,
        *,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int | None = None,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = False,
        num_workers: int = 1,
        prefetch: int = 2,
        pin_memory: bool = False,
        persistent_workers: bool = False,
        transform: Callable[[Any], Any] | None = None,
    ):
        self.batch_size: int | None = given.count("batch_size", batch_size, 1)
        self.num_workers = given.count("num_workers", num_workers, 0)
        self.prefetch = given.count("prefetch", prefetch, 1)
        self.shuffle, self.drop_last = given.flag("shuffle", shuffle), given.flag("drop_last", drop_last)
        self.pin_memory = given.flag("pin_memory", pin_memory) and torch.cuda.is_available()
        self.world, self.rank = given.count("world", world, 1), given.count("rank", rank, 0)
        if self.rank >= self.world:
            raise InputError(f"rank {self.rank} is not among {self.world} processes, which are numbered from 0")
        if seed is None and self.world > 1:
            seed = 0
        if seed is None:
            seed = int(torch.empty((), dtype=torch.int64, device=CPU).random_())
        self.seed = given.integer("seed", seed)
        self.transform = given.function("transform", transform)
        self.epoch = 0
        self._batches: tuple[int, list[Tensor]] | None = None

    def batches(self) -> list[Tensor]:
        """The numbers of the items of each batch of the coming epoch, on this process."""
        if self._batches is None or self._batches[0] != self.epoch:
            found = self._divided()
            if self.drop_last:
                found = found[: len(found) - len(found) % self.world]
            self._batches = self.epoch, found[self.rank :: self.world]
        return self._batches[1]

    @property
    def dataset(self) -> Any:
        """What has as many items as there are, as torch's ``DataLoader`` has it."""
        return range(self._items())

    def _items(self) -> int:
        """How many items there are."""
        raise NotImplementedError

    def _make(self, items: Tensor, key: int) -> Any:
        """A batch of some items; ``key`` are 64 random bits of its own."""
        raise NotImplementedError

    def _order(self) -> Tensor:
        """The items of the coming epoch in their order."""
        count = self._items()
        if not self.shuffle:
            return torch.arange(count, device=CPU)
        generator = torch.Generator().manual_seed(mixed(self.seed, self.epoch) >> 1)
        return torch.randperm(count, generator=generator)

    def _divided(self) -> list[Tensor]:
        assert self.batch_size is not None
        batches = self._order().split(min(self.batch_size, self._items())) if self._items() else ()
        return self._without_last(list(batches), self.batch_size)

    def _without_last(self, parts: list[Tensor], size: int | None) -> list[Tensor]:
        whole = not parts or len(parts[-1]) == size
        return parts[:-1] if self.drop_last and not whole else parts

    def transformed(self, batch: Any) -> Any:
        """What is given for a batch."""
        return batch if self.transform is None else transformed(self.transform, batch)

    def __len__(self) -> int:
        return len(self.batches())

    def __iter__(self) -> Iterator[Any]:
        epoch, parts = self.epoch, self.batches()
        self.epoch += 1

        def make(number: int) -> Any:
            among_all = self.rank + number * self.world
            batch = ordinary(self._make, parts[number], mixed(self.seed, epoch, among_all + 1))
            batch = self.transformed(batch)
            return batch.pin_memory() if self.pin_memory and hasattr(batch, "pin_memory") else batch

        return ahead(make, range(len(parts)), self.num_workers, max(self.prefetch, self.num_workers))


def mixed(*numbers: int) -> int:
    """64 bits that look random, other ones for any other numbers (splitmix64)."""
    found = 0
    for number in numbers:
        found = (found ^ (number & MASK)) + 0x9E3779B97F4A7C15 & MASK
        found = (found ^ found >> 30) * 0xBF58476D1CE4E5B9 & MASK
        found = (found ^ found >> 27) * 0x94D049BB133111EB & MASK
        found ^= found >> 31
    return found


def ahead(make: Callable[[T], U], items: Sequence[T], workers: int, most: int) -> Iterator[U]:
    """``make`` of each item in order, ``most`` of them ahead on threads."""
    if not workers or len(items) < 2:
        yield from map(make, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="gdsl-loader")
    waiting: deque[Future[U]] = deque()
    try:
        rest = iter(items)
        waiting.extend(pool.submit(make, item) for item in islice(rest, most))
        while waiting:
            found = waiting.popleft().result()
            waiting.extend(pool.submit(make, item) for item in islice(rest, 1))
            yield found
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
