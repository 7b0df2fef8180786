"""Random inputs for any program, and its values and derivatives on any backend."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

import gdsl
from gdsl.ir.node import walk
from gdsl.ir.types import Domain, Kind
from gdsl.passes.options import Options
from gdsl.runtime import reference
from gdsl.runtime.frame import Frame
from tests.programs.sources import FREE_DIMS, PROGRAMS, modules_for
from tests.typed import typed_of

Results = tuple[list[Tensor], list[Tensor], list[Tensor]]

# Edge lists on 7 nodes, besides random ones. Node 6 has no edge in any of them.
HARD_GRAPHS: dict[str, list[list[int]]] = {
    "no_edges": [[], []],
    "self_loops": [[0, 1, 2, 2], [0, 1, 2, 2]],
    "parallel_edges": [[0, 0, 0, 1, 1], [1, 1, 1, 0, 2]],
    "hub": [[0, 1, 2, 3, 4, 5, 0, 1, 2, 3], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
}


def layer(name: str, backend: str) -> gdsl.Layer:
    """A program of the collection as a float64 layer; the torch one is not optimised and saves nothing."""
    source, arguments = PROGRAMS[name]
    torch.manual_seed(0)
    made = gdsl.compile(source, backend=backend, **arguments, **modules_for(name)).double()
    if backend == "torch":
        made.options = Options(optimise=False, save=False)
    return made


def twin(made: gdsl.Layer, backend: str) -> gdsl.Layer:
    """The same layer with the same parameters on another backend."""
    other = copy.deepcopy(made)
    other.backend = backend
    other.options = Options(optimise=backend != "torch", save=backend != "torch")
    return other


def random_edges(nodes: int, edges: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, nodes, (2, edges), generator=generator)


def inputs(made: gdsl.Layer, edge_index: Tensor, nodes: int, seed: int = 0) -> dict[str, Any]:
    """Keyword arguments for a call: every input, also the optional ones."""
    generator = torch.Generator().manual_seed(seed)
    signature = made.signature
    optional = frozenset(i.name for i in signature.inputs if i.optional)
    free = {n: made.free_sizes.get(n, FREE_DIMS.get(n, 3)) for n in signature.free_dims}
    typed = typed_of(made, training=made.training, present=optional, free=free)
    for need in typed.requires:
        if need.kind == "reverse":  # an edge the other way for each edge
            edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
            continue
        # exactly K in-edges for each node
        target = torch.arange(nodes).repeat_interleave(need.value)
        edge_index = torch.stack([torch.randint(0, nodes, target.shape, generator=generator), target])
    rows = {Domain.EDGE: edge_index.shape[1], Domain.GRAPH: 2}
    values: dict[str, Any] = {}
    for d in typed.of_role("input"):
        assert d.type is not None
        lead = () if d.type.domain is Domain.GLOBAL else (rows.get(d.type.domain, nodes),)
        shape = (*lead, *d.type.shape)
        if d.type.kind is Kind.FLOAT:
            values[d.name] = 0.1 + 0.8 * torch.rand(shape, generator=generator, dtype=torch.float64)
        else:
            values[d.name] = torch.randint(0, d.type.bound or 2, shape, generator=generator)
    if not signature.builds_graph:
        values["graph"] = gdsl.Graph(edge_index, (nodes, nodes) if typed.bipartite else nodes)
    if made.signature.batched:
        values["batch"], values["num_graphs"] = torch.arange(nodes) * 2 // max(nodes, 1), 2
    return values


def run(made: gdsl.Layer, values: dict[str, Any]) -> Results:
    """Outputs, gradients and second derivatives by every float input and parameter."""
    given = _with_grad(values)
    outputs = made(**given)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return _derivatives(list(outputs), _leaves(given) + list(made.parameters()))


def oracle(made: gdsl.Layer, values: dict[str, Any]) -> Results:
    """The same by plain torch expressions and torch's own autograd: nothing of gdsl's derivative is used."""
    given = _with_grad(values)
    present = frozenset(i.name for i in made.signature.inputs if i.optional and i.name in given)
    free = {n: made.free_sizes.get(n, FREE_DIMS.get(n, 3)) for n in made.signature.free_dims}
    typed = typed_of(made, training=False, present=present, free=free)
    from gdsl.module.arguments import Bound, count_graphs
    from gdsl.module.call import _graph
    from gdsl.module.state import state_of
    from gdsl.module.ways import Compilations
    from gdsl.passes.options import Options
    from gdsl.runtime.rewire import rewire

    bound = Bound(given, given.get("graph"), given.get("batch"), given.get("num_graphs"))
    inputs = {d.name: given[d.name] for d in typed.of_role("input") if d.name in given}
    tensors = {**inputs, **state_of(typed, made, {})}
    kind = Compilations().kind(None, typed, Options(), torch.float64, torch.device("cpu"))
    graph = _graph(kind, bound, tensors)
    graph, tensors = rewire(typed, graph, tensors)
    frame = Frame(graph, torch.float64, torch.device("cpu"), bound.batch, count_graphs(bound.batch, bound.num_graphs))
    nodes = [node for _, node in typed.outputs]
    leaves = {n: tensors[n.attrs.name] for n in walk(nodes) if n.op == "load"}
    return _derivatives(reference.run(nodes, leaves, frame), _leaves(given) + list(made.parameters()))


def _with_grad(values: dict[str, Any]) -> dict[str, Any]:
    return {
        k: v.clone().requires_grad_() if isinstance(v, Tensor) and v.is_floating_point() else v
        for k, v in values.items()
    }


def _leaves(values: dict[str, Any]) -> list[Tensor]:
    return [v for v in values.values() if isinstance(v, Tensor) and v.requires_grad]


def _derivatives(outputs: list[Tensor], leaves: list[Tensor]) -> Results:
    score = sum((_weights(o, 0.7) * o).sum() for o in outputs if o.requires_grad)
    if not isinstance(score, Tensor):
        return outputs, _dense([None] * len(leaves), leaves), _dense([None] * len(leaves), leaves)
    first = torch.autograd.grad(score, leaves, create_graph=True, allow_unused=True)
    again = sum((_weights(g, 1.3) * g).sum() for g in first if g is not None and g.requires_grad)
    curved = isinstance(again, Tensor) and again.requires_grad
    second = torch.autograd.grad(again, leaves, allow_unused=True) if curved else [None] * len(leaves)
    return outputs, _dense(first, leaves), _dense(second, leaves)


def _weights(like: Tensor, pitch: float) -> Tensor:
    """Different for every element, so that no mistake cancels in the sum; the same numbers in each precision, where an
    angle of a thousand in float32 would be off by more than results are."""
    angles = pitch * torch.arange(like.numel(), dtype=torch.float64, device=like.device) + pitch
    return torch.cos(angles).to(like.dtype).reshape(like.shape)


def _dense(found: Any, leaves: list[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest difference, relative where values are large; different NaNs count as infinite."""
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if x.shape != y.shape or not torch.equal(x.isnan(), y.isnan()):
            return float("inf")
        if x.numel():
            finite = ~x.isnan() & (x != y)
            gap = ((x - y).abs() / (1 + y.abs()))[finite]
            worst = max([worst, *gap.max().reshape(1).tolist()] if gap.numel() else [worst])
    return worst
