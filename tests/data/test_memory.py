"""The memory that sampling takes besides the graph is that of a batch: a graph ten times as large takes no more."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Data

from gdsl.data import (
    ClusterData,
    ClusterLoader,
    GraphSAINTRandomWalkSampler,
    LinkNeighborLoader,
    NeighborLoader,
)
from gdsl.data.links import Negatives

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")

# Nodes, and as many edges: eight bytes for each of the larger graph are more than what peaks may differ by.
LARGE, SMALL, SLACK = 2_000_000, 200_000, 4 << 20


def _bytes(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())
    assert found
    return int(found[1]) << 10


def peak_of(call: Callable[[], Any]) -> int:
    """The bytes of this process at the peak of a call, above those before it."""
    gc.collect()
    # What was freed is given back first: it would be used again unseen.
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
    try:
        RESET.write_text("5")
    except OSError:
        pytest.skip("this system does not forget the peak of a process")
    before = _bytes("VmRSS")
    call()
    return max(_bytes("VmHWM") - before, 0)


def test_a_peak_is_seen() -> None:
    assert peak_of(lambda: torch.ones(LARGE)) > 3 * LARGE


@pytest.fixture(scope="module")
def graphs() -> list[Data]:
    found = []
    for nodes in (SMALL, LARGE):
        random = torch.Generator().manual_seed(0)
        edges = torch.randint(nodes, (2, nodes), generator=random, dtype=torch.int32)
        found.append(Data(edge_index=edges, num_nodes=nodes, time=torch.arange(nodes)))
    return found


def _links(data: Data, **settings: Any) -> LinkNeighborLoader:
    return LinkNeighborLoader(data, [5, 5], data.edge_index[:, :600].long(), batch_size=200, **settings)


def _clusters(data: Data) -> ClusterLoader:
    parts = data.num_nodes // 1000
    return ClusterLoader(ClusterData(data, parts, cluster=torch.arange(data.num_nodes) % parts), 2)


LOADERS: dict[str, Callable[[Data], Iterable[Any]]] = {
    "neighbours": lambda data: NeighborLoader(data, [15, 10], torch.arange(900), batch_size=300),
    "all edges between": lambda data: NeighborLoader(
        data, [15, 10], torch.arange(900), batch_size=300, subgraph_type="induced"
    ),
    "trees by time": lambda data: NeighborLoader(data, [9, 9], torch.arange(900), batch_size=300, time_attr="time"),
    "links": lambda data: _links(data, neg_sampling="triplet"),
    "links by time": lambda data: _links(
        data, neg_sampling="binary", time_attr="time", edge_label_time=torch.full((600,), data.num_nodes // 2)
    ),
    "links by weight": lambda data: _links(
        data, neg_sampling=Negatives("binary", 1, torch.ones(data.num_nodes), torch.ones(data.num_nodes))
    ),
    "walks": lambda data: GraphSAINTRandomWalkSampler(
        Data(edge_index=data.edge_index, num_nodes=data.num_nodes), 200, walk_length=4, num_steps=3
    ),
    "clusters": _clusters,
}


@pytest.mark.parametrize("kind", LOADERS)
def test_the_peak_of_sampling_is_that_of_a_batch(kind: str, graphs: list[Data]) -> None:
    peaks = []
    for data in graphs:
        loader: Any = LOADERS[kind](data)
        loader.num_workers = 0  # else all of them are made by the time
        batches = iter(loader)
        next(batches)  # after which the loader knows all that it needs of the graph
        peaks.append(peak_of(lambda batches=batches: [next(batches) for _ in range(2)]))
    assert peaks[1] < peaks[0] + SLACK
