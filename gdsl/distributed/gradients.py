"""The gradients of parameters that all processes share."""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Collection

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from gdsl.data import given
from gdsl.errors import GraphError, InputError
from gdsl.runtime.answers import agree, answered, heard, numbers_of_all, place


def average_gradients(model: nn.Module, rows: Collection[str] = (), group: ProcessGroup | None = None) -> None:
    """Make the gradients of a model's parameters those of the whole graph; all processes call it after ``backward``.

    rows: names of parameters of which each process has rows of its own

    What ``GraphPart.mean``, ``total`` and ``gather`` give is the same on all processes, and differentiated on each, so
    that gradients count as often as there are processes: shared ones are averaged, as DDP does, and rows are divided. A
    parameter without a gradient on some processes counts as zero there.

    Raises ``InputError`` for names that the model does not have; ``GraphError``, on every process alike, where their
    models differ, in the first call also in the numbers of what they share.
    """
    size, rows = place(group)[1], given.names("rows", rows)
    known = dict(model.named_parameters())
    unknown = [name for name in rows if name not in known]
    if unknown:
        raise InputError(f"the model has no parameter {unknown[0]!r}, of which rows= speaks")
    if size == 1:
        return
    shared: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = {}
    for name, parameter in known.items():
        if name in rows:
            if parameter.grad is not None:
                parameter.grad /= size
        elif parameter.requires_grad:
            shared.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    for found in shared.values():
        _average(found, size, group, known_alike=model in _alike)
    if shared:
        _alike.add(model)


# Models whose parameters were the same on all processes.
_alike: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def _average(parameters: list[nn.Parameter], size: int, group: ProcessGroup | None, known_alike: bool) -> None:
    """One all-reduce of all of them, and of who has a gradient at all.

    known_alike: whether this process knows that their numbers are the same on all; another one may not, of a model that
    it has made or loaded anew
    """
    first = parameters[0]
    has = [not known_alike, *(p.grad is not None for p in parameters)]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([first.new_tensor(has), *(g.detach().reshape(-1) for g in grads)])
    sizes = [1, len(parameters), *(p.numel() for p in parameters)]
    about = f"average_gradients of {len(parameters)} parameters, {sum(sizes[2:])} numbers of {first.dtype}"
    agree(about, group, first.device)
    with answered("average_gradients"):
        dist.all_reduce(flat, group=group)
    doubts, counts, *sums = flat.split(sizes)
    if doubts.item():
        _check_alike(parameters, group)
    for parameter, count, found in zip(parameters, counts.tolist(), sums, strict=True):
        if count:
            mean: Tensor = found.view_as(parameter) / size
            if parameter.grad is None:
                parameter.grad = mean.clone()
            else:
                parameter.grad.copy_(mean)


def _check_alike(parameters: list[nn.Parameter], group: ProcessGroup | None) -> None:
    own = 0
    for parameter in parameters:
        own = zlib.crc32(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data, own)
    said = numbers_of_all([own], group, parameters[0].device, "average_gradients")
    other = next((k for k, found in enumerate(said) if found != said[0]), None)
    if other is not None:
        raise heard(
            GraphError(
                f"the parameters of processes 0 and {other} differ, so that they train two models: make the model "
                "after the same torch.manual_seed on each, or load the same state_dict"
            )
        )
