"""examples/points.py: the shapes are what they are called, and each network learns them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def points(examples_on_path: Path) -> Any:
    return importlib.import_module("points")


def test_shapes_lie_on_their_surfaces(points: Any) -> None:
    count = 500
    for shape in points.SHAPES:
        assert shape(count).shape == (count, 3)
    torch.testing.assert_close(points.sphere(count).norm(dim=1), torch.ones(count))
    half = points.hemisphere(count)
    torch.testing.assert_close(half.norm(dim=1), torch.ones(count))
    assert bool((half[:, 2] >= 0).all())
    torch.testing.assert_close(points.cube(count).abs().amax(dim=1), torch.ones(count))
    across, height = (p := points.cylinder(count))[:, :2].norm(dim=1), p[:, 2].abs()
    torch.testing.assert_close(torch.maximum(across, height), torch.ones(count))
    across, height = (p := points.cone(count))[:, :2].norm(dim=1), p[:, 2]
    torch.testing.assert_close(torch.where(height > 0, 2 * across + height, 2.0), torch.full((count,), 2.0))
    across, height = (p := points.torus(count))[:, :2].norm(dim=1), p[:, 2]
    torch.testing.assert_close((across - 1) ** 2 + height**2, torch.full((count,), 0.16))


def test_a_batch_joins_no_two_shapes(points: Any) -> None:
    batch = points.batches(2, 32, seed=0)[0]
    for level, size in ((batch.fine, 32), (batch.coarse, 16)):
        assert torch.equal(torch.bincount(level.batch), torch.full((len(batch.y),), size))
        source, target = level.graph.edge_index
        assert torch.equal(level.batch[source], level.batch[target])
        assert torch.equal(torch.bincount(target), torch.full((len(level.pos),), points.NEIGHBOURS))
        assert 0 <= level.coordinates.min() < 0.1
        assert 0.9 < level.coordinates.max() <= 1
    assert torch.equal(batch.fine.pos[batch.kept], batch.coarse.pos)


# One in eight is right by chance: a twentieth more than that on 48 shapes is about one standard deviation.
@pytest.mark.parametrize(
    ("kind", "floor"), [("pointnet", 45), ("edge", 45), ("pointcnn", 22), ("spline", 50), ("monet", 45)]
)
def test_it_learns(points: Any, capsys: pytest.CaptureFixture[str], kind: str, floor: float) -> None:
    points.main(["--short", "--layers", kind])
    name, accuracy = capsys.readouterr().out.splitlines()[1].split()[:2]
    assert name == points.NAMES[kind]
    assert float(accuracy) > floor


def test_unknown_layer(points: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        points.main(["--layers", "edge,none"])
    assert "there is no layer none" in capsys.readouterr().err
