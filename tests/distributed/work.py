"""What the processes of a test run, with no import that takes long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import gdsl
from gdsl.ir.program import Program
from gdsl.ir.types import Domain
from gdsl.passes.options import Options
from gdsl.runtime.autograd import Runner
from gdsl.runtime.frame import Frame
from tests.distributed.parts import local, owned
from tests.programs import harness

# The numbers of nodes, of sources and of targets in the tables of layers: shapes tell what belongs to which.
NODES, TARGETS = 9, 6

SHARED = (Domain.GLOBAL, Domain.GRAPH)


class Cut:
    """Whose nodes and edges are whose, and how many rows of another process are read at a time."""

    def __init__(
        self, edge_index: Tensor, owner: Tensor, targets: Tensor | None = None, chunk: int | None = None
    ):
        self.edge_index, self.owner, self.targets, self.chunk = edge_index, owner, targets, chunk

    def rows(self, domain: Domain, rank: int) -> Tensor:
        at = self.owner if self.targets is None else self.targets
        if domain is Domain.EDGE:
            return owned(at[self.edge_index[1]], rank)
        return owned(at if domain is Domain.TARGET else self.owner, rank)

    def part(self, value: Tensor, domain: Domain, rank: int) -> Tensor:
        return value if domain in SHARED else value[self.rows(domain, rank)]

    def whole(self, parts: Sequence[Tensor], like: Tensor, domain: Domain) -> Tensor:
        """The value of all processes: of what has no rows, each has a term."""
        if domain in SHARED:
            return torch.stack(list(parts)).sum(0)
        put = torch.full_like(like, torch.nan)
        for rank, part in enumerate(parts):
            put[self.rows(domain, rank)] = part
        return put


def derivatives(outputs: Sequence[Tensor], leaves: Sequence[Tensor], given: Mapping[str, Sequence[Tensor]]) -> Any:
    """Outputs, gradients and second derivatives of sums that the weights say."""
    pairs = zip(given["first"], outputs, strict=True)
    score = sum(((w * o).sum() for w, o in pairs if o.requires_grad), torch.zeros(()))
    if not score.requires_grad:
        return [o.detach() for o in outputs], [], []
    first = torch.autograd.grad(score, leaves, create_graph=True, allow_unused=True)
    dense = [torch.zeros_like(x) if g is None else g for g, x in zip(first, leaves, strict=True)]
    pairs = zip(given["second"], dense, strict=True)
    again = sum(((w * g).sum() for w, g in pairs if g.requires_grad), torch.zeros(()))
    second = torch.autograd.grad(again, leaves, allow_unused=True) if again.requires_grad else [None] * len(leaves)
    curved = [torch.zeros_like(x) if g is None else g for g, x in zip(second, leaves, strict=True)]
    return [o.detach() for o in outputs], [g.detach() for g in dense], curved


def program_on(program: Program, backend: str, graph: Any, tensors: Sequence[Tensor], given: Any) -> Any:
    frame = Frame(graph, torch.float64, torch.device("cpu"))
    options = Options(shape=graph.shape) if graph.halo is not None else Options()
    runner = Runner(program, backend, torch.float64, torch.int32, options)
    leaves = [t.requires_grad_() for t in tensors if t.is_floating_point()]
    return derivatives(runner(tensors, frame), leaves, given)


def program_on_part(
    rank: int,
    world: int,
    group: Any,
    program: Program,
    backend: str,
    cut: Cut,
    tensors: Mapping[str, Tensor],
    given: Mapping[str, Sequence[tuple[Tensor, Domain]]],
) -> Any:
    graph, _ = local(cut.edge_index, cut.owner, rank, world, group, chunk=cut.chunk)
    own = [cut.part(tensors[n.attrs.name], n.domain, rank).clone() for n in program.inputs]
    mine = {order: [cut.part(w, d, rank) for w, d in pairs] for order, pairs in given.items()}
    return program_on(program, backend, graph, own, mine)


def outputs_of(layer: gdsl.Layer, given: dict[str, Any], shown: Sequence[int]) -> list[Tensor]:
    """The outputs that are compared: not those on edges that the layer itself has changed."""
    found = layer(**given)
    found = found if isinstance(found, tuple) else (found,)
    return [found[k] for k in shown]


def layer_on(layer: gdsl.Layer, given: dict[str, Any], shown: Sequence[int], wanted: Any) -> Any:
    torch.manual_seed(5)
    given = harness._with_grad(given)
    outputs = outputs_of(layer, given, shown)
    return derivatives(outputs, harness._leaves(given) + list(layer.parameters()), wanted)


def layer_on_part(
    rank: int,
    world: int,
    group: Any,
    layer: gdsl.Layer,
    cut: Cut,
    given: dict[str, Any],
    domains: dict[str, Domain],
    shown: Sequence[int],
    weighed: Mapping[str, Sequence[tuple[Tensor, Domain]]],
) -> Any:
    graph, _ = local(cut.edge_index, cut.owner, rank, world, group, cut.targets, cut.chunk)
    own = {k: cut.part(v, domains[k], rank) for k, v in given.items() if k in domains}
    if "batch" in given:
        own |= {"batch": cut.part(given["batch"], Domain.NODE, rank), "num_graphs": given["num_graphs"]}
    mine = {
        order: [cut.part(w, d, rank) / (world if d in SHARED and order == "first" else 1) for w, d in pairs]
        for order, pairs in weighed.items()
    }
    return layer_on(layer, {**own, "graph": graph}, shown, mine)


# ------------------------------------------------------------------------------------------ layers of the library


def set_backend(layer: nn.Module, backend: str) -> None:
    """For the layer and every layer inside it."""
    for part in layer.modules():
        if hasattr(part, "backend"):
            part.backend = backend


def flat(result: Any) -> list[Tensor]:
    """All tensors of a result, in order."""
    if isinstance(result, Tensor):
        return [result]
    return [t for part in result for t in flat(part)] if isinstance(result, tuple | list) else []


def leaves(value: Any) -> Any:
    """A copy whose float tensors want gradients."""
    if isinstance(value, Tensor):
        return value.clone().requires_grad_(value.is_floating_point())
    return tuple(leaves(v) for v in value) if isinstance(value, tuple) else value


class ShapeCut:
    """As :class:`Cut`, and what belongs to whom. There are as many nodes as targets or edges nowhere: shapes tell."""

    def __init__(self, edge_index: Tensor, owner: Tensor, targets: Tensor | None, chunk: int | None = None):
        self.edge_index, self.owner, self.targets, self.chunk = edge_index, owner, targets, chunk

    def rows(self, value: Tensor, rank: int) -> tuple[int, Tensor] | None:
        """The axis of a value's rows and those that a process has; None of what all have."""
        at = self.owner if self.targets is None else self.targets
        of = {NODES: self.owner, TARGETS: at, self.edge_index.shape[1]: at[self.edge_index[1]]}
        for axis in range(min(value.dim(), 2)):
            if value.shape[axis] in of:
                return axis, owned(of[value.shape[axis]], rank)
        return None

    def part(self, value: Any, rank: int) -> Any:
        """What a process has of a value."""
        if isinstance(value, tuple):
            return tuple(self.part(v, rank) for v in value)
        found = self.rows(value, rank) if isinstance(value, Tensor) else None
        return value if found is None else value.index_select(*found)

    def whole(self, parts: Sequence[Tensor], like: Tensor) -> Tensor:
        """The value of all processes: what has no rows is a sum of which each has a term."""
        put = torch.zeros_like(like)
        for rank, part in enumerate(parts):
            found = self.rows(like, rank)
            if found is None:
                put += part
            else:
                put.index_copy_(*found, part)
        return put


def layer_outcome(
    layer: nn.Module, first: tuple[Any, ...], graph: Any, values: dict[str, Any], weights: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """The first output and the gradients of inputs, and the gradients of parameters."""
    first, values = leaves(first), {k: leaves(v) for k, v in values.items()}
    y = flat(layer(*first, graph, **values))[0]
    given = [t for t in flat([*first, *values.values()]) if t.requires_grad]
    inputs = len(given)
    given += [p for p in layer.parameters() if p.requires_grad]
    grads = torch.autograd.grad((weights * y).sum(), given, allow_unused=True) if y.requires_grad else ()
    zeros = [torch.zeros_like(t) if g is None else g for g, t in zip(grads, given, strict=False)]
    return [y.detach(), *zeros[:inputs]], zeros[inputs:]


def layer_of_library(
    rank: int, world: int, group: Any, layer: nn.Module, drawn: Any, weights: Tensor, cut: ShapeCut
) -> Any:
    first, edge_index, values = drawn
    graph, _ = local(edge_index, cut.owner, rank, world, group, cut.targets, cut.chunk)
    values = {k: cut.part(v, rank) for k, v in values.items()}
    return layer_outcome(layer, cut.part(first, rank), graph, values, cut.part(weights, rank))
