"""The graphs of raw edge_index tensors: sorted once, and never wrong after a change."""

from __future__ import annotations

import gc
import multiprocessing
import threading

import numpy as np
import pytest
import torch

from gdsl.errors import GraphError
from gdsl.runtime import prepare
from gdsl.runtime import recent as module
from gdsl.runtime.recent import RECENT, graph_of

N = 10


@pytest.fixture(autouse=True)
def sorts(monkeypatch):
    """Counts the sorts."""
    done = []
    sort = prepare.sort
    monkeypatch.setattr(prepare, "sort", lambda edges, end, sizes: done.append(end) or sort(edges, end, sizes))
    module._recent.clear()
    return done


def edges(count: int = 50) -> torch.Tensor:
    return torch.randint(N, (2, count))


def test_sorted_once(sorts):
    edge_index = edges()
    for _ in range(3):
        graph = graph_of(edge_index, N, N)
        _ = graph.in_edges, graph.out_edges
    assert sorts == [1, 0]


def test_an_equal_tensor_is_another_graph():
    edge_index = edges()
    assert graph_of(edge_index, N, N) is not graph_of(edge_index.clone(), N, N)


def test_each_size_is_another_graph():
    edge_index = edges()
    square, bipartite = graph_of(edge_index, N, N), graph_of(edge_index, N, N + 1)
    assert bipartite.num_targets == N + 1
    assert graph_of(edge_index, N, N) is square
    assert graph_of(edge_index, None, None).num_nodes == int(edge_index.max()) + 1


def swap_data(edge_index: torch.Tensor) -> None:
    edge_index.data = torch.ones_like(edge_index)


CHANGES = {
    "item": lambda e: e.__setitem__((0, 0), (e[0, 0] + 1) % N),
    "method": lambda e: e.copy_(e.flip(0)),
    "view": lambda e: e[1].add_(1).remainder_(N),
    "detached": lambda e: e.detach().zero_(),
    "data replaced": swap_data,
    "set_": lambda e: e.set_(torch.ones_like(e)),
    "numpy": lambda e: e.numpy().__setitem__((0, 0), (e[0, 0].item() + 1) % N),
    "asarray": lambda e: np.asarray(e[1]).fill(3),
    "resized": lambda e: e.resize_(2, 10),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_in_place_change_is_seen(change):
    edge_index = edges()
    before = graph_of(edge_index, N, N)
    old = edge_index.clone()
    change(edge_index)
    assert not torch.equal(old, edge_index)
    after = graph_of(edge_index, N, N)
    assert after is not before
    assert torch.equal(after.edge_index, edge_index)
    assert torch.equal(before.edge_index, old)


def test_transposed_in_place():
    edge_index = torch.tensor([[0, 1], [2, 3]])
    graph_of(edge_index, N, N)
    edge_index.t_()
    assert graph_of(edge_index, N, N).edge_index.tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_memory_of_numpy(dtype, sorts):
    array = np.random.default_rng(0).integers(0, N, (2, 50)).astype(dtype)
    edge_index = torch.from_numpy(array)
    first = graph_of(edge_index, N, N)
    assert graph_of(edge_index, N, N) is first
    _ = first.in_edges, graph_of(edge_index, N, N).in_edges
    assert sorts == [1]
    array[0, 7] = (array[0, 7] + 1) % N
    assert torch.equal(graph_of(edge_index, N, N).edge_index, edge_index.long())
    array[1, 7] = N
    with pytest.raises(GraphError, match=r"edge 7 goes to node 10"):
        graph_of(edge_index, N, N)


def test_torch_tells_memory_that_numpy_shares():
    """What graph_of relies on."""
    own, given = edges(), torch.from_numpy(np.zeros((2, 3), dtype=np.int64))
    assert own.untyped_storage().resizable()
    assert not given.untyped_storage().resizable()
    array = own[0].numpy()
    assert not own.untyped_storage().resizable()
    del array
    assert edges().share_memory_().is_shared()


def _write(edge_index: torch.Tensor) -> None:
    edge_index[0, 0] = 9


def test_memory_shared_between_processes():
    edge_index = torch.zeros(2, 5, dtype=torch.long).share_memory_()
    graph_of(edge_index, N, N)
    process = multiprocessing.get_context("fork").Process(target=_write, args=(edge_index,))
    process.start()
    process.join()
    assert graph_of(edge_index, N, N).edge_index[0, 0] == 9


def test_inference_tensors_are_not_kept():
    with torch.inference_mode():
        edge_index = edges()
        first = graph_of(edge_index, N, N)
        edge_index.zero_()
        assert graph_of(edge_index, N, N).edge_index.sum() == 0
    assert first.edge_index.sum() > 0
    assert not module._recent


def test_an_ordinary_tensor_in_inference_mode_is_kept():
    edge_index = edges()
    with torch.inference_mode():
        first = graph_of(edge_index, N, N)
        assert graph_of(edge_index, N, N) is first
    assert graph_of(edge_index, N, N) is first


def test_few_are_kept_and_none_outlives_its_tensor():
    kept = [edges() for _ in range(RECENT + 5)]
    graphs = [graph_of(e, N, N) for e in kept]
    assert len(module._recent) == RECENT
    assert graph_of(kept[-1], N, N) is graphs[-1]
    assert graph_of(kept[0], N, N) is not graphs[0]
    kept.clear()
    gc.collect()
    assert not module._recent


def test_bad_tensors_are_refused_every_time():
    edge_index = torch.tensor([[0], [N]])
    for _ in range(2):
        with pytest.raises(GraphError):
            graph_of(edge_index, N, N)
    assert not module._recent
    with pytest.raises(GraphError, match="edge_index must be a tensor, not a list"):
        graph_of([[0], [1]], N, N)


def test_threads():
    edge_index = edges(5000)
    found = []

    def use():
        for _ in range(50):
            found.append(graph_of(edge_index, N, N))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(graph) for graph in found}) == 1


def _use_in_child(edge_index: torch.Tensor, found: multiprocessing.Queue) -> None:
    found.put(graph_of(edge_index, N, N).num_edges)


def test_a_fork_does_not_inherit_a_held_lock():
    edge_index, held, done = edges(), threading.Event(), threading.Event()

    def hold():
        with module._recent.lock:
            held.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    process = context.Process(target=_use_in_child, args=(edge_index, found))
    process.start()
    done.set()
    thread.join()
    assert found.get(timeout=20) == 50
    process.join()


def test_pyg_edge_index():
    from torch_geometric import EdgeIndex

    edge_index = EdgeIndex(edges())
    first = graph_of(edge_index, N, N)
    assert graph_of(edge_index, N, N) is first
    edge_index.as_tensor().zero_()
    assert graph_of(edge_index, N, N).edge_index.sum() == 0
