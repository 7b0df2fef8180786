"""Layers of gdsl.nn on several processes against one: outputs, and gradients of inputs and parameters."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn
from tests.distributed.parts import local, owned
from tests.distributed.pool import Pool
from tests.parity import drop_in
from tests.parity.catalogue import FAMILIES
from tests.parity.drop_in import NODES, TARGETS, Case, leaves

CASES = [
    case
    for names in FAMILIES.values()
    for name in names
    for case in getattr(import_module(f"tests.parity.{name}"), "CASES", ())
    if case.graph is not None and "refused" not in case.id
]

# What a part of a graph cannot tell, and which error says so.
REFUSED = {
    "ChebConv edge_weight": "`edge_index` asks for all nodes",
    "ChebConv": "`edge_index` asks for all nodes",
    "GATConv pair": "a loop of a bipartite graph",
    "GATConv equal pair": "a loop of a bipartite graph",
    "GATv2Conv pair": "a loop of a bipartite graph",
    "GATv2Conv equal pair": "a loop of a bipartite graph",
    "FeaStConv equal pair": "a loop of a bipartite graph",
    "PointNetConv x0 pair": "a loop of a bipartite graph",
    "PPFConv x0 pair": "a loop of a bipartite graph",
    "PointTransformerConv pair": "a loop of a bipartite graph",
    "MeshCNNConv": "`edge_index` asks for all nodes",
    "MeshCNNConv networks": "`edge_index` asks for all nodes",
    "RGCNConv numbers edge_type": "`edge_index` asks for all nodes",
    "RGCNConv number pair edge_type": "`edge_index` asks for all nodes",
    "RGCNConv none edge_type": "features of 9",
    "SignedConv neg_edge_index": "larger than",
    "SignedConv halves neg_edge_index": "larger than",
}

# One of each way to read neighbours.
SAMPLE = {
    "GCNConv edge_weight", "SAGEConv pair", "GATConv edge_attr", "ClusterGCNConv", "TransformerConv edge_attr",
    "EdgeConv", "PNAConv x4 edge_attr", "RGCNConv pair edge_type", "PointTransformerConv", "APPNP", "GATConv pair",
    "RGATConv x4 edge_type return_attention_weights", "SuperGATConv", "EGConv",
}  # fmt: skip
COMPILED = {"GCNConv edge_weight", "SAGEConv pair", "GATConv edge_attr"}
assert {case.id for case in CASES} >= SAMPLE | COMPILED


class Cut:
    """Whose nodes and edges are whose, and what belongs to them. Their numbers differ, so that shapes tell."""

    def __init__(self, edge_index: Tensor, owner: Tensor, targets: Tensor | None):
        self.edge_index, self.owner, self.targets = edge_index, owner, targets

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


def outcome(
    layer: nn.Module, first: tuple[Any, ...], graph: Any, values: dict[str, Any], weights: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """The first output and the gradients of inputs, and the gradients of parameters."""
    first, values = leaves(first), {k: leaves(v) for k, v in values.items()}
    y = drop_in.flat(layer(*first, graph, **values))[0]
    given = [t for t in drop_in.flat([*first, *values.values()]) if t.requires_grad]
    inputs = len(given)
    given += [p for p in layer.parameters() if p.requires_grad]
    grads = torch.autograd.grad((weights * y).sum(), given, allow_unused=True) if y.requires_grad else ()
    zeros = [torch.zeros_like(t) if g is None else g for g, t in zip(grads, given, strict=False)]
    return [y.detach(), *zeros[:inputs]], zeros[inputs:]


def on_part(rank: int, world: int, group: Any, layer: nn.Module, drawn: Any, weights: Tensor, cut: Cut) -> Any:
    first, edge_index, values = drawn
    graph, _ = local(edge_index, cut.owner, rank, world, group, cut.targets)
    values = {k: cut.part(v, rank) for k, v in values.items()}
    return outcome(layer, cut.part(first, rank), graph, values, cut.part(weights, rank))


def compare(pool: Pool, case: Case, world: int, seed: int, backend: str, empty: bool = False) -> None:
    """One process against several. Where one is ``empty`` it owns no node."""
    layer = drop_in.build(case, gdsl.nn, {})
    drop_in.set_backend(layer, backend)
    drawn = drop_in.draw(case, seed)
    first, edge_index, values = drawn
    draw = torch.Generator().manual_seed(seed)
    owner = torch.randint(world - empty, (NODES,), generator=draw)
    targets = torch.randint(world - empty, (TARGETS,), generator=draw) if "pair" in case.id else None
    weights = torch.rand(TARGETS if targets is not None else NODES, 1, generator=draw, dtype=torch.float64)
    wanted, of_parameters = outcome(layer, first, edge_index, values, weights)
    cut = Cut(edge_index, owner, targets)
    got = pool.run(world, on_part, layer, drawn, weights, cut)
    for k, value in enumerate(wanted):
        near(cut.whole([g[0][k] for g in got], value), value, f"result {k}")
    for k, value in enumerate(of_parameters):
        near(torch.stack([g[1][k] for g in got]).sum(0), value, f"gradient of parameter {k}")


def near(found: Tensor, wanted: Tensor, what: str) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10, msg=lambda text: f"{what}: {text}")


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


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("case", [pytest.param(c, id=c.id) for c in CASES if c.id not in REFUSED])
def test_a_layer_on_any_number_of_processes(pool: Pool, case: Case, world: int) -> None:
    compare(pool, case, world, 3, "torch", empty=world > 1)
