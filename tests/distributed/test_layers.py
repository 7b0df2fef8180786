"""Layers of gdsl.nn on several processes against one: outputs, and gradients of inputs and parameters."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

import gdsl.nn
from tests.distributed.parts import near
from tests.distributed.pool import Pool
from tests.distributed.work import NODES, TARGETS, ShapeCut, layer_of_library, layer_outcome, set_backend
from tests.parity import drop_in
from tests.parity.catalogue import FAMILIES
from tests.parity.drop_in import Case

CASES = [
    case
    for names in FAMILIES.values()
    for name in names
    for case in getattr(import_module(f"tests.parity.{name}"), "CASES", ())
    if case.graph is not None and "refused" not in case.id and case.id != "GATv2Conv source"
]

# What a part of a graph cannot tell, and which error says so.
REFUSED = {
    "GATConv pair": "a loop of a bipartite graph",
    "GATConv equal pair": "a loop of a bipartite graph",
    "GATv2Conv pair": "a loop of a bipartite graph",
    "GATv2Conv equal pair": "a loop of a bipartite graph",
    "FeaStConv equal pair": "a loop of a bipartite graph",
    "PointNetConv x0 pair": "a loop of a bipartite graph",
    "PPFConv x0 pair": "a loop of a bipartite graph",
    "PointTransformerConv pair": "a loop of a bipartite graph",
    "SignedConv neg_edge_index": "larger than",
    "SignedConv halves neg_edge_index": "larger than",
}

# One of each way to read neighbours.
SAMPLE = {
    "GCNConv edge_weight", "SAGEConv pair", "GATConv edge_attr", "ClusterGCNConv", "TransformerConv edge_attr",
    "EdgeConv", "PNAConv x4 edge_attr", "RGCNConv pair edge_type", "PointTransformerConv", "APPNP", "GATConv pair",
    "RGATConv x4 edge_type return_attention_weights", "SuperGATConv", "EGConv",
}  # fmt: skip
IN_CHUNKS = {"SAGEConv pair", "GCNConv edge_weight", "GATConv edge_attr", "RGCNConv pair edge_type", "EGConv"}
COMPILED = {"SAGEConv pair"}
assert (NODES, TARGETS) == (drop_in.NODES, drop_in.TARGETS)
assert {case.id for case in CASES} >= SAMPLE | COMPILED | IN_CHUNKS


def compare(
    pool: Pool, case: Case, world: int, seed: int, backend: str, empty: bool = False, chunk: int | None = None
) -> None:
    """One process against several. Where one is ``empty`` it owns no node."""
    layer = drop_in.build(case, gdsl.nn, {})
    set_backend(layer, backend)
    drawn = drop_in.draw(case, seed)
    first, edge_index, values = drawn
    draw = torch.Generator().manual_seed(seed)
    owner = torch.randint(world - empty, (NODES,), generator=draw)
    targets = torch.randint(world - empty, (TARGETS,), generator=draw) if "pair" in case.id else None
    weights = torch.rand(TARGETS if targets is not None else NODES, 1, generator=draw, dtype=torch.float64)
    wanted, of_parameters = layer_outcome(layer, first, edge_index, values, weights)
    cut = ShapeCut(edge_index, owner, targets, chunk)
    got = pool.run(world, layer_of_library, layer, drawn, weights, cut)
    for k, value in enumerate(wanted):
        near(cut.whole([g[0][k] for g in got], value), value, f"result {k}")
    for k, value in enumerate(of_parameters):
        near(torch.stack([g[1][k] for g in got]).sum(0), value, f"gradient of parameter {k}")


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=c.id, marks=[] if c.id in SAMPLE else pytest.mark.slow) for c in CASES],
)
def test_a_layer_on_three_processes(pool: Pool, case: Case) -> None:
    if case.id in REFUSED:
        with pytest.raises(AssertionError, match=REFUSED[case.id]) as error:
            compare(pool, case, 3, 1, "torch")
        assert all(f"process {rank} of 3:" in str(error.value) for rank in range(3))
    else:
        compare(pool, case, 3, 1, "torch")


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.id, marks=[] if c.id in COMPILED else pytest.mark.slow) for c in CASES]
)
def test_generated_code_on_two_processes(pool: Pool, case: Case) -> None:
    if case.id not in REFUSED:
        compare(pool, case, 2, 2, "cpp")


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.id, marks=[] if c.id in IN_CHUNKS else pytest.mark.slow) for c in CASES]
)
def test_a_layer_that_reads_others_in_chunks(pool: Pool, case: Case) -> None:
    """On four processes, one of which owns nothing."""
    if case.id not in REFUSED:
        compare(pool, case, 4, 4, "cpp" if case.id in COMPILED else "torch", empty=True, chunk=1)


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("case", [pytest.param(c, id=c.id) for c in CASES if c.id not in REFUSED])
def test_a_layer_on_any_number_of_processes(pool: Pool, case: Case, world: int) -> None:
    compare(pool, case, world, 3, "torch", empty=world > 1)
