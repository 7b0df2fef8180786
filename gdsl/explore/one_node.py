"""The values of one node and its edges, rule by rule, on a small graph: by the reference, on inputs drawn at random."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gdsl.errors import GdslError, InputError
from gdsl.explore.reading import Reading
from gdsl.ir.types import Domain
from gdsl.language.program import TypedProgram
from gdsl.look.node import edges_into, rule_of
from gdsl.module.layer import Layer
from gdsl.module.node import NodeValues, named_tensors
from gdsl.runtime.graph import Graph

NODES = 12
PROFILES = ("even", "skewed")
# What is shown of a node with many edges, and of a value with many features; and the most numbers of a layer's own.
EDGES, FEATURES, MOST_NUMBERS = 12, 16, 4_000_000


@dataclass(frozen=True)
class NodeRun:
    """A call of a layer on a small graph: the values that have names."""

    typed: TypedProgram
    graph: Graph
    values: NodeValues


def one_node(run: NodeRun, node: int) -> dict[str, Any]:
    """The values of a node: ``steps``, each with a row of numbers for each edge into it, or one.

    Raises :class:`gdsl.InputError` for a node that the graph does not have.
    """
    if not 0 <= node < NODES:
        raise InputError(f"a node is one of 0 to {NODES - 1}")
    found = zip(run.values.named, run.values.plain, strict=True)
    return {
        "node": node,
        "nodes": NODES,
        "edges": run.graph.edge_index.t().tolist(),
        "steps": [_step(run.typed, name, value, tensor, run.graph, node) for (name, value), tensor in found],
    }


def call(reading: Reading, profile: str = "even") -> NodeRun:
    """Make a layer that has no mistakes, and call it.

    profile: "even", where all nodes have as many edges, or "skewed", where node 0 has most of them

    Raises :class:`gdsl.InputError` for a layer that cannot be made from its text alone, or is too large.
    """
    typed = reading.typed
    assert typed is not None and reading.layer is not None
    if profile not in PROFILES:
        raise InputError(f"a profile is one of {', '.join(PROFILES)}")
    if _numbers_of(typed) > MOST_NUMBERS:
        raise InputError("the layer is too large to be tried on a node: take smaller sizes")
    try:
        with torch.random.fork_rng(devices=()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the page has those of the text
            torch.manual_seed(0)
            layer = Layer(reading.layer, backend="torch", **reading.values).eval()
        if typed.graphs:
            raise InputError("a node is shown of layers on one graph: explain(graphs, node=...) shows one on each")
        (ran,) = layer._plain(reading.settings.inputs, "torch")
        graph = sample_graph(ran.compiled.typed, profile)
        return NodeRun(ran.compiled.typed, graph, named_tensors(layer, ran, graph, 0, None))
    except GdslError:
        raise
    except RuntimeError as problem:  # what torch cannot do with these sizes
        raise InputError(f"torch cannot run it: {problem}") from problem


def _numbers_of(typed: TypedProgram) -> int:
    """How many numbers a layer has, and its values on the small graph."""
    declared = sum(d.type.numel for d in typed.declarations if d.type is not None)
    chains = [(d.part.sizes, d.part.count or 1) for d in typed.declarations if d.part is not None]
    linear = sum(count * a.size * b.size for sizes, count in chains for a, b in itertools.pairwise(sizes))
    return declared + linear + 4 * NODES * sum(rule.type.numel for rule in typed.rules)


def sample_graph(typed: TypedProgram, profile: str) -> Graph:
    """A graph of a dozen nodes of the same profile of degrees, with what the program requires of its edges."""
    ahead = next((r.value for r in typed.requires if r.kind == "degree"), 0)
    if ahead:
        pairs = [((i + k + 1) % NODES, i) for i in range(NODES) for k in range(min(ahead, NODES - 1))]
    elif profile == "even":
        pairs = [((i + k) % NODES, i) for i in range(NODES) for k in (-2, -1, 1, 2)]
    else:
        spokes = [(i, 0) for i in range(1, NODES)]
        ring = [(i, i % (NODES - 1) + 1) for i in range(1, NODES)]
        pairs = [*spokes, *((b, a) for a, b in spokes), *ring, *((b, a) for a, b in ring)]
    return Graph(torch.tensor(pairs).t().contiguous(), (NODES, NODES))


def _step(typed: TypedProgram, name: str, value: Any, tensor: Tensor, graph: Graph, node: int) -> dict[str, Any]:
    on_edges = value.domain is Domain.EDGE
    edges = edges_into(typed, graph, node) if on_edges else []
    rows = [("its own loop" if e.number < 0 else f"from {e.source}", tensor[e.place]) for e in edges[:EDGES]]
    return {
        "name": name,
        "text": rule_of(typed, name, value),
        "line": {rule.node: rule.span.line for rule in typed.rules}.get(value),
        "type": str(value.type),
        "edges": on_edges,
        "rows": [[label, _numbers(row), row.numel()] for label, row in (rows if on_edges else [("", tensor[node])])],
        "left_out": max(0, len(edges) - EDGES),
    }


def _numbers(row: Tensor) -> list[float | None]:
    """The first numbers of a row; what is not finite has no form in JSON."""
    return [round(v, 6) if math.isfinite(v) else None for v in row.flatten()[:FEATURES].tolist()]
