"""Poolings to clusters, indices of neighbours, interpolation and encodings against torch_geometric's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn
from gdsl.nn import clusters, pool
from tests.parity.drop_in import IN, NODES, flat, graph_of, outcome, pyg, set_backend
from tests.programs import harness


@pytest.fixture
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# torch_geometric's makes matrices of the default dtype.
@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("method", ["tanh", "sigmoid", "log_softmax"])
@pytest.mark.parametrize("threshold", [None, -0.5])
@pytest.mark.parametrize("training", [False, True])
def test_cluster_pooling(method: str, threshold: float | None, training: bool) -> None:
    made = []
    for library in (gdsl.nn, pyg):
        torch.manual_seed(0)
        made.append(library.ClusterPooling(IN, method, 0.4, threshold).double().train(training))
    ours, theirs = made
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert harness.difference(list(ours.state_dict().values()), list(theirs.state_dict().values())) == 0
    for seed in (1, 2):
        graph, x = graph_of("any", seed, False), torch.randn(NODES, IN, dtype=torch.float64)
        results = []
        for layer in made:
            torch.manual_seed(seed)
            results.append(outcome(layer, (x,), graph, {"batch": torch.arange(NODES) // 5}))
        found, expected = results
        assert found.keys() == expected.keys()
        assert [v.shape for v in found.values()] == [v.shape for v in expected.values()]
        assert harness.difference(list(found.values()), list(expected.values())) < 1e-9
    for layer in made:
        torch.manual_seed(1)
        layer.reset_parameters()
    assert harness.difference(list(ours.state_dict().values()), list(theirs.state_dict().values())) == 0


def test_cluster_pooling_in_generated_code() -> None:
    graph, x, batch = graph_of("any", 1, False), torch.randn(NODES, IN), torch.zeros(NODES, dtype=torch.long)
    layer = gdsl.nn.ClusterPooling(IN)
    results = []
    for backend in ("cpp", "torch"):
        set_backend(layer, backend)
        results.append(flat(layer(x, graph, batch)))
    assert harness.difference(*results) < 1e-5
    with pytest.raises(AssertionError, match="'relu'"):
        gdsl.nn.ClusterPooling(IN, "relu")


def test_components_are_those_of_scipy() -> None:
    csgraph = pytest.importorskip("scipy.sparse.csgraph")
    sparse = pytest.importorskip("scipy.sparse")
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        edges = torch.randint(30, (2, 5 + seed), generator=g)
        cluster, count = clusters.components(edges, 30)
        matrix = sparse.coo_matrix((torch.ones(edges.shape[1]).numpy(), edges.numpy()), (30, 30))
        expected, names = csgraph.connected_components(matrix, directed=True, connection="weak")
        assert count == expected
        assert cluster.tolist() == names.tolist()


@pytest.mark.parametrize("tau", [1.0, 2.5])
def test_memory_pooling(tau: float) -> None:
    made = []
    for library in (gdsl.nn, pyg):
        torch.manual_seed(0)
        made.append(library.MemPooling(IN, 4, 2, 3, tau).double())
    ours, theirs = made
    assert repr(ours) == repr(theirs)
    for again in (False, True):
        for layer in made if again else ():
            torch.manual_seed(1)
            layer.reset_parameters()
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert harness.difference(list(ours.state_dict().values()), list(theirs.state_dict().values())) == 0
    x, batch = torch.randn(NODES, IN, dtype=torch.float64), torch.arange(NODES) // 5
    block = torch.randn(2, NODES, IN, dtype=torch.float64)
    mask = torch.arange(NODES) < torch.tensor([[NODES], [4]])
    calls: list[tuple[Tensor, dict[str, Any]]] = [
        (x, {}), (x, {"batch": batch}), (x, {"batch": batch, "max_num_nodes": 7, "batch_size": 3}), (block, {}),
        (block, {"mask": mask}),
    ]  # fmt: skip
    for given, values in calls:
        found, expected = (outcome(layer, (given,), None, values) for layer in made)
        assert found.keys() == expected.keys()
        assert harness.difference(list(found.values()), list(expected.values())) < 1e-9
    mix = torch.rand(2, 5, 3, dtype=torch.float64)
    mix[1, 3:] = 0
    assert harness.difference([ours.kl_loss(mix)], [theirs.kl_loss(mix)]) < 1e-12


@pytest.mark.parametrize("kind", ["L2KNNIndex", "MIPSKNNIndex", "ApproxL2KNNIndex", "ApproxMIPSKNNIndex"])
@pytest.mark.parametrize("excluded", [False, True])
def test_indices_of_neighbours(kind: str, excluded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gdsl.nn.knn_index.CHUNK_DISTANCES", 60)  # several parts
    sizes = (4, 2, 8) if "Approx" in kind else ()
    known, wanted = torch.randn(20, 3), torch.randn(11, 3)
    index = getattr(gdsl.nn, kind)(*sizes)
    assert index.numel == 0
    with pytest.raises(RuntimeError, match="not yet initialized"):
        index.search(wanted, 2)
    index.add(known[:15])
    index.add(known[15:])
    assert index.numel == 20
    assert torch.equal(index.get_emb(), known)
    links = torch.tensor([[0, 0, 3, *[5] * 18], [1, 4, 7, *range(18)]]) if excluded else None
    found = index.search(wanted, 4, links)
    scores = wanted @ known.t() if "MIPS" in kind else -(wanted[:, None] - known).square().sum(dim=2)
    if links is not None:
        scores[links[0], links[1]] = float("-inf")
    best, place = scores.topk(4)
    none = best.isinf()
    assert torch.equal(found.index, place.masked_fill(none, -1))
    expected = (best if "MIPS" in kind else -best).masked_fill(none, float("-inf"))
    assert torch.allclose(found.score, expected, atol=1e-5)
    assert bool(none.any()) == excluded
    for wrong in (index.add, lambda emb: index.search(emb, 2)):
        with pytest.raises(ValueError, match=r"two-dimensional \(got 1 dimensions\)"):
            wrong(known[0])
    assert index.search(wanted[:0], 2).index.shape == (0, 2)
    assert index.search(wanted, 30).index.shape == (11, 20)


def test_indices_by_the_names_of_faiss() -> None:
    known = torch.randn(9, 3)
    for name, like in (("Flat", gdsl.nn.L2KNNIndex), ("IndexFlatL2", gdsl.nn.L2KNNIndex), ("IP", gdsl.nn.MIPSKNNIndex)):
        assert torch.equal(gdsl.nn.KNNIndex(name, known).search(known, 3).index, like(known).search(known, 3).index)
    with pytest.raises(ValueError, match="an index is one of"):
        gdsl.nn.KNNIndex("HNSW32")
    x, y, batch = torch.randn(9, 2), torch.randn(5, 2), torch.arange(9) // 5
    assert torch.equal(gdsl.nn.approx_knn(x, y, 3), gdsl.nn.knn(x, y, 3))
    assert torch.equal(gdsl.nn.approx_knn_graph(x, 2, batch, True), gdsl.nn.knn_graph(x, 2, batch, True))


def test_poolings_have_their_names() -> None:
    assert pool.MemPooling is gdsl.nn.MemPooling
    assert pool.L2KNNIndex is gdsl.nn.L2KNNIndex
    assert pool.knn is gdsl.nn.knn
    with pytest.raises(AttributeError, match="no attribute 'GCNConv'"):
        _ = pool.GCNConv


def test_interpolation() -> None:
    g = torch.Generator().manual_seed(0)
    x, pos_x, pos_y = (torch.randn(n, size, generator=g, dtype=torch.float64) for n, size in ((9, 4), (9, 3), (6, 3)))
    pos_y[0] = pos_x[3]  # at the same place
    for batches in ((None, None), (torch.arange(9) // 5, torch.arange(6) // 3)):
        for k in (1, 3):
            given = x.clone().requires_grad_()
            found = gdsl.nn.knn_interpolate(given, pos_x, pos_y, *batches, k=k)
            expected = []
            for i in range(6):
                square = (pos_x - pos_y[i]).square().sum(dim=1)
                if batches[0] is not None:
                    square = square.masked_fill(batches[0] != batches[1][i], float("inf"))
                near = square.argsort()[:k]
                w = 1 / square[near].clamp(min=1e-16)
                expected.append((w[:, None] * given[near]).sum(dim=0) / w.sum())
            assert harness.difference([found], [torch.stack(expected)]) < 1e-9
            a, b = (torch.autograd.grad((y * y.detach().cos()).sum(), given)[0] for y in (found, torch.stack(expected)))
            assert harness.difference([a], [b]) < 1e-9


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("PositionalEncoding", (6,)), ("PositionalEncoding", (4, 1e-3, 0.5)), ("TemporalEncoding", (5,))],
)
def test_encodings(name: str, arguments: tuple[Any, ...]) -> None:
    a, b = (getattr(library, name)(*arguments) for library in (gdsl.nn, pyg))
    assert repr(a) == repr(b)
    assert isinstance(a, nn.Module)
    assert list(a.state_dict()) == list(b.state_dict())
    x = torch.rand(7, requires_grad=True) * 5
    for part in ("float", "double"):
        given = getattr(x, part)()
        found, expected = (getattr(module, part)()(given) for module in (a, b))
        assert torch.equal(found, expected)
        assert torch.equal(*(torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for y in (found, expected)))
    a.reset_parameters()
    if name == "PositionalEncoding":
        with pytest.raises(ValueError, match=r"odd 'out_channels' \(got 3\)"):
            gdsl.nn.PositionalEncoding(3)


def test_interpolated_features_of_other_dtypes() -> None:
    pos, query = torch.tensor([[0.0, 0], [3, 0], [0, 5]]), torch.tensor([[1.0, 1.0], [50.0, 50]])
    wide = gdsl.nn.unpool.knn_interpolate(torch.tensor([[100.0], [150], [200]]), pos, query, k=3)
    for dtype in (torch.int64, torch.uint8, torch.float16):
        found = gdsl.nn.unpool.knn_interpolate(torch.tensor([[100], [150], [200]]).to(dtype), pos, query, k=3)
        torch.testing.assert_close(found, wide)
    near = torch.tensor([[0.0, 0], [0.001, 0], [1, 0]])
    found = gdsl.nn.unpool.knn_interpolate(torch.tensor([[1.0], [2], [3]]).half(), near, near, k=3)
    torch.testing.assert_close(found, torch.tensor([[1.0], [2], [3]]), atol=1e-2, rtol=0)
