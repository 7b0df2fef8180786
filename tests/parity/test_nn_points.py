"""Layers on points in space as drop-ins; those whose peers need other packages against a formula in torch."""

from __future__ import annotations

import math

import pytest
import torch

from gdsl.nn import GMMConv, GravNetConv, SplineConv, XConv
from gdsl.nn.neighbors import fps, knn, knn_graph, radius, radius_graph
from tests.parity.drop_in import IN, KINDS, NODES, TARGETS, Case, graph_of, make_tests, mlp, set_backend

LOOPS = {"add_self_loops": [False]}

KINDS["normal pair"] = lambda g, e: (KINDS["normal"](g, e), KINDS["normal"](g, e)[:TARGETS])
KINDS["positions"] = lambda g, e: (KINDS["pos"](g, e), KINDS["pos"](g, e)[:TARGETS])
KINDS["x0 pair"] = lambda g, e: (KINDS["x"](g, e), None)

CASES = [
    Case(
        "PointNetConv", (mlp(8, 6), mlp(6, 4)), then=("pos",), options={**LOOPS, "aggr": ["mean"]},
        compiled={"aggr": ["mean", "max"], "global_nn": None, "local_nn": mlp(8, 6)}, note="networks",
    ),
    Case("PointNetConv", (), then=("pos",)),
    Case("PointNetConv", (mlp(3, 6),), x="none", then=("pos",)),
    Case("PointNetConv", (mlp(8, 6),), x="x0 pair", then=("positions",), options=LOOPS),
    Case("PPFConv", (mlp(9, 6), mlp(6, 4)), then=("pos", "normal"), options=LOOPS),
    Case("PPFConv", (mlp(4, 6),), x="none", then=("pos", "normal")),
    Case("PPFConv", (mlp(9, 6),), x="x0 pair", then=("positions", "normal pair"), options=LOOPS),
    Case(
        "PointTransformerConv", (5, 4), then=("pos",), compiled={"attn_nn": mlp(4, 6, 4)},
        options={**LOOPS, "pos_nn": [mlp(3, 6, 4)], "attn_nn": [mlp(4, 6, 4)]},
    ),
    Case("PointTransformerConv", ((5, 3), 4), x="pair", then=("positions",)),
    Case("PointGNNConv", (mlp(5, 3), mlp(8, 6), mlp(6, 5)), then=("pos",), options={"aggr": ["mean"]}),
    Case(
        "GMMConv", (5, 4, 2, 3), call={"edge_attr": "unit"}, compiled={"aggr": "max"},
        options={"separate_gaussians": [True], "aggr": ["add"], "bias": [False], "flow": ["target_to_source"]},
    ),
    Case("GMMConv", ((5, 3), 4, 2, 3), x="pair", call={"edge_attr": "unit"}, options={"separate_gaussians": [True]}),
]  # fmt: skip

globals().update(make_tests(CASES))


def test_gmm_lazy_and_without_root() -> None:
    graph = graph_of("any", 1, False)
    assert graph is not None
    for separate in (False, True):
        layer = GMMConv(-1, 4, 2, 3, separate, root_weight=False)
        assert layer(torch.randn(NODES, IN), graph, torch.rand(graph.shape[1], 2)).shape == (NODES, 4)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_spline_conv(degree: int, backend: str) -> None:
    """Equation 4 of the paper: for each edge, the control points' weights mixed by the basis."""
    torch.manual_seed(0)
    layer = SplineConv(5, 4, dim=2, kernel_size=4, degree=degree).double()
    set_backend(layer, backend)
    graph = graph_of("any", 1, False)
    assert graph is not None
    x = torch.randn(NODES, IN, dtype=torch.float64)
    e = torch.rand(graph.shape[1], 2, dtype=torch.float64)
    expected = torch.zeros(NODES, 4, dtype=torch.float64)
    for k, (j, i) in enumerate(graph.t().tolist()):
        ones = [b_spline(float(u), 4, degree) for u in e[k]]
        kernel = sum(ones[0][a] * ones[1][b] * layer.weight[a + 4 * b] for a in range(4) for b in range(4))
        expected[i] += x[j] @ kernel
    count = torch.bincount(graph[1], minlength=NODES).clamp(min=1).unsqueeze(1)
    expected = expected / count + x @ layer.lin.weight.t() + layer.bias
    assert torch.allclose(layer(x, graph, e), expected, atol=1e-9)
    assert list(layer.state_dict()) == ["weight", "bias", "kernel_size", "is_open_spline", "lin.weight"]
    assert repr(layer) == "SplineConv(5, 4, dim=2)"


def b_spline(u: float, size: int, degree: int) -> list[float]:
    """The values of an open uniform B-spline's control points at u, by the recursion of de Boor and Cox."""
    v = u * (size - degree)
    first = min(math.floor(v), size - degree - 1)

    def cardinal(t: float, d: int) -> float:
        if d == 0:
            return 1.0 if 0 <= t < 1 else 0.0
        return t / d * cardinal(t, d - 1) + (d + 1 - t) / d * cardinal(t - 1, d - 1)

    values = [0.0] * size
    for place in range(degree + 1):
        values[first + place] = cardinal(v - first + degree - place, degree)
    return values


@pytest.mark.parametrize("arguments", [{"kernel_size": [3, 4]}, {"kernel_size": 3, "is_open_spline": False}])
def test_spline_conv_refuses(arguments: dict[str, object]) -> None:
    with pytest.raises(NotImplementedError, match="open splines"):
        SplineConv(5, 4, dim=2, **arguments)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("batched", [False, True])
def test_gravnet(backend: str, batched: bool) -> None:
    torch.manual_seed(0)
    layer = GravNetConv(5, 4, 3, 2, k=3).double()
    set_backend(layer, backend)
    x = torch.randn(NODES, IN, dtype=torch.float64)
    batch = torch.arange(NODES) // 5 if batched else None
    s, h = layer.lin_s(x), layer.lin_h(x)
    distance = torch.cdist(s, s)
    if batch is not None:
        distance = distance.masked_fill(batch.unsqueeze(1) != batch, math.inf)
    near = distance.topk(3, largest=False).indices
    weight = torch.exp(-10 * (s[near] - s.unsqueeze(1)).square().sum(-1))
    m = weight.unsqueeze(-1) * h[near]
    expected = layer.lin_out1(x) + layer.lin_out2(torch.cat([m.mean(1), m.amax(1)], dim=-1))
    found = layer(x, batch)
    assert torch.allclose(found, expected, atol=1e-9)
    assert torch.allclose(layer((x, x[:4])), GravNetConv.forward(layer, x)[:4], atol=1e-9)
    for a, b in zip(*(torch.autograd.grad(y.sum(), list(layer.parameters())) for y in (found, expected)), strict=True):
        assert torch.allclose(a, b, atol=1e-9)
    assert repr(layer) == "GravNetConv(5, 4, k=3)"
    with pytest.raises(ValueError, match="Static graphs"):
        layer(x.unsqueeze(0))


def test_x_conv() -> None:
    """Li et al., algorithm 1, one point at a time."""
    torch.manual_seed(0)
    layer = XConv(8, 6, dim=3, kernel_size=4, dilation=2).double().eval()
    x, pos = torch.randn(12, 8, dtype=torch.float64), torch.randn(12, 3, dtype=torch.float64)
    found = layer(x, pos)
    for i in range(12):
        near = (pos - pos[i]).norm(dim=1).argsort()[:8:2]
        local = pos[near] - pos[i]
        lifted = layer.mlp1[:6](local)
        block = torch.cat([lifted, x[near]], dim=1).t()
        mixed = block @ layer.mlp2(local.reshape(1, -1))[0]
        assert torch.allclose(found[i], layer.conv(mixed.unsqueeze(0))[0], atol=1e-9)
    assert repr(layer) == "XConv(8, 6)"
    with pytest.raises(ValueError, match="needs 8 points"):
        layer(x[:4], pos[:4])


def test_neighbours() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(30, 3), torch.randn(10, 3)
    bx, by = torch.arange(30) % 3, torch.arange(10) % 3
    a, b = knn(x, y, 4, bx, by)
    assert torch.equal(a, torch.arange(10).repeat_interleave(4))
    distance = torch.cdist(y.double(), x.double()).masked_fill(by.unsqueeze(1) != bx, math.inf)
    assert torch.equal(b.view(10, 4), distance.topk(4, largest=False).indices)
    source, target = knn_graph(x, 3)
    near = torch.cdist(x.double(), x.double()).fill_diagonal_(math.inf).topk(3, largest=False).indices
    assert torch.equal(source.view(30, 3), near)
    assert torch.equal(target, torch.arange(30).repeat_interleave(3))
    assert torch.equal(knn_graph(x, 3, flow="target_to_source"), torch.stack([target, source]))
    assert torch.equal(knn_graph(x, 3, loop=True)[0].view(30, 3)[:, 0], torch.arange(30))
    a, b = radius(x, y, 1.0, bx, by)
    assert set(zip(a.tolist(), b.tolist(), strict=True)) == set(map(tuple, (distance <= 1.0).nonzero().tolist()))
    source, target = radius_graph(x, 1.0, max_num_neighbors=2)
    assert int(torch.bincount(target).max()) <= 2
    assert not bool((source == target).any())
    # The same points at one place, and more neighbours than points.
    same = torch.zeros(4, 2)
    assert knn_graph(same, 2).shape == (2, 8)
    assert knn(same, same, 9).shape == (2, 16)
    assert knn(same[:0], same, 2).shape == (2, 0)
    for bad in (torch.randn(3), torch.tensor([[math.nan, 0.0]])):
        with pytest.raises(ValueError):
            knn(bad, bad, 1)
    with pytest.raises(ValueError):
        knn(x, y, 0)
    with pytest.raises(ValueError):
        knn(x, y, 1, bx)


def test_farthest_points() -> None:
    line = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    assert fps(line, ratio=0.75, random_start=False).tolist() == [0, 3, 2]
    batch = torch.tensor([0, 0, 1, 1])
    assert fps(line, batch, ratio=0.5, random_start=False).tolist() == [0, 2]
    assert len(fps(line, batch)) == 2
    with pytest.raises(ValueError, match="ratio"):
        fps(line, ratio=0.0)


def test_the_recursion_gives_a_partition_of_one() -> None:
    u = torch.rand(20).tolist()
    for degree in (1, 2, 3):
        assert all(abs(sum(b_spline(v, 5, degree)) - 1) < 1e-9 for v in u)


def test_lazy_sizes() -> None:
    x = torch.randn(NODES, IN)
    assert GravNetConv(-1, 4, 3, 2, k=3)(x).shape == (NODES, 4)
    graph = graph_of("any", 1, False)
    assert graph is not None
    assert SplineConv(-1, 4, 1, 3)(x, graph, torch.rand(graph.shape[1], 1)).shape == (NODES, 4)
