"""examples/networks.py: each network is what torch_geometric's layers give on the same parameters."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from gdsl import nn as layers
from gdsl.runtime.triton import interpreted

BACKENDS = ["torch", "cpp", *["triton"] * interpreted()]


@pytest.fixture
def example(examples_on_path: Path) -> Any:
    return importlib.import_module("networks")


@pytest.mark.filterwarnings("ignore:(invalid|divide):RuntimeWarning")  # of NumPy, in Triton's interpreter
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["GAT", "JumpingGCN", "GraphSAGE"])
def test_it_is_what_torch_geometric_gives(example: Any, name: str, backend: str) -> None:
    """Values, and two derivatives by inputs and parameters, on a graph with loops, parallel edges and a lone node."""
    library = pytest.importorskip("torch_geometric.nn") if name == "GAT" else layers
    both = example.made(name, 3, 2, 2, library, backend=backend).double().eval()
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    edges = torch.tensor([[0, 1, 2, 3, 3, 1, 4, 2, 2], [1, 0, 1, 2, 3, 4, 0, 2, 1]])
    wanted = [x, *both.network.parameters()]
    own = [x, *both.convs.parameters()]
    if name == "JumpingGCN":
        own += both.network.out.parameters()
    names = [n for n, _ in both.network.named_parameters()]
    found = []
    for net, leaves in ((both.network, wanted), (both, own)):
        y = net(x, edges)
        first = torch.autograd.grad(y.sin().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves, allow_unused=True)
        found.append((y, first, second))
    (y, first, second), (y_, first_, second_) = found
    torch.testing.assert_close(y, y_, rtol=1e-9, atol=1e-9)
    order = [n.replace("conv1.", "0.").replace("conv2.", "1.").replace("convs.", "") for n in names]
    theirs = [n for n, _ in both.convs.named_parameters()]
    theirs += [f"out.{n}" for n, _ in both.network.out.named_parameters()] if name == "JumpingGCN" else []
    places = [0, *(1 + theirs.index(n) for n in order)]
    for mine, other in ((first, first_), (second, second_)):
        for a, k in zip(mine, places, strict=True):
            b = other[k]
            zero = torch.zeros(())
            torch.testing.assert_close(zero if a is None else a, zero if b is None else b, rtol=1e-8, atol=1e-8)


def test_steps_are_timed(example: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["networks.py", "--short", "--networks", "GraphSAGE"])
    example.main()
    assert "GraphSAGE" in capsys.readouterr().out
