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


# Of the process, the last one counts. A list, since a tracer can look at one.
_within: list[Halo] = []


@contextmanager
def together(graph: Any) -> Iterator[None]:
    """Within it, norms and pools of ``gdsl.nn`` take the rows of all processes for one set of nodes.

    graph: the ``LocalGraph`` whose own nodes the rows are; with a graph that is whole, nothing is done
    """
    halo = graph.halo if isinstance(graph, Graph) else None
    if halo is None:
        yield
        return
    _within.append(halo)
    try:
        yield
    finally:
        _within.pop()


def has_others(graph: Any) -> bool:
    """Whether a graph is a part of a distributed one, and the rows of all processes are not taken yet."""
    return isinstance(graph, Graph) and graph.halo is not None and not _within


def is_shared() -> bool:
    """Whether other processes have rows, too."""
    return bool(_within)


def summed(value: Tensor) -> Tensor:
    """The sum over all processes, as :func:`total` gives it."""
    return _Sum.apply(value, _within[-1].group) if _within and _within[-1].world > 1 else value


def most(count: int, device: torch.device) -> int:
    """The largest number over all processes."""
    return int(all_reduce(_within[-1], torch.tensor(count, device=device), "max")) if _within else count


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
    return int(all_reduce(_of_targets[-1], torch.tensor(count, device=device), "max")) if _of_targets else count


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


def gathered(rows: Tensor) -> Tensor:
    """The rows of all processes, on each of them, one process after the other; differentiable as :func:`total` is."""
    halo = _within[-1] if _within else None
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
    """Within it, torch draws the same on all processes: for what each of them computes of all rows."""
    if not _within or _within[-1].world == 1:
        yield
        return
    seed = broadcast(_within[-1], torch.randint(2**62, (), dtype=torch.int64, device=device))
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device], device_type=device.type):
        torch.manual_seed(int(seed))
        yield


def largest(value: Tensor) -> Tensor:
    """The largest over all processes, without a gradient."""
    return all_reduce(_within[-1], value.detach(), "max") if _within else value.detach()


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
    return summed(torch.bincount(batch, minlength=size)).to(x.dtype)


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
