"""Models of molecules against torch_geometric's."""

from __future__ import annotations

import copy
import functools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn
from gdsl.nn.models import schnet, waves
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


DIMENET = {"hidden_channels": 6, "out_channels": 2, "num_blocks": 1, "num_spherical": 3, "num_radial": 2, "cutoff": 3.0,
           "num_output_layers": 1, "num_after_skip": 1, "output_initializer": "glorot_orthogonal"}  # fmt: skip
KINDS = {
    "DimeNet": {"num_bilinear": 3},
    "DimeNetPlusPlus": {"int_emb_size": 5, "basis_emb_size": 3, "out_emb_channels": 7},
}


@functools.cache
def _their_dimenet(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return getattr(pyg, kind)(**DIMENET, **KINDS[kind])


def their_dimenet(kind: str) -> nn.Module:
    """A copy: sympy takes seconds to make one."""
    return copy.deepcopy(_their_dimenet(kind))


def of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch_geometric's edges and angles are other packages': here they are ours."""
    monkeypatch.setattr("torch_geometric.nn.models.dimenet.radius_graph", gdsl.nn.radius_graph)
    monkeypatch.setattr("torch_geometric.nn.models.dimenet.triplets", waves.triplets)


@pytest.mark.parametrize(("kind", "backend"), [("DimeNet", "torch"), ("DimeNet", "cpp"), ("DimeNetPlusPlus", "cpp")])
def test_dimenet(kind: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of_others(monkeypatch)
    torch.manual_seed(0)
    ours, theirs = made = (getattr(gdsl.nn, kind)(**DIMENET, **KINDS[kind]), their_dimenet(kind))
    for again in (False, True):
        for model in made if again else ():
            torch.manual_seed(1)
            model.reset_parameters()
        assert {k: v.shape for k, v in ours.state_dict().items()} == {
            k: v.shape for k, v in theirs.state_dict().items()
        }
        for name, value in theirs.state_dict().items():
            assert torch.allclose(ours.state_dict()[name], value, atol=1e-6), name
    ours.load_state_dict(theirs.state_dict())
    set_backend(ours, backend)
    z, pos = torch.randint(1, 9, (ATOMS,)), torch.randn(ATOMS, 3, dtype=torch.float64)
    for batch in (torch.arange(ATOMS) // 5, None):
        found, expected = (outcome(ByPosition(model.double(), z), (pos, batch), None, {}) for model in made)
        assert found.keys() == expected.keys()
        for part, value in expected.items():  # torch_geometric's roots of Bessel functions are in float32
            scale = max(1.0, float(value.abs().max()))
            assert float((found[part] - value).abs().max()) < 1e-5 * scale, part


def test_angles() -> None:
    edges = gdsl.nn.radius_graph(torch.randn(ATOMS, 3), 1.8)
    target, source, i, j, k, first, second = waves.triplets(edges, ATOMS)
    expected = [
        (a, b)
        for b in range(edges.shape[1])
        for a in sorted(range(edges.shape[1]), key=lambda e: int(edges[0, e]))
        if edges[1, a] == edges[0, b] and edges[0, a] != edges[1, b]
    ]
    assert [*zip(first.tolist(), second.tolist(), strict=True)] == expected
    assert torch.equal(torch.stack([source, target]), edges)
    for nodes, end, of in ((i, 1, second), (j, 0, second), (j, 1, first), (k, 0, first)):
        assert torch.equal(nodes, edges[end, of])


def test_waves() -> None:
    special = pytest.importorskip("scipy.special")
    x = torch.linspace(0.5, 20, 50, dtype=torch.float64)
    roots = waves.bessel_roots(5, 6)
    for order, found in enumerate(waves.spherical_bessel(x, 5)):
        assert torch.allclose(found, torch.as_tensor(special.spherical_jn(order, x.numpy())), atol=1e-9)
        assert abs(special.spherical_jn(order, roots[order].numpy())).max() < 1e-12
    layer = waves.SphericalBasisLayer(4, 3, cutoff=2.0)
    angle = torch.linspace(0, 3, 7, dtype=torch.float64)
    for order in range(4):
        norm = ((2 * order + 1) / (4 * torch.pi)) ** 0.5
        legendre = torch.as_tensor(special.eval_legendre(order, angle.cos().numpy()))
        assert torch.allclose(layer._angular(angle)[:, order], norm * legendre)
    # Orthonormal over the unit ball.
    r = torch.linspace(1e-4, 1, 20_000, dtype=torch.float64)
    waves_of = layer._radial(r)
    for order in range(4):
        products = torch.einsum("ea,eb,e->ab", waves_of[:, order], waves_of[:, order], r**2) * (r[1] - r[0])
        assert torch.allclose(products, torch.eye(3, dtype=torch.float64), atol=1e-3)
    with pytest.raises(AssertionError, match="at most 64"):
        waves.SphericalBasisLayer(2, 65)
    with pytest.raises(ValueError, match="num_spherical"):
        gdsl.nn.DimeNet(**{**DIMENET, "num_spherical": 1}, num_bilinear=2)
    with pytest.raises(AssertionError, match="outputs begin"):
        gdsl.nn.DimeNet(**{**DIMENET, "output_initializer": "ones"}, num_bilinear=2)


@pytest.mark.parametrize("kind", KINDS)
def test_trained_directional_models(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of_others(monkeypatch)
    monkeypatch.setattr(getattr(gdsl.nn, kind), "trained", {**DIMENET, **KINDS[kind]})
    theirs = their_dimenet(kind)
    monkeypatch.setattr(getattr(pyg, kind), "from_qm9_pretrained", lambda *_: (theirs, ("a", "b", "c")))
    model, parts = getattr(gdsl.nn, kind).from_qm9_pretrained("", None, 7)
    assert parts == ("a", "b", "c")
    z, pos = torch.randint(1, 9, (ATOMS,)), torch.randn(ATOMS, 3)
    assert torch.allclose(model.double()(z, pos.double()), theirs.double()(z, pos.double()), rtol=1e-5)
