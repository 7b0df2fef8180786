"""Programs on several processes against one: values and two derivatives, of the collection and of random ones.

``GDSL_RANDOM=300 pytest tests/distributed`` runs that many random programs instead of the default few.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

import gdsl
from gdsl.ir.printer import print_program
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind
from gdsl.passes.exchanges import exchanged
from gdsl.passes.options import Options
from gdsl.passes.pipeline import optimise
from gdsl.runtime.autograd import Runner
from gdsl.runtime.frame import Frame
from tests.distributed.parts import near
from tests.distributed.pool import Pool
from tests.distributed.work import SHARED, Cut, derivatives, layer_on, layer_on_part, outputs_of, program_on_part
from tests.programs import harness, random_programs
from tests.programs.sources import PROGRAMS
from tests.typed import typed_of

COUNT = int(os.environ.get("GDSL_RANDOM", "8"))
# (nodes, edges); of a hub all edges go into node 0, from all others.
GRAPHS: dict[str, tuple[int, int]] = {"random": (9, 30), "one": (1, 3), "none": (5, 0), "few": (6, 5), "hub": (8, 12)}


def edges_of(kind: str, seed: int) -> tuple[int, Tensor]:
    nodes, count = GRAPHS[kind]
    edges = harness.random_edges(nodes, count, seed)
    if kind == "hub":
        edges[1] = 0
    return nodes, edges


def weights(like: Tensor, pitch: float) -> Tensor:
    return harness._weights(like, pitch)


# ------------------------------------------------------------------------------------------ random programs


def check(pool: Pool, program: Program, seed: int, world: int, backend: str, chunk: int | None = None) -> None:
    kind = list(GRAPHS)[seed % len(GRAPHS)]
    nodes, edge_index = edges_of(kind, seed)
    draw = torch.Generator().manual_seed(seed)
    rows = {Domain.NODE: nodes, Domain.EDGE: edge_index.shape[1]}
    values = {}
    for load in program.inputs:
        shape = (() if load.domain is Domain.GLOBAL else (rows[load.domain],)) + load.type.shape
        real = load.kind is Kind.FLOAT
        values[load.attrs.name] = (
            torch.randn(shape, generator=draw, dtype=torch.float64)
            if real
            else torch.randint(load.type.bound, shape, generator=draw)
        )
    placed = exchanged(optimise(program))
    tensors = [values[n.attrs.name] for n in placed.inputs]
    real = [n for n in placed.inputs if n.kind is Kind.FLOAT]
    lead = [() if n.domain is Domain.GLOBAL else (rows[n.domain],) for n in program.nodes]
    first = [weights(torch.zeros(*r, *n.type.shape).double(), 0.7) for r, n in zip(lead, program.nodes, strict=True)]
    second = [weights(values[n.attrs.name], 1.3) for n in real]
    whole = Runner(program, "torch", torch.float64, torch.int32, Options(optimise=False, save=False))
    by_name = {n.attrs.name: t.clone() for n, t in zip(placed.inputs, tensors, strict=True)}
    leaves = [by_name[n.attrs.name].requires_grad_() for n in real]
    frame = Frame(gdsl.Graph(edge_index, nodes), torch.float64, torch.device("cpu"))
    outputs = whole([by_name[n.attrs.name] for n in whole.inputs], frame)
    wanted = derivatives(outputs, leaves, {"first": first, "second": second})
    owner = torch.randint(world, (nodes,), generator=draw)
    cut = Cut(edge_index, owner, chunk=chunk)
    domains = [n.domain for n in program.nodes], [n.domain for n in real]
    given = {
        "first": list(zip(first, domains[0], strict=True)),
        "second": list(zip(second, domains[1], strict=True)),
    }
    got = pool.run(world, program_on_part, placed, backend, cut, values, given)
    text = f"{kind}\n{print_program(placed)}"
    for order, parts in enumerate(zip(*got, strict=True)):
        for k, value in enumerate(wanted[order]):
            domain = domains[order > 0][k]
            found = [p[k] for p in parts]
            near(cut.whole(found, value, domain), value, f"derivative {order} of {k} on {text}")


@pytest.mark.parametrize(
    ("seed", "chunk"), [(k, None) for k in range(COUNT)] + [(k, 2) for k in range(COUNT if COUNT > 8 else 4)]
)
def test_random_program(pool: Pool, seed: int, chunk: int | None) -> None:
    program = random_programs.write(seed, 4 + seed % 12)
    check(pool, program, seed, 2 + seed % 3, "cpp" if seed % 8 == 5 else "torch", chunk)


# ------------------------------------------------------------------------------------- the collection

# One of each kind: several rounds, backwards, statistics and a readout, relations, a bipartite graph.
SAMPLE = {"SAGE_bipartite", "Statistics", "RGCN_bases", "TwoRounds", "PNA", "GAT_edge"}
IN_CHUNKS = {"SAGE_bipartite", "TwoRounds", "GAT_edge"}
BY_THEMSELVES = ("SAGE_module", "EdgeConv_knn")  # a module of the test's own; no graph is given


@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        pytest.param(n, chunk, marks=[] if n in sample else pytest.mark.slow)
        for chunk, sample in ((None, SAMPLE), (2, IN_CHUNKS))
        for n in PROGRAMS
        if n not in BY_THEMSELVES
    ],
)
def test_program(pool: Pool, name: str, chunk: int | None) -> None:
    layer = harness.layer(name, "torch")
    if layer.signature.builds_graph:
        pytest.skip("it takes no graph")
    layer.options = Options()
    compare(pool, layer, harness.random_edges(9, 30, 4), 3, chunk)


def compare(pool: Pool, layer: gdsl.Layer, edge_index: Tensor, world: int, chunk: int | None = None) -> None:
    """Outputs and two derivatives on a graph of 9 nodes, on so many processes against one."""
    nodes = 9
    given = harness.inputs(layer, edge_index, nodes)
    edge_index = given["graph"].edge_index
    signature = layer.signature
    present = frozenset(i.name for i in signature.inputs if i.optional and i.name in given)
    free = {n: layer.free_sizes.get(n, harness.FREE_DIMS.get(n, 3)) for n in signature.free_dims}
    typed = typed_of(layer, training=layer.training, present=present, free=free)
    domains = {d.name: d.type.domain for d in typed.of_role("input") if d.type is not None and d.name in given}
    changed = bool(typed.transforms)
    shown = [k for k, (_, n) in enumerate(typed.outputs) if not (changed and n.domain is Domain.EDGE)]
    of_outputs = [typed.outputs[k][1].domain for k in shown]
    outputs = outputs_of(layer, given, shown)
    leaves = [k for k, v in given.items() if isinstance(v, Tensor) and v.is_floating_point()]
    first = [weights(o.detach(), 0.7) for o in outputs]
    second = [weights(given[k], 1.3) for k in leaves] + [weights(p.detach(), 1.3) for p in layer.parameters()]
    wanted = layer_on(layer, given, shown, {"first": first, "second": second})
    of_leaves = [domains[k] for k in leaves] + [Domain.GLOBAL for _ in layer.parameters()]
    draw = torch.Generator().manual_seed(2)
    owner = torch.randint(world, (nodes,), generator=draw)
    targets = torch.randint(world, (nodes,), generator=draw) if typed.bipartite else None
    cut = Cut(edge_index, owner, targets, chunk)
    weighed = {
        "first": list(zip(first, of_outputs, strict=True)),
        "second": list(zip(second, of_leaves, strict=True)),
    }
    del given["graph"]
    run = (layer_on_part, layer, cut, given, domains, shown, weighed)
    got = pool.run(world, *run)
    for order, parts in enumerate(zip(*got, strict=True)):
        for k, value in enumerate(wanted[order]):
            domain = of_outputs[k] if order == 0 else of_leaves[k]
            found = [p[k] for p in parts]
            if order == 0 and domain in SHARED:
                for part in found:
                    near(part, value, f"output {k}")
            else:
                near(cut.whole(found, value, domain), value, f"derivative {order} of {k}")
