"""Points within a radius and the nearest ones, against the differences of all pairs in float64, also far from the
origin and at the cutoff."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gdsl.nn import neighbors
from gdsl.nn.neighbors import knn, knn_graph, radius, radius_graph
from gdsl.runtime import neighbors as trees

SURVEY = torch.tensor([500_000.0, 5_500_000.0], dtype=torch.float64)


@pytest.fixture(params=["tree", "parts of a tree", "distances"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How neighbours are found: the result is the same."""
    monkeypatch.setattr(neighbors, "PAIR_COST", 0)
    if request.param == "parts of a tree":
        monkeypatch.setattr(neighbors, "CHUNK_PAIRS", 7)
    if request.param == "distances":
        monkeypatch.setattr(neighbors, "tree_class", lambda: None)
        monkeypatch.setattr(trees, "tree_class", lambda: None)
        monkeypatch.setattr(neighbors, "CHUNK_DISTANCES", 250)
    return str(request.param)


def squares(x: Tensor, y: Tensor) -> Tensor:
    """[M, N] in float64, differences first."""
    return (y.double().unsqueeze(1) - x.double()).square().sum(dim=2)


def pairs(found: Tensor) -> list[tuple[int, int]]:
    return list(map(tuple, found.t().tolist()))


def points(count: int, dims: int = 2, place: Any = 0.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return (torch.rand(count, dims, dtype=torch.float64) + place).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("place", [0.0, SURVEY, -1e7 * SURVEY / SURVEY], ids=["here", "survey", "far"])
def test_radius(way: str, place: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, y = points(300, 2, place, dtype), points(100, 2, place, dtype)
    near = squares(x, y) < 0.05**2
    assert pairs(radius(x, y, 0.05, max_num_neighbors=None)) == pairs(near.nonzero().t())
    own = squares(x, x) < 0.05**2
    assert pairs(radius_graph(x, 0.05, loop=True, max_num_neighbors=300).flip(0)) == pairs(own.nonzero().t())
    own.fill_diagonal_(False)
    target, source = own.nonzero().t()
    assert pairs(radius_graph(x, 0.05, max_num_neighbors=None)) == pairs(torch.stack([source, target]))
    for most in (1, 3):
        kept = own & (own.cumsum(1) <= most)
        assert pairs(radius_graph(x, 0.05, max_num_neighbors=most).flip(0)) == pairs(kept.nonzero().t())
    turned = radius_graph(x, 0.05, max_num_neighbors=None, flow="target_to_source")
    assert torch.equal(turned, torch.stack([target, source]))


def test_groups(way: str) -> None:
    torch.manual_seed(0)
    x, y = points(90, 3, SURVEY[0]), points(40, 3, SURVEY[0])
    bx, by = torch.randint(4, (90,)), torch.randint(1, 6, (40,))
    near = (squares(x, y) < 0.3**2) & (by.unsqueeze(1) == bx)
    assert pairs(radius(x, y, 0.3, bx, by, None)) == pairs(near.nonzero().t())
    kept = near & (near.cumsum(1) <= 2)
    assert pairs(radius(x, y, 0.3, bx, by, 2)) == pairs(kept.nonzero().t())


@pytest.mark.parametrize("dims", [1, 2, 17])
def test_a_pair_at_the_cutoff_is_left_out(way: str, dims: int) -> None:
    """As torch_cluster compares squares: below, and not equal."""
    for step in (1.0, 0.3, 1e-3):
        x = torch.zeros(3, dims, dtype=torch.float64)
        x[:, 0] = step * torch.tensor([0.0, 1.0, 1.0 - 1e-9], dtype=torch.float64)
        assert pairs(radius(x, x[:1], step)) == [(0, 0), (0, 2)]
    grid = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    assert radius_graph(grid, 1.0).shape == (2, 0)
    assert radius_graph(grid, 1.0 + 1e-6).shape == (2, 48)
    assert radius_graph(grid, 5.0, max_num_neighbors=None).shape == (2, 240)
    assert radius_graph(grid, float("inf"), max_num_neighbors=None).shape == (2, 240)
    assert radius_graph(grid, 0.0, loop=True).shape == (2, 0)


@pytest.mark.parametrize("dims", [2, 17])
def test_nearest_far_from_the_origin(way: str, dims: int) -> None:
    torch.manual_seed(0)
    x = points(100, dims, 5_500_000.0)
    order = squares(x, x).fill_diagonal_(torch.inf).topk(4, largest=False).indices
    assert torch.equal(knn_graph(x, 4)[0].view(100, 4), order)
    assert torch.equal(trees.knn_graph(x, 4)[0].view(100, 4), order)
    assert torch.equal(knn(x, x[:50], 1)[1], torch.arange(50))


def test_no_more_than_a_chunk_of_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(neighbors, "CHUNK_DISTANCES", 1 << 14)
    plain = neighbors._distances
    monkeypatch.setattr(neighbors, "_distances", lambda y, x: seen.append(len(y) * len(x)) or plain(y, x))
    x = points(1000, 3)
    assert radius_graph(x, 0.05).shape[1] > 100
    assert not seen
    # Where most pairs are near, a tree costs more than distances.
    radius_graph(x, 2.0)
    assert sum(seen) == 10**6
    monkeypatch.setattr(neighbors, "tree_class", lambda: None)
    knn(x, x, 2)
    assert sum(seen) == 2 * 10**6 and max(seen) <= 1 << 14


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3, 2), torch.zeros(3, 2), -1.0), "a radius is a number from 0, not -1.0"),
        ((torch.zeros(3, 2), torch.zeros(3, 2), torch.nan), "a radius is a number from 0, not nan"),
        ((torch.zeros(3, 2), torch.zeros(3, 3), 1.0), "both sets of points have as many coordinates, not 2 and 3"),
        (
            (torch.zeros(3, 2), torch.zeros(3, 2), 1.0, torch.zeros(2), torch.zeros(3)),
            "there are 3 points, but the shape of their groups is [2]",
        ),
    ],
)
def test_messages(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        radius(*arguments)
    assert str(caught.value) == message
