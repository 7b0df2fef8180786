"""The adjacency as a sparse matrix of torch: rows are targets, values are weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn
from tests.parity.drop_in import NODES, graph_of, pyg
from tests.programs import harness

# Those that have edge weights take the values for them; torch_geometric's SAGE and GIN, which have none, multiply by
# the values of torch's matrices and not by those of torch_sparse's, and ours by neither.
WEIGHTED: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "GCNConv": ((5, 4), {}),
    "GCNConv improved": ((5, 4), {"improved": True}),
    "GraphConv": ((5, 4), {}),
    "SGConv": ((5, 4, 2), {}),
    "SSGConv": ((5, 4, 0.2, 2), {}),
    "TAGConv": ((5, 4), {}),
    "APPNP": ((2, 0.2), {}),
    "LGConv": ((), {}),
    "MixHopConv": ((5, 4), {}),
    "TransformerConv": ((5, 4), {}),
    "GATConv": ((5, 4), {"add_self_loops": False}),
}
PLAIN: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "SAGEConv": ((5, 4), {}),
    "GINConv": ((nn.Linear(5, 4),), {}),
    "AGNNConv": ((), {"add_self_loops": False}),
    "EdgeConv": ((nn.Linear(10, 4),), {}),
}


def matrix(layout: torch.layout, weighted: bool) -> Tensor:
    graph = graph_of("any", 1, False)
    assert graph is not None
    values = torch.rand(graph.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    whole = torch.sparse_coo_tensor(graph.flip(0), values, (NODES, NODES)).coalesce()
    if not weighted:
        whole = torch.sparse_coo_tensor(whole.indices(), torch.ones_like(whole.values()), whole.shape).coalesce()
    return whole if layout is torch.sparse_coo else whole.to_sparse_csr()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr], ids=["coo", "csr"])
@pytest.mark.parametrize("name", [*WEIGHTED, *PLAIN])
def test_same_numbers(name: str, layout: torch.layout) -> None:
    arguments, options = {**WEIGHTED, **PLAIN}[name]
    ours, theirs = (getattr(library, name.split()[0])(*arguments, **options).double() for library in (gdsl.nn, pyg))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(NODES, 5, dtype=torch.float64)
    adjacency = matrix(layout, name in WEIGHTED)
    assert harness.difference([ours(x, adjacency)], [theirs(x, adjacency)]) < 1e-9


def test_messages_against_the_edges_of_a_matrix_are_refused() -> None:
    with pytest.raises(ValueError, match="target_to_source"):
        gdsl.nn.SAGEConv(5, 4, flow="target_to_source")(torch.randn(NODES, 5), matrix(torch.sparse_csr, False).float())
