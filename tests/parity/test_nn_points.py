"""Layers on points in space as drop-ins; those whose peers need other packages against a formula in torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from gdsl.nn import GMMConv, GravNetConv, SplineConv, XConv
from gdsl.nn.neighbors import fps, knn, knn_graph, nearest, radius, radius_graph
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


SPLINES: dict[str, dict[str, Any]] = {
    "open": {"kernel_size": 4},
    "of two sizes": {"kernel_size": [5, 4]},
    "closed": {"kernel_size": 3, "is_open_spline": False},
    "closed in one dimension": {"kernel_size": [4, 5], "is_open_spline": [True, False]},
    "closed with few points": {"kernel_size": [1, 2], "is_open_spline": False},
}
# Those of the default run.
SOON = {(name, degree, "torch") for name in SPLINES for degree in (1, 2, 3)}
SOON |= {("open", 1, "cpp"), ("open", 2, "cpp"), ("closed in one dimension", 3, "cpp")}


def b_spline(u: Tensor, size: int, degree: int, is_open: bool) -> Tensor:
    """The values of a uniform B-spline's control points at u, [...] to [..., size]: the recursion of de Boor and Cox.

    A closed one is a sum over its periods.
    """

    def cardinal(t: Tensor, d: int) -> Tensor:
        if d == 0:
            return ((t >= 0) & (t < 1)).to(t.dtype)
        return t / d * cardinal(t, d - 1) + (d + 1 - t) / d * cardinal(t - 1, d - 1)

    v = (u * (size - degree if is_open else size)).unsqueeze(-1) - torch.arange(size) + degree
    periods = [0] if is_open else range(-degree - 1, degree + 2)
    return torch.stack([cardinal(v + k * size, degree) for k in periods]).sum(0)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("name", SPLINES)
def test_the_recursion_gives_a_partition_of_one(name: str, degree: int) -> None:
    for size, is_open in zip(*_sizes(SPLINES[name]), strict=True):
        u = torch.rand(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(b_spline(u, size, degree, is_open).sum(-1), torch.ones_like(u))


def _sizes(arguments: Mapping[str, Any]) -> tuple[list[int], list[bool]]:
    size, is_open = arguments["kernel_size"], arguments.get("is_open_spline", True)
    return (size if isinstance(size, list) else [size] * 2), (is_open if isinstance(is_open, list) else [is_open] * 2)


@pytest.mark.parametrize(
    ("name", "degree", "backend"),
    [
        pytest.param(name, degree, backend, marks=[] if (name, degree, backend) in SOON else pytest.mark.slow)
        for name in SPLINES
        for degree in (1, 2, 3)
        for backend in ("torch", "cpp", "triton")
    ],
)
def test_spline_conv(name: str, degree: int, backend: str) -> None:
    """Equation 4 of the paper, with every control point for every edge; torch_geometric's needs another package."""
    torch.manual_seed(0)
    layer = SplineConv(5, 4, dim=2, degree=degree, **SPLINES[name]).double()
    set_backend(layer, backend)
    graph = graph_of("any", 1, False)
    assert graph is not None
    x = torch.randn(NODES, IN, dtype=torch.float64, requires_grad=True)
    e = torch.rand(graph.shape[1], 2, dtype=torch.float64)
    e[0], e[1] = 0.0, 1.0
    e.requires_grad_()

    bases = [
        b_spline(e[:, k], size, degree, ends) for k, (size, ends) in enumerate(zip(*_sizes(SPLINES[name]), strict=True))
    ]
    basis = (bases[1].unsqueeze(2) * bases[0].unsqueeze(1)).flatten(1)  # the first coordinate varies fastest
    messages = torch.einsum("ek,ed,kdo->eo", basis, x[graph[0]], layer.weight)
    count = torch.bincount(graph[1], minlength=NODES).clamp(min=1).unsqueeze(1)
    expected = x.new_zeros(NODES, 4).index_add(0, graph[1], messages) / count + x @ layer.lin.weight.t() + layer.bias
    found = layer(x, graph, e)
    assert torch.allclose(found, expected, atol=1e-9)

    wanted = [x, e, *layer.parameters()]
    mix = torch.randn_like(expected)
    for a, b in zip(*(torch.autograd.grad(y, wanted, mix) for y in (found, expected)), strict=True):
        keep = e < 1 if a.shape == e.shape else slice(None)  # the slope at the last knot is a matter of convention
        assert torch.allclose(a[keep], b[keep], atol=1e-9)
    assert list(layer.state_dict()) == ["weight", "bias", "kernel_size", "is_open_spline", "lin.weight"]
    assert repr(layer) == "SplineConv(5, 4, dim=2)"


def test_spline_conv_in_bfloat16_and_with_lists_that_are_too_short_or_long() -> None:
    layer = SplineConv(5, 4, dim=3, kernel_size=[3, 2, 4, 9], is_open_spline=[True, False])
    assert layer.kernel_size.tolist() == [3, 2, 4]
    assert layer.is_open_spline.tolist() == [1, 0, 0]
    graph = graph_of("any", 1, False)
    assert graph is not None
    x, e = torch.randn(NODES, IN).bfloat16(), torch.rand(graph.shape[1], 3).bfloat16()
    half = layer.bfloat16()(x, graph, e)
    assert half.dtype is torch.bfloat16
    assert torch.allclose(half.float(), layer.float()(x.float(), graph, e.float()), atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"kernel_size": 3, "degree": 4}, "degree 1, 2 or 3"), ({"kernel_size": [4, 2], "degree": 2}, "more than 2")],
)
def test_spline_conv_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
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
    assert set(zip(a.tolist(), b.tolist(), strict=True)) == set(map(tuple, (distance < 1.0).nonzero().tolist()))
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


def test_nearest_by_angle_and_the_nearest_one() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(30, 3), torch.randn(10, 3)
    bx, by = torch.arange(30) % 2, torch.arange(10) % 2
    angle = torch.cosine_similarity(y.unsqueeze(1), x, dim=-1)
    assert torch.equal(knn(x, y, 3, cosine=True)[1].view(10, 3), angle.topk(3).indices)
    distance = torch.cdist(x, y)
    assert torch.equal(nearest(x, y), distance.argmin(1))
    assert torch.equal(nearest(x, y, bx, by), distance.masked_fill(bx.unsqueeze(1) != by, math.inf).argmin(1))
    with pytest.raises(ValueError, match="without a point of the same group"):
        nearest(x, y, bx, torch.zeros_like(by))


def test_farthest_points() -> None:
    line = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    assert fps(line, ratio=0.75, random_start=False).tolist() == [0, 3, 2]
    batch = torch.tensor([0, 0, 1, 1])
    assert fps(line, batch, ratio=0.5, random_start=False).tolist() == [0, 2]
    assert len(fps(line, batch)) == 2
    assert fps(line[:0]).tolist() == fps(line[:0], batch[:0]).tolist() == []
    with pytest.raises(ValueError, match="ratio"):
        fps(line, ratio=0.0)


def test_lazy_sizes() -> None:
    x = torch.randn(NODES, IN)
    assert GravNetConv(-1, 4, 3, 2, k=3)(x).shape == (NODES, 4)
    graph = graph_of("any", 1, False)
    assert graph is not None
    assert SplineConv(-1, 4, 1, 3)(x, graph, torch.rand(graph.shape[1], 1)).shape == (NODES, 4)
