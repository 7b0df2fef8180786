"""What loaders are given that they cannot use: an error that says what is needed, before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from gdsl.data import (
    ClusterData,
    ClusterLoader,
    GraphSAINTNodeSampler,
    GraphSAINTRandomWalkSampler,
    LinkNeighborLoader,
    Loader,
    NeighborLoader,
    Packed,
    pack,
    pack_arrays,
)
from gdsl.errors import GraphError, InputError

N, E = 20, 60
HUGE = torch.full((E,), 1e308, dtype=torch.float64)


def graph(**more: Any) -> Data:
    random = torch.Generator().manual_seed(0)
    edges = torch.randint(N, (2, E), generator=random)
    return Data(x=torch.randn(N, 3, generator=random), edge_index=edges, **more)


def small(**more: Any) -> Data:
    return Data(**{"x": torch.ones(2, 1), "edge_index": torch.zeros(2, 1, dtype=torch.long), **more})


def arrays(**more: Any) -> Packed:
    return pack_arrays(torch.zeros(2, 1, dtype=torch.long), torch.tensor([0]), **more)


def links(**more: Any) -> LinkNeighborLoader:
    return LinkNeighborLoader(graph(), [2], **more)


CASES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "shuffle": (lambda: Loader([graph()], shuffle="no"), InputError, "shuffle must be True or False, not 'no'"),
    "drop_last": (lambda: Loader([graph()], drop_last=2), InputError, "drop_last must be True or False, not 2"),
    "no size of a batch": (
        lambda: NeighborLoader(graph(), [2], batch_size=None), InputError, "batch_size must be an integer of at least 1"
    ),
    "replace": (lambda: NeighborLoader(graph(), [2], replace="no"), InputError, "replace must be True or False"),
    "disjoint": (lambda: NeighborLoader(graph(), [2], disjoint=torch.ones(2)), InputError, "disjoint must be True"),
    "directed": (lambda: NeighborLoader(graph(), [2], directed="yes"), InputError, "directed must be True or False"),
    "another argument": (lambda: NeighborLoader(graph(), [2], batchsize=3), TypeError, "batchsize"),
    "an argument of saint": (lambda: GraphSAINTNodeSampler(graph(), 2, suffle=True), TypeError, "suffle"),
    "an argument of clusters": (
        lambda: ClusterLoader(ClusterData(graph(), 2, cluster=torch.arange(N) % 2), seeds=3), TypeError, "seeds"
    ),
    "an argument of walks": (lambda: GraphSAINTRandomWalkSampler(graph(), 2, 3, steps=3), TypeError, "steps"),
    "edges without numbers": (
        lambda: pack([small(edge_index=torch.zeros(2, 1, dtype=torch.long, device="meta"))]), InputError,
        "graph 0: `edge_index` must be a tensor",
    ),
    "features without numbers": (
        lambda: pack([small(x=torch.zeros(2, 1, device="meta"))]), InputError, "graph 0: `x` is not a dense tensor"
    ),
    "seeds without numbers": (
        lambda: NeighborLoader(graph(), [2], torch.zeros(3, dtype=torch.long, device="meta")), InputError, "input_nodes"
    ),
    "half a node": (lambda: pack([small(num_nodes=2.5)]), InputError, "nodes of graph 0 must be an integer"),
    "less than no nodes": (lambda: pack([small(num_nodes=-3)]), InputError, "nodes of graph 0 must be an integer of"),
    "half a node of a large graph": (
        lambda: NeighborLoader(Data(edge_index=torch.zeros(2, 1, dtype=torch.long), num_nodes=1.5), [2]), InputError,
        "number of nodes must be an integer",
    ),
    "an attribute graph": (lambda: pack([small(graph=torch.ones(1))]), InputError, "`graph` would hide"),
    "an attribute items": (lambda: pack([small(items=torch.ones(1))]), InputError, "`items` would hide"),
    "an attribute num_graphs": (lambda: pack([small(num_graphs=7)]), InputError, "`num_graphs` would hide"),
    "an attribute of a large graph": (
        lambda: NeighborLoader(graph(clone=torch.ones(N)), [2]), InputError, "`clone` would hide"
    ),
    "an attribute of several types": (lambda: pack([_several("blocks")]), InputError, "`blocks` would hide"),
    "an attribute twice": (
        lambda: arrays(nodes={"x": torch.ones(1)}, graphs={"x": torch.ones(1)}), InputError, "`x` is given twice"
    ),
    "edges twice": (lambda: arrays(nodes={"edge_index": torch.ones(1)}), InputError, "`edge_index` is given twice"),
    "a name that is none": (lambda: arrays(nodes={3: torch.ones(1)}), InputError, "3 is none"),
    "a sparse array": (lambda: arrays(nodes={"x": torch.eye(1).to_sparse()}), InputError, "`x` is not a dense"),
    "weights whose sum is infinite": (
        lambda: NeighborLoader(graph(w=HUGE), [2], weight_attr="w"), InputError, "of a finite sum"
    ),
    "chances whose sum is infinite": (
        lambda: links(neg_sampling=("binary", 1, HUGE[:N], HUGE[:N])), InputError, "of a finite sum"
    ),
    "complex chances": (
        lambda: links(neg_sampling=("binary", 1, HUGE[:N] * 1j, None)), InputError, "src_weight must be finite"
    ),
    "no chances": (
        lambda: links(neg_sampling=("triplet", 1, None, torch.zeros(N))), InputError, "not zero for all nodes"
    ),
    "chances of others": (
        lambda: links(neg_sampling=("binary", 1, torch.ones(3), None)), InputError, r"src_weight must be \[20\]"
    ),
    "a graph that is not there": (lambda: pack([graph()])[10**30], InputError, "there is no graph 1000000"),
    "no path": (lambda: pack([graph()]).save("a\0b"), InputError, "the path of a file or folder is needed"),
    "an edge to no node": (
        lambda: pack([small(), small(edge_index=torch.tensor([[0], [2**40]]))]), GraphError, "graph 1: edge 0"
    ),
}  # fmt: skip


def _several(name: str) -> HeteroData:
    data = HeteroData()
    data["a"].x = torch.ones(2, 1)
    data["a"][name] = torch.ones(2)
    data["a", "to", "a"].edge_index = torch.zeros(2, 1, dtype=torch.long)
    return data


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case: str) -> None:
    call, error, message = CASES[case]
    with pytest.raises(error, match=message):
        call()


def _edges(loader: Any) -> list[Tensor]:
    return [batch.e_id for batch in loader]


def test_input_that_is_unusual_and_means_something() -> None:
    data, random = graph(w=torch.rand(E)), torch.Generator().manual_seed(0)
    assert len(list(Loader([data, data], 10**30))) == 1
    assert len(pack([data])[torch.tensor([0])]) == 1  # a part of one graph, and not the graph
    every = _edges(NeighborLoader(data, [-1, -1], batch_size=4, seed=0))
    for most in (10**30, 2**62, 2**31, 2**64):
        found = _edges(NeighborLoader(data, [most, most], batch_size=4, seed=0))
        assert all(torch.equal(one, other) for one, other in zip(found, every, strict=True))
    # Only those of some weight are drawn, also from weights of very different sizes.
    weight = torch.zeros(N, dtype=torch.float64)
    weight[[3, 7, N - 1]] = torch.tensor([1e-300, 1e300, 1e299], dtype=torch.float64)
    pairs = torch.randint(N, (2, 200), generator=random)
    loader = links(edge_label_index=pairs, neg_sampling=("binary", 2, weight, weight), batch_size=200, seed=0)
    (batch,) = loader
    drawn = batch.n_id[batch.edge_label_index[:, 200:]]
    assert set(drawn.flatten().tolist()) == {7, N - 1}
    share = float((drawn == 7).double().mean())
    assert abs(share - 10 / 11) < 0.06
