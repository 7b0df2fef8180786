"""What is computed of rows alone, without a graph, over the rows of all processes: norms and pools."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

from gdsl.errors import InputError
from gdsl.ir.ops.rows import add_at
from gdsl.runtime.answers import agree, answered, place
from gdsl.runtime.dtypes import short
from gdsl.runtime.graph import Graph
from gdsl.runtime.halo import Halo, all_reduce, broadcast, numbers
from gdsl.runtime.halo import gather as rows_of_all

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class _Sum(torch.autograd.Function):
    """A sum over processes, whose derivative is one as well."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: ProcessGroup | None) -> Tensor:
        ctx.group = group
        found = value.detach().clone(memory_format=torch.contiguous_format)
        with answered("a sum over all processes"):
            distributed.all_reduce(found, group=group)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _Sum.apply(grad, ctx.group), None


def total(value: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """The sum of a tensor over all processes, on each of them, which must all ask for it.

    It is differentiable where every process makes the same of it: gradients are summed over all processes as well,
    which ``average_gradients`` and DDP then divide.

    Raises ``GraphError``, on every process alike, for tensors of different shapes or dtypes.
    """
    if place(group)[1] == 1:
        return value
    agree(f"a sum of {short(value.dtype)} {list(value.shape)}", group, value.device)
    return _Sum.apply(value, group)


def mean(rows: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """The mean of rows [n, ...] over all processes, as :func:`total` gives it; 0 / 0 where no process has any."""
    # An integer, for float16 counts to 65,504.
    return total(rows.sum(dim=0), group) / total(torch.tensor(len(rows), device=rows.device), group)


# Of the process, the last one counts. A list, since a tracer can look at one.
_within: list[Graph] = []


@contextmanager
def together(graph: Any) -> Iterator[None]:
    """Within it, norms and pools of ``gdsl.nn`` take the rows of all processes for one set of nodes.

    graph: the ``LocalGraph`` whose own nodes the rows are; with a graph that is whole, nothing is done
    """
    halo = graph.halo if isinstance(graph, Graph) else None
    if halo is None:
        yield
        return
    _within.append(graph)
    try:
        yield
    finally:
        _within.pop()


@contextmanager
def alone() -> Iterator[None]:
    """Within it, norms and pools take the rows that they are given: for what each process computes of all rows."""
    before = [*_within]
    _within.clear()
    try:
        yield
    finally:
        _within[:] = before


def shared_graph() -> Graph | None:
    """The part of a graph whose rows are taken together."""
    return _within[-1] if _within else None


def _shared() -> Halo | None:
    return _within[-1].halo if _within else None


def has_others(graph: Any) -> bool:
    """Whether a graph is a part of a distributed one, and the rows of all processes are not taken yet."""
    return isinstance(graph, Graph) and graph.halo is not None and not _within


def is_shared() -> bool:
    """Whether other processes have rows, too."""
    return bool(_within)


def summed(value: Tensor) -> Tensor:
    """The sum over all processes, as :func:`total` gives it."""
    halo = _shared()
    return value if halo is None or halo.world == 1 else _Sum.apply(value, halo.group)


def total_together(value: Tensor) -> Tensor:
    """The :func:`total` over all processes whose rows are taken together; the value where there are no others."""
    halo = _shared()
    return value if halo is None else total(value, halo.group)


def mean_together(values: Tensor) -> Tensor:
    """The :func:`mean` of numbers of any shape over all processes whose rows are taken together."""
    halo = _shared()
    return values.mean() if halo is None else mean(values.flatten(), halo.group)


def most(count: int, device: torch.device) -> int:
    """The largest number over all processes."""
    return _most(_shared(), count, device)


def _most(halo: Halo | None, count: int, device: torch.device) -> int:
    return count if halo is None else int(all_reduce(halo, torch.tensor(count, device=device), "max"))


# Of the process: while an aggregation of modules runs on own nodes, of which others have more.
_of_targets: list[Halo] = []


@contextmanager
def own_targets(graph: Graph) -> Iterator[None]:
    """Within it, what modules make of the edges of each own node is padded as one process with all nodes does."""
    assert graph.halo is not None
    _of_targets.append(graph.halo)
    try:
        yield
    finally:
        _of_targets.pop()


def longest(count: int, device: torch.device) -> int:
    """How many rows the largest group has, of those that other processes have, too."""
    return _most(_of_targets[-1] if _of_targets else None, count, device)


class _GatherRows(torch.autograd.Function):
    """The rows of all processes, one after the other."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, halo: Halo) -> Tensor:
        before = numbers(halo, [len(rows)])[: place(halo.group)[0]]
        ctx.group, ctx.rows = halo.group, (sum(count for (count,) in before), len(rows))
        return rows_of_all(halo, rows.detach())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _Sum.apply(grad, ctx.group).narrow(0, *ctx.rows), None


def gathered(rows: Tensor, halo: Halo | None = None) -> Tensor:
    """The rows of all processes, on each of them, one process after the other; differentiable as :func:`total` is.

    halo: of the graph whose processes these are; without it that of :func:`together`
    """
    halo = _shared() if halo is None else halo
    return rows if halo is None or halo.world == 1 else _GatherRows.apply(rows, halo)


def key_weights(known: Tensor) -> tuple[Tensor, Tensor]:
    """How much each of the keys [graphs, nodes] of a process counts in sums over those of all, and how many keys each
    graph has.

    known: which of them are nodes; the others fill up. On one process those fill each graph up to the largest one:
           those that there are on all processes, one at least, count together as many
    """
    here = torch.stack([known.sum(dim=1), (~known).sum(dim=1)]).double()
    nodes, filling = summed(here)
    most_nodes = nodes.max()
    share = (most_nodes - nodes) / filling.clamp(min=1)
    return torch.where(known, 1.0, share.unsqueeze(1)), most_nodes


@contextmanager
def drawn_alike(device: torch.device) -> Iterator[None]:
    """Within it, torch draws on all processes what the first one draws: for what each of them computes of all rows."""
    halo = _shared()
    if halo is None or halo.world == 1:
        yield
        return
    own = _states(device)
    first = [broadcast(halo, state.to(halo.send.device, copy=True)).cpu() for state in own]
    _go_on_from(first, device)
    try:
        yield
    finally:
        # Processes that drew alike before go on alike.
        if not all(map(torch.equal, own, first)):
            _go_on_from(own, device)


def _states(device: torch.device) -> list[Tensor]:
    """Of torch's generators for the processor and for a device."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _go_on_from(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state, device)


def largest(value: Tensor) -> Tensor:
    """The largest over all processes, without a gradient."""
    halo = _shared()
    return value.detach() if halo is None else all_reduce(halo, value.detach(), "max")


def largest_of(numbers: Tensor) -> Tensor:
    """The largest of the numbers [n] of all processes; equal ones share its gradient."""
    if not _within:
        return numbers.max()
    best = largest(torch.cat([numbers, numbers.new_full((1,), -torch.inf)]).max())
    won = (numbers == best).to(numbers.dtype)
    share = won * (numbers - numbers.detach())  # 0, with the gradients of the winners
    return best + summed(share.sum()) / summed(won.sum())


def counts(x: Tensor, batch: Tensor, size: int) -> Tensor:
    """How many nodes each graph has, in the dtype of x."""
    # Not bincount: a trace does not know how many numbers that gives.
    return summed(batch.new_zeros(size).index_add(0, batch, torch.ones_like(batch))).to(x.dtype)


def means(x: Tensor, batch: Tensor, size: int) -> Tensor:
    """Means over the nodes of each graph, [N, C] to [graphs, C]; 0 for none."""
    sums = summed(add_at(x, batch, size))
    return sums / counts(x, batch, size).clamp(min=1).unsqueeze(1)


def batch_norm(m: nn.modules.batchnorm._BatchNorm, x: Tensor) -> Tensor:
    """What torch's batch norm gives for [N, C], by mean and variance of the rows of all processes."""
    if not m.training and m.running_mean is not None:
        return type(m).forward(m, x)
    of_graph = torch.zeros(len(x), dtype=torch.long, device=x.device)
    count, mean = counts(x, of_graph, 1), means(x, of_graph, 1)
    var = means((x - mean).square(), of_graph, 1)
    if m.training and m.running_mean is not None and m.running_var is not None and m.num_batches_tracked is not None:
        m.num_batches_tracked.add_(1)
        part = 1.0 / float(m.num_batches_tracked) if m.momentum is None else m.momentum
        unbiased = var * count / (count - 1).clamp(min=1)
        for kept, new in ((m.running_mean, mean), (m.running_var, unbiased)):
            kept.lerp_(new.detach().squeeze(0), part)
    y = (x - mean) / (var + m.eps).sqrt()
    return y if m.weight is None else y * m.weight + m.bias


@contextmanager
def norms_over_all(module: nn.Module) -> Iterator[None]:
    """Within it, the batch norms of torch in a module take the rows of all processes.

    Raises ``InputError`` for a norm of torch's that would take those of this process alone.
    """
    inside = [part for part in module.modules() if type(part).__module__.startswith("torch.nn.")]
    # Those of a part of it may be so already.
    norms = [p for p in inside if isinstance(p, nn.modules.batchnorm._BatchNorm) and "forward" not in p.__dict__]
    other = next((part for part in inside if isinstance(part, nn.modules.instancenorm._InstanceNorm)), None)
    if other is not None:
        raise InputError(
            f"`{type(other).__name__}` in `{type(module).__name__}` would norm the rows of each process by themselves: "
            "gdsl.nn.InstanceNorm beside the layer is over all processes"
        )
    for norm in norms:
        norm.__dict__["forward"] = partial(batch_norm, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.__dict__["forward"]
