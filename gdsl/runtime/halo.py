"""Rows of other processes that the edges of this one read."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, distributed

from gdsl.errors import GraphError
from gdsl.runtime.answers import agree, answered, numbers_of_all, place
from gdsl.runtime.dtypes import short

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_TENSORS = ("send", "own_ids", "halo_ids", "edge_ids", "target_ids")


class HaloRows(NamedTuple):
    """Some rows of a halo, which follow each other.

    start, rows: the first of them, and how many
    send, send_counts, receive_counts: as in :class:`Halo`, of these alone
    """

    start: int
    rows: int
    send: Tensor
    send_counts: tuple[int, ...]
    receive_counts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Halo:
    """Rows of other processes that this one's edges read: node values hold the own rows first, then the halo's, grouped
    by owner in the order of ranks.

    own:            rows owned here
    send:           [S] int64 own rows that others read, grouped by receiver in the order of ranks
    send_counts:    rows to each rank (0 to oneself)
    receive_counts: rows from each rank; their sum is the number of halo rows
    own_ids:        [own] int64 global ids of the own rows
    halo_ids:       [H] int64 global ids of the halo's rows
    group:          the processes; None for the default group
    edge_ids:       [E] int64 global ids of the edges here, in their order; None where nothing draws by edges
    target_ids:     [num_targets] int64 of a bipartite graph: global ids of the targets here

    A process may own no rows, or read none of others, and has a halo all the same. Raises ``GraphError`` for parts that
    contradict each other.
    """

    own: int
    send: Tensor
    send_counts: tuple[int, ...]
    receive_counts: tuple[int, ...]
    own_ids: Tensor
    halo_ids: Tensor
    group: ProcessGroup | None = None
    edge_ids: Tensor | None = None
    target_ids: Tensor | None = None

    def __post_init__(self) -> None:
        for name in _TENSORS:
            value = getattr(self, name)
            if value is not None and (value.dtype is not torch.int64 or value.dim() != 1):
                raise GraphError(f"`{name}` of a halo must be int64 of one dim, not {value.dtype} {list(value.shape)}")
        for what, have, wanted in (
            ("own_ids", len(self.own_ids), self.own),
            ("halo_ids", len(self.halo_ids), sum(self.receive_counts)),
            ("send", len(self.send), sum(self.send_counts)),
            ("receive_counts", len(self.receive_counts), len(self.send_counts)),
        ):
            if have != wanted:
                raise GraphError(f"`{what}` of a halo has {have} entries, and the rest of it asks for {wanted}")
        if len(self.send) and not 0 <= int(self.send.min()) <= int(self.send.max()) < self.own:
            raise GraphError(f"`send` of a halo names rows that are not among the {self.own} own ones")

    @property
    def rows(self) -> int:
        """How many rows come from others."""
        return len(self.halo_ids)

    @property
    def world(self) -> int:
        """How many processes there are."""
        return len(self.send_counts)

    @property
    def all_rows(self) -> HaloRows:
        return HaloRows(0, self.rows, self.send, self.send_counts, self.receive_counts)

    def chunks(self, pieces: int) -> Iterator[HaloRows]:
        """All rows in turns: of one other process after the other, so that all send at once, in so many pieces."""
        rank, world = place(self.group)[0], self.world
        for shift, piece in itertools.product(range(1, world), range(pieces)):
            giver, taker = (rank + shift) % world, (rank - shift) % world
            first, last = _piece(self.receive_counts, giver, piece, pieces)
            begin, end = _piece(self.send_counts, taker, piece, pieces)
            sent = tuple(end - begin if k == taker else 0 for k in range(world))
            received = tuple(last - first if k == giver else 0 for k in range(world))
            yield HaloRows(first, last - first, self.send[begin:end], sent, received)

    def to(self, device: torch.device | str | int) -> Halo:
        """The same halo on another device."""
        found = {name: getattr(self, name) for name in _TENSORS}
        return replace(self, **{name: value.to(device) for name, value in found.items() if value is not None})


def _piece(counts: Sequence[int], rank: int, piece: int, pieces: int) -> tuple[int, int]:
    """The first row of a piece of those of a process, and the row after its last."""
    start, count = sum(counts[:rank]), counts[rank]
    return start + count * piece // pieces, start + count * (piece + 1) // pieces


_REDUCE = {"sum": "SUM", "max": "MAX", "min": "MIN", "mul": "PRODUCT"}
# How two partial results become one.
COMBINED: dict[str, Callable[..., Tensor]] = {
    "sum": torch.add, "max": torch.maximum, "min": torch.minimum, "mul": torch.mul,
}  # fmt: skip


# What is on its way: called, it waits for it.
Begun = Callable[[], Tensor]


def exchange(halo: Halo, values: Sequence[Tensor], wires: Sequence[torch.dtype | None]) -> list[Begun]:
    """[own + halo, ...] from [own, ...]: each row of the halo from its owner, of several values in one message. All
    processes begin it together.

    wires: as what the rows of each value are sent; None for as they are
    """
    found = [v.new_empty((halo.own + halo.rows, *v.shape[1:])) for v in values]
    for whole, value in zip(found, values, strict=True):
        whole[: halo.own] = value
    if halo.world == 1:
        return [partial(itself, whole) for whole in found]
    wait = _fetch(halo, halo.all_rows, [whole[halo.own :] for whole in found], values, wires)
    return [partial(_after, wait, whole) for whole in found]


def fetch(
    halo: Halo, some: HaloRows, values: Sequence[Tensor], wires: Sequence[torch.dtype | None]
) -> Callable[[], list[Tensor]]:
    """Those rows of the halo alone, of several values: begun. All processes begin it together."""
    found = [v.new_empty((some.rows, *v.shape[1:])) for v in values]
    wait = _fetch(halo, some, found, values, wires)
    return partial(_after, wait, found)


def _fetch(
    halo: Halo,
    some: HaloRows,
    found: Sequence[Tensor],
    values: Sequence[Tensor],
    wires: Sequence[torch.dtype | None],
) -> Callable[[], None]:
    got = [f if w is None else torch.empty_like(f, dtype=w) for f, w in zip(found, wires, strict=True)]
    given = [v.index_select(0, some.send).to(g.dtype) for v, g in zip(values, got, strict=True)]
    wait = _swap(got, given, some.receive_counts, some.send_counts, halo.group)

    def finish() -> None:
        wait()
        for whole, part in zip(found, got, strict=True):
            if part is not whole:
                whole.copy_(part)

    return finish


def itself(value: Tensor) -> Tensor:
    return value


def _after(wait: Callable[[], None], value: Any) -> Any:
    wait()
    return value


def collect(
    halo: Halo, values: Sequence[Tensor], reducers: Sequence[str], wires: Sequence[torch.dtype | None]
) -> list[Begun]:
    """[own, ...] from [own + halo, ...]: partial results for rows of the halo go to their owners, which add them up,
    multiply them, or take the largest or smallest, process by process in the order of ranks. All processes begin it
    together."""
    found = [v[: halo.own] for v in values]
    if halo.world == 1:
        return [f.clone for f in found]
    finish = give_back(halo, halo.all_rows, [v[halo.own :] for v in values], reducers, wires)

    def one(k: int) -> Tensor:
        result = found[k].clone()
        finish[k](result)
        return result

    return [partial(one, k) for k in range(len(values))]


def give_back(
    halo: Halo,
    some: HaloRows,
    values: Sequence[Tensor],
    reducers: Sequence[str],
    wires: Sequence[torch.dtype | None],
) -> list[Callable[[Tensor], None]]:
    """Partial results for those rows of the halo go to their owners, of several values in one message: begun, and for
    each value what adds those that come from others to that of own nodes."""
    given = [v.contiguous() if w is None else v.to(w) for v, w in zip(values, wires, strict=True)]
    got = [g.new_empty((len(some.send), *g.shape[1:])) for g in given]
    wait = _swap(got, given, some.send_counts, some.receive_counts, halo.group)

    def add(result: Tensor, part: Tensor, reducer: str) -> None:
        wait()
        # No process sends two results for a row: nothing is added atomically, and each run gives the same bits.
        parts = part.to(result.dtype).split(some.send_counts)
        for own, new in ((o, n) for o, n in zip(some.send.split(some.send_counts), parts, strict=True) if len(o)):
            if reducer == "sum":
                result.index_add_(0, own, new)
            else:
                result.index_copy_(0, own, COMBINED[reducer](result.index_select(0, own), new))

    return [partial(add, part=part, reducer=reducer) for part, reducer in zip(got, reducers, strict=True)]


@answered("rows of others")
def _swap(
    found: Sequence[Tensor],
    given: Sequence[Tensor],
    receive: Sequence[int],
    send: Sequence[int],
    group: ProcessGroup | None,
) -> Callable[[], None]:
    """Send rows of several values to all processes, and get theirs, in one message: begun, and what waits for it. It
    may be called again."""
    if len(found) == 1:
        out, mine = _plain(found[0]), _plain(given[0])
    else:
        mine = torch.cat([_bytes(value) for value in given], 1)
        out = mine.new_empty((len(found[0]), mine.shape[1]))
    work = distributed.all_to_all_single(out, mine, list(receive), list(send), group=group, async_op=True)
    # What is sent lives until it is, and no longer.
    begun = [(work, mine)]

    @answered("rows of others")
    def wait() -> None:
        if not begun:
            return
        begun.pop()[0].wait()
        if len(found) > 1:
            widths = [_bytes(value).shape[1] for value in found]
            for value, part in zip(found, out.split(widths, 1), strict=True):
                _bytes(value).copy_(part)

    return wait


def _plain(value: Tensor) -> Tensor:
    return value.view(torch.uint8) if value.dtype is torch.bool else value


def _bytes(value: Tensor) -> Tensor:
    """[rows, bytes], in the same memory."""
    return value.view(len(value), value.shape[1:].numel()).view(torch.uint8)


@answered("a sum, or the largest, of all processes")
def all_reduce(halo: Halo, value: Tensor, reducer: str) -> Tensor:
    """The sum, the product, the largest or the smallest of a value over all processes, which call it together."""
    found = value.clone(memory_format=torch.contiguous_format)
    if halo.world > 1:
        compared = reducer in ("max", "min") and value.is_floating_point()
        sent = _ordered(found, reducer) if compared else found
        distributed.all_reduce(sent, getattr(distributed.ReduceOp, _REDUCE[reducer]), group=halo.group)
        found = _turned(sent).view(_WIDE[value.dtype]).to(value.dtype) if compared else sent
    return found


# Of 16 bits there are no integers that gloo reduces.
_WIDE = {
    torch.float64: torch.float64, torch.float32: torch.float32,
    torch.bfloat16: torch.float32, torch.float16: torch.float32,
}  # fmt: skip


def _ordered(value: Tensor, reducer: str) -> Tensor:
    """Integers in the order of the numbers, of which NaN wins. To gloo and NCCL, which compare, NaN is never the larger
    nor the smaller: whether it shows would depend on whose it is (findings/a-nan-that-one-process-sees.sh)."""
    wide = value.to(_WIDE[value.dtype])
    bits = wide.view(torch.int64 if wide.dtype is torch.float64 else torch.int32)
    limits = torch.iinfo(bits.dtype)
    return torch.where(value.isnan(), limits.max if reducer == "max" else limits.min, _turned(bits))


def _turned(bits: Tensor) -> Tensor:
    """Bits of floats as integers of the same order, and back: the smaller a negative number, the larger its bits."""
    return bits ^ ((bits >> (8 * bits.element_size() - 1)) & torch.iinfo(bits.dtype).max)


@answered("a number of the first process")
def broadcast(halo: Halo, value: Tensor) -> Tensor:
    """The value of the first process."""
    if halo.world > 1:
        distributed.broadcast(value, group=halo.group, group_src=0)
    return value


@answered("rows of all processes")
def gather(halo: Halo, value: Tensor) -> Tensor:
    """The rows of all processes, one after the other, which call it together.

    Raises ``GraphError``, on every process alike, for rows of different shapes or dtypes.
    """
    if halo.world == 1:
        return value
    about = f"rows of {short(value.dtype)} {list(value.shape[1:])}"
    agree_on(halo, about)
    rows = [count for (count,) in numbers(halo, [len(value)])]
    padded = value.new_zeros((max(rows), *value.shape[1:]))
    padded[: len(value)] = value
    found = [torch.empty_like(padded) for _ in rows]
    distributed.all_gather(found, padded, group=halo.group)
    return torch.cat([part[:count] for part, count in zip(found, rows, strict=True)])


def asked_of_others(owner: Tensor, own_ids: Tensor, ids: Tensor, group: ProcessGroup | None) -> tuple[Halo, Tensor]:
    """A halo of nodes that are asked for, and the row of each of them, own ones first; all processes call it together.

    owner:   [N] the process of each node, by its number, the same on all
    own_ids: [own] the numbers of own nodes
    ids:     [K] those of nodes of any process, some of them often
    """
    rank, world = place(group)
    wanted = ids.unique()
    wanted = wanted[owner[wanted] != rank]
    of_whom, order = owner[wanted].sort(stable=True)
    wanted, own = wanted[order], len(own_ids)
    row = torch.empty_like(owner)
    row[own_ids] = torch.arange(own, device=row.device)
    row[wanted] = torch.arange(own, own + len(wanted), device=row.device)
    receive = torch.bincount(of_whom, minlength=world).tolist()
    send, asked = [0] * world, wanted[:0]
    if world > 1:
        send = [counts[rank] for counts in numbers_of_all(receive, group, ids.device, "how many rows it asks for")]
        asked = wanted.new_empty(sum(send))
        _swap([asked], [wanted], send, receive, group)()
    return Halo(own, row[asked], tuple(send), tuple(receive), own_ids, wanted, group), row[ids]


def numbers(halo: Halo, own: Sequence[int]) -> list[list[int]]:
    """Some numbers of each process, as many on all, which call it together."""
    return numbers_of_all(own, halo.group, halo.send.device, "numbers of its own")


def agree_on(halo: Halo, doing: str, digest: int | None = None) -> None:
    """All processes call it before what they do together. Raises ``GraphError``, on every process alike, where they do
    not do the same; see :func:`gdsl.runtime.answers.agree`."""
    if halo.world > 1:
        agree(doing, halo.group, halo.send.device, digest)


# How many graphs this process has found to be parts of one.
_agreements = itertools.count(1)


def agreed(halo: Halo, kind: int, counts: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """The largest of each count over all processes, which call it together, and a number for the graph: the same on
    all of them, and another for each graph that they agree on.

    kind: what else must be the same on all of them

    Raises ``GraphError``, on every process alike, where their parts are not of one graph.
    """
    if halo.world == 1:
        return counts, 0
    agree_on(halo, "the first call on a graph")
    own = [halo.world, kind, *counts, *halo.send_counts, *halo.receive_counts, next(_agreements)]
    rows = numbers(halo, own)
    first = 2 + len(counts)
    for a, b in itertools.product(range(halo.world), repeat=2):
        sent, expected = rows[a][first + b], rows[b][first + halo.world + a]
        if sent != expected:
            raise GraphError(
                f"the parts of processes {a} and {b} are not of one graph: the one sends {sent} rows, "
                f"and the other expects {expected}"
            )
        if rows[a][:2] != rows[b][:2]:
            raise GraphError(
                f"the parts of processes {a} and {b} are not of one graph: they have other numbers of processes, sets "
                "of nodes, or self-loops"
            )
    return tuple(max(row[2 + k] for row in rows) for k in range(len(counts))), zlib.crc32(f"{rows}".encode())
