"""Blocks of a sampled batch give the seeds what the whole batch gives them, and compute less."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch_geometric.data import Data

import gdsl.nn
from gdsl.data import ClusterData, LinkNeighborLoader, NeighborLoader, pack
from gdsl.errors import InputError
from gdsl.runtime.graph import Graph
from gdsl.runtime.recent import grouped

from . import graphs as made
from .test_loader import no_sorting

LAYERS = {
    "SAGE": lambda i, o: gdsl.nn.SAGEConv(i, o),
    "GAT": lambda i, o: gdsl.nn.GATConv((i, i), o),  # adds loops, which lead from seeds to themselves
    "Transformer": lambda i, o: gdsl.nn.TransformerConv(i, o),
}


def _data(nodes: int = 300, edges: int = 1500) -> Data:
    random = torch.Generator().manual_seed(0)
    return Data(
        x=torch.randn(nodes, 4, generator=random, dtype=torch.float64),
        edge_index=torch.randint(nodes, (2, edges), generator=random),
        time=torch.randint(50, (nodes,), generator=random),
    )


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    "settings",
    [
        {"num_neighbors": [4]},
        {"num_neighbors": [5, 3]},
        {"num_neighbors": [-1, 2, 2]},
        {"num_neighbors": [3, 3], "replace": True},
        {"num_neighbors": [3, 0]},
        {"num_neighbors": [3, 2], "disjoint": True},
        {"num_neighbors": [3, 2], "time_attr": "time"},
        {"num_neighbors": [3, 2], "input_nodes": torch.tensor([7, 7, 0, 7])},
    ],
    ids=str,
)
def test_seeds_get_what_the_whole_batch_gives_them(layer: str, settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    hops = len(settings["num_neighbors"])
    convs = [LAYERS[layer](4, 4).double() for _ in range(hops)]
    for batch in NeighborLoader(_data(), batch_size=100, seed=0, num_workers=0, **settings):
        whole = part = batch.x
        with no_sorting():
            blocks = batch.blocks()
            _ = [block.in_edges for block in blocks]
        for conv, block in zip(convs, blocks, strict=True):
            whole = conv((whole, whole), batch.graph).tanh()
            part = conv((part, part[: block.num_targets]), block).tanh()
        torch.testing.assert_close(part, whole[: batch.batch_size])
        assert part.shape[0] == batch.batch_size
        assert sum(block.num_targets for block in blocks) <= hops * batch.num_nodes
        for block in blocks:  # as they would have been sorted
            again = Graph(block.edge_index, (block.num_sources, block.num_targets))
            for order in ("in_edges", "out_edges"):
                one, other = getattr(block, order), getattr(again, order)
                assert torch.equal(one.rowptr, other.rowptr) and torch.equal(one.edge, other.edge)
                assert torch.equal(one.index, other.index)


def test_gradients_through_blocks() -> None:
    torch.manual_seed(0)
    convs = [gdsl.nn.SAGEConv(4, 4).double() for _ in range(2)]
    (batch,) = NeighborLoader(_data(), [5, 3], input_nodes=torch.arange(40), batch_size=40, seed=0)
    found = []
    for blocks in (None, batch.blocks()):
        h = batch.x.requires_grad_()
        for conv, block in zip(convs, blocks or [None, None], strict=True):
            h = conv(h, batch.graph) if block is None else conv((h, h[: block.num_targets]), block)
        inputs = [batch.x, *(p for conv in convs for p in conv.parameters())]
        found.append(torch.autograd.grad(h[:40].square().sum(), inputs))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_blocks_of_several_types() -> None:
    torch.manual_seed(0)
    data = made.academic(60, 90, torch.Generator().manual_seed(0))
    loader = NeighborLoader(data, [3, 2], ("paper", torch.arange(20)), batch_size=20, seed=0)
    (batch,) = loader
    sizes = {"author": 2, "paper": 3}
    convs = {t: gdsl.nn.SAGEConv((sizes[t[0]], sizes[t[2]]), sizes[t[2]], aggr="sum") for t in batch.edge_types}

    def layer(x: dict[str, torch.Tensor], edges: dict[Any, Any]) -> dict[str, torch.Tensor]:
        # Nothing leads to authors, who stay as they are.
        targets = {type[2]: graph.num_targets for type, graph in edges.items()}
        found = {name: value[: targets.get(name)].tanh() for name, value in x.items()}
        for type, graph in edges.items():
            both = x[type[0]][: graph.num_sources], x[type[2]][: graph.num_targets]
            found[type[2]] = found[type[2]] + convs[type](both, graph)
        return found

    whole = part = batch.x_dict
    for block in batch.blocks():
        part, whole = layer(part, block), layer(whole, batch.graph_dict)
    assert len(part["paper"]) == 20
    torch.testing.assert_close(part["paper"], whole["paper"][:20])


def test_blocks_of_links_and_after_a_move_and_a_copy() -> None:
    links = torch.randint(300, (2, 9))
    (batch,) = LinkNeighborLoader(_data(), [3, 2], links, neg_sampling="binary", batch_size=9, seed=0)
    expected = [block.edge_index for block in batch.blocks()]
    for other in (batch.to("cpu"), batch.clone(), pickle.loads(pickle.dumps(batch))):
        assert all(torch.equal(a, b.edge_index) for a, b in zip(expected, other.blocks(), strict=True))
    conv, x = gdsl.nn.SAGEConv(4, 4).double(), batch.x
    for block in batch.blocks():
        x = conv((x, x[: block.num_targets]), block)
    assert int(batch.edge_label_index.max()) < len(x)


def test_native_code_reads_the_graphs_of_batches() -> None:
    """Both ends of all edges in one piece of memory, of which kernels and native calls take the address."""
    sampled = next(iter(NeighborLoader(_data(), [3, 2], batch_size=9)))
    joined = pack(made.many(made.molecule, made.sizes(4))).batch([3, 0])
    part = ClusterData(_data(), 3, cluster=torch.arange(300) % 3)[1]
    groups = grouped(joined.batch, joined.num_graphs)
    assert torch.equal(groups.edge_index, joined.batch.expand(2, -1))
    for graph in (sampled.graph, *sampled.blocks(), joined.graph, part.graph, groups):
        assert graph._edges.listed.is_contiguous() and graph._edges.listed.dtype is torch.int32
        for order in (graph.in_edges, graph.out_edges):
            assert order.rowptr.is_contiguous() and order.index.is_contiguous() and order.edge.is_contiguous()


def test_batches_without_blocks() -> None:
    data = _data()
    induced = next(iter(NeighborLoader(data, [3], batch_size=9, subgraph_type="induced")))
    both = next(iter(NeighborLoader(data, [3], batch_size=9, subgraph_type="bidirectional")))
    parts = ClusterData(data, 3, cluster=torch.arange(300) % 3)
    joined = pack(made.many(made.molecule, made.sizes(2))).batch([0, 1])
    for batch in (induced, both, parts[0], joined):
        with pytest.raises(InputError, match="only batches of sampled neighbours have blocks"):
            batch.blocks()
    for write in (
        lambda batch: setattr(batch, "edge_index", batch.edge_index.flip(1)),
        lambda batch: batch.edge_index.zero_(),
    ):
        batch = next(iter(NeighborLoader(data, [3], batch_size=9)))
        write(batch)
        with pytest.raises(InputError, match="no longer those that were sampled"):
            batch.blocks()
