"""The example of interatomic forces: what it differentiates twice, and that it learns."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def forces(examples_on_path: Path) -> Any:
    return importlib.import_module("forces")


def test_the_step_through_the_backward_is_that_of_the_reference(forces: Any) -> None:
    """The gradient of a loss on forces by every parameter, against plain torch."""
    found = []
    for backend in ("cpp", "torch"):
        torch.manual_seed(0)
        model = forces.Potential().double()
        for conv in model.convs:
            conv.backend = backend
        data = tuple(
            t.double() if isinstance(t, torch.Tensor) and t.is_floating_point() else t
            for t in forces.molecules(3, 5, 1)
        )
        energy, force = forces.predict(model, data, create_graph=True)
        loss = energy.square().sum() + (force - data[5]).square().sum()
        found.append([energy, force, *torch.autograd.grad(loss, list(model.parameters()))])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_forces_are_minus_the_slope_of_the_energy(forces: Any) -> None:
    """By finite differences along a direction."""
    torch.manual_seed(0)
    model = forces.Potential().double()
    kind, pos, graph, batch, energy, force = forces.molecules(2, 4, 3)
    pos, step = pos.double(), 1e-5 * torch.randn(8, 3, dtype=torch.float64)
    _, found = forces.predict(model, (kind, pos, graph, batch, energy.double(), force), create_graph=False)
    with torch.no_grad():
        up, down = (model(kind, pos + s, graph, batch, 2).sum() for s in (step, -step))
    torch.testing.assert_close(-(found * step).sum(), (up - down) / 2, rtol=1e-5, atol=1e-12)


def test_it_learns(forces: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["forces.py", "--short"])
    assert forces.main() == 0
    lines = capsys.readouterr().out.splitlines()
    network, guess = ([float(v) for v in line.split()[-2:]] for line in lines[1:])
    assert network[0] < guess[0]
    assert network[1] < 0.9 * guess[1]
