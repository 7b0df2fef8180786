"""Models of molecules against torch_geometric's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn
from gdsl.nn.models import schnet
from tests.parity.drop_in import outcome, pyg, set_backend
from tests.programs import harness

ATOMS = 9
SIZES = {"hidden_channels": 6, "num_filters": 5, "num_interactions": 2, "num_gaussians": 4, "cutoff": 3.0}


def near(pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs of a molecule, with their distances; torch_geometric's own edges are another package's."""
    row, col = ((batch[:, None] == batch) & ~torch.eye(len(pos), dtype=torch.bool)).nonzero().t()
    return torch.stack([row, col]), (pos[row] - pos[col]).norm(dim=-1)


class Near(nn.Module):
    """The same as a module."""

    def forward(self, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        return near(pos, batch)


class ByPosition(nn.Module):
    """With the positions in front: they have a gradient, forces."""

    def __init__(self, model: nn.Module, z: Tensor):
        super().__init__()
        self.model, self.z = model, z

    def forward(self, pos: Tensor, batch: Tensor | None) -> Tensor:
        return self.model(self.z, pos, batch)


def build(library: Any, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return library.SchNet(**SIZES, interaction_graph=near, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"readout": "mean"},
        {"mean": 1.5, "std": 2.0},
        {"atomref": torch.arange(100.0).view(-1, 1)},
        {"dipole": True},
    ],
    ids=lambda options: " ".join(options),
)
@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_schnet(options: dict[str, Any], backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    masses = SimpleNamespace(data=SimpleNamespace(atomic_masses=torch.arange(119.0, dtype=torch.float64).numpy() + 1))
    monkeypatch.setitem(__import__("sys").modules, "ase", masses)
    if backend == "cpp" and options:
        pytest.skip("what the options change runs in torch")
    ours, theirs = made = [build(library, **options) for library in (gdsl.nn, pyg)]
    assert repr(ours) == repr(theirs)
    for again in (False, True):
        for model in made if again else ():
            torch.manual_seed(1)
            model.reset_parameters()
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert harness.difference(list(ours.state_dict().values()), list(theirs.state_dict().values())) == 0
    set_backend(ours, backend)
    z, pos = torch.randint(1, 9, (ATOMS,)), torch.randn(ATOMS, 3, dtype=torch.float64)
    for batch in (torch.arange(ATOMS) // 5, None):
        found, expected = (outcome(ByPosition(model.double(), z), (pos, batch), None, {}) for model in made)
        assert found.keys() == expected.keys()
        for part, value in expected.items():
            assert harness.difference([found[part]], [value]) < 1e-7, part  # its log 2 has 24 bits


def test_filters_are_computed_in_the_kernel() -> None:
    model = build(gdsl.nn)
    z, pos = torch.randint(1, 9, (ATOMS,)), torch.randn(ATOMS, 3)
    model(z, pos)
    assert "nn.2.weight = param" in model.interactions[0].conv.explain()

    class Shifted(schnet.ShiftedSoftplus):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    before = model(z, pos)
    model.interactions[0].mlp[1].__class__ = Shifted
    changed = model(z, pos)
    assert not torch.allclose(changed, before)
    assert "nn.2.weight = param" not in model.interactions[0].conv.explain()
    x = torch.tensor([-30.0, 0.0, 19.0, 21.0, 100.0])
    assert torch.equal(schnet.ShiftedSoftplus()(x), pyg.models.schnet.ShiftedSoftplus()(x))


def test_edges_between_near_atoms() -> None:
    graph = schnet.RadiusInteractionGraph(1.5, 3)
    pos, batch = torch.randn(ATOMS, 3), torch.arange(ATOMS) // 5
    edges, length = graph(pos, batch)
    assert torch.equal(edges, gdsl.nn.radius_graph(pos, 1.5, batch, max_num_neighbors=3))
    assert torch.allclose(length, (pos[edges[0]] - pos[edges[1]]).norm(dim=1))
    every, distance = near(pos, batch)
    short = (every[:, distance < 3.0], distance[distance < 3.0])
    one = gdsl.nn.SchNet(**SIZES)
    other = gdsl.nn.SchNet(**SIZES, interaction_graph=lambda pos, batch: short)
    other.load_state_dict(one.state_dict())
    z = torch.ones(ATOMS, dtype=torch.long)
    assert torch.allclose(one(z, pos, batch), other(z, pos, batch), atol=1e-5)


def test_trained_models_are_those_of_torch_geometric(monkeypatch: pytest.MonkeyPatch) -> None:
    for atomref in (None, torch.arange(100.0).view(-1, 1)):
        theirs = pyg.SchNet(**SIZES, mean=1.0, std=2.0, atomref=atomref)
        theirs.readout, theirs.scale = pyg.MeanAggregation(), 0.5
        if atomref is not None:
            with torch.no_grad():
                theirs.atomref.weight.add_(1)
        monkeypatch.setattr(pyg.SchNet, "from_qm9_pretrained", lambda *_, net=theirs: (net, "a", "b", "c"))
        model, *parts = gdsl.nn.SchNet.from_qm9_pretrained("", None, 7)
        assert parts == ["a", "b", "c"]
        model.interaction_graph = theirs.interaction_graph = Near()
        z, pos, batch = torch.randint(1, 9, (ATOMS,)), torch.randn(ATOMS, 3), torch.arange(ATOMS) // 5
        assert torch.allclose(model(z, pos, batch), theirs(z, pos, batch), atol=1e-5)
