"""Norms of nodes against torch_geometric's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gdsl.nn.norm as ours
from tests.parity.drop_in import outcome
from tests.programs import harness

theirs = pytest.importorskip("torch_geometric.nn.norm")

NODES, CHANNELS = 9, 4

NORMS: list[tuple[str, dict[str, Any]]] = [
    ("BatchNorm", {"in_channels": CHANNELS}),
    ("BatchNorm", {"in_channels": CHANNELS, "affine": False, "track_running_stats": False}),
    ("BatchNorm", {"in_channels": CHANNELS, "allow_single_element": True}),
    ("InstanceNorm", {"in_channels": CHANNELS}),
    ("InstanceNorm", {"in_channels": CHANNELS, "affine": True, "track_running_stats": True, "momentum": 0.3}),
    ("LayerNorm", {"in_channels": CHANNELS}),
    ("LayerNorm", {"in_channels": CHANNELS, "affine": False, "eps": 0.1}),
    ("LayerNorm", {"in_channels": CHANNELS, "mode": "node"}),
    ("GraphNorm", {"in_channels": CHANNELS}),
    ("PairNorm", {}),
    ("PairNorm", {"scale": 2.0, "scale_individually": True}),
    ("GraphSizeNorm", {}),
    ("MeanSubtractionNorm", {}),
    ("DiffGroupNorm", {"in_channels": CHANNELS, "groups": 3}),
    ("DiffGroupNorm", {"in_channels": CHANNELS, "groups": 2, "lamda": 0.5, "affine": False, "momentum": 0.3}),
    *[(f"Hetero{kind}Norm", {"in_channels": CHANNELS, "num_types": 4, **more})
      for kind in ("Batch", "Layer") for more in ({}, {"affine": False, "eps": 0.1})],
    ("HeteroBatchNorm", {"in_channels": CHANNELS, "num_types": 4, "momentum": None}),
    ("HeteroBatchNorm", {"in_channels": CHANNELS, "num_types": 4, "track_running_stats": False}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), NORMS, ids=[f"{name} {options}" for name, options in NORMS])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_same_numbers(name: str, options: dict[str, Any], batched: bool, training: bool) -> None:
    torch.manual_seed(0)
    a, b = (getattr(library, name)(**options).double().train(training) for library in (ours, theirs))
    with torch.no_grad():
        for p in b.parameters():
            p.uniform_(0.5, 1.5)
    a.load_state_dict(b.state_dict())
    assert list(a.state_dict()) == list(b.state_dict())
    assert repr(a) == repr(b)
    groups = torch.tensor([0] * 4 + [2] * 5)
    values = {"batch": groups} if batched and name not in ("BatchNorm", "DiffGroupNorm") else {}
    if "Hetero" in name:
        values = {"type_vec": groups.flip(0) if batched else groups}
    for nodes in (NODES, 1) if options.get("allow_single_element") else (NODES,):
        x = torch.randn(nodes, CHANNELS, dtype=torch.float64) + 1
        found, expected = (outcome(norm, (x,), None, values) for norm in (a, b))
        assert harness.difference(list(found.values()), list(expected.values())) < 1e-9
    assert harness.difference(list(a.state_dict().values()), list(b.state_dict().values())) < 1e-9
    if hasattr(a, "reset_parameters"):
        for norm in (a, b):
            torch.manual_seed(1)
            norm.reset_parameters()
        assert harness.difference(list(a.state_dict().values()), list(b.state_dict().values())) < 1e-9


def test_by_name() -> None:
    for name in ("batch", "BatchNorm", "batch_norm", "Batch-Norm"):
        assert isinstance(ours.norm_resolver(name, CHANNELS), ours.BatchNorm)
    assert isinstance(ours.norm_resolver("mean_subtraction_norm"), ours.MeanSubtractionNorm)
    assert ours.norm_resolver(None) is None
    with pytest.raises(ValueError, match="Could not resolve 'best' among"):
        ours.norm_resolver("best")
    with pytest.raises(ValueError, match="Unknownn normalization mode: all"):
        ours.LayerNorm(CHANNELS, mode="all")(torch.randn(NODES, CHANNELS))
    with pytest.raises(ValueError, match="'allow_single_element' requires"):
        ours.BatchNorm(CHANNELS, track_running_stats=False, allow_single_element=True)


@pytest.mark.parametrize("learn", [True, False])
@pytest.mark.parametrize("p", [1.0, 2.0])
def test_norms_of_messages(learn: bool, p: float) -> None:
    a, b = (library.MessageNorm(learn).double() for library in (ours, theirs))
    assert repr(a) == repr(b)
    x, m = (torch.randn(NODES, size, dtype=torch.float64) for size in (CHANNELS, 3))
    with torch.no_grad():
        for norm in (a, b):
            norm.scale.fill_(0.7)
    found, expected = (outcome(norm, (x, m), None, {"p": p}) for norm in (a, b))
    assert found.keys() == expected.keys()
    assert harness.difference(list(found.values()), list(expected.values())) < 1e-12
    a.reset_parameters()
    assert a.scale.item() == 1


def test_types_as_ranges() -> None:
    a, b = (library.HeteroLayerNorm(CHANNELS, 3).double() for library in (ours, theirs))
    with torch.no_grad():
        a.weight.uniform_()
        b.weight.copy_(a.weight)
    x, ptr = torch.randn(NODES, CHANNELS, dtype=torch.float64), [0, 4, 4, NODES]
    for given in (ptr, torch.tensor(ptr)):
        assert harness.difference([a(x, type_ptr=given)], [b(x, type_ptr=given)]) < 1e-12
    with pytest.raises(ValueError, match="'type_vec' or 'type_ptr'"):
        a(x)
    with pytest.raises(AssertionError, match="mode"):
        ours.HeteroLayerNorm(CHANNELS, 3, mode="graph")


def test_distances_of_groups() -> None:
    x, y = torch.randn(NODES, CHANNELS), torch.arange(NODES) % 3
    a, b = (library.DiffGroupNorm.group_distance_ratio(x, y) for library in (ours, theirs))
    assert abs(a - b) < 1e-6


@pytest.mark.parametrize("name", ["LayerNorm", "GraphNorm", "InstanceNorm", "MeanSubtractionNorm", "GraphSizeNorm"])
def test_a_batch_of_no_nodes(name: str) -> None:
    kind = getattr(ours, name)
    made = kind() if name in ("MeanSubtractionNorm", "GraphSizeNorm") else kind(4)
    assert made(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)).shape == (0, 4)


def test_one_graph_is_trained_under_inductor() -> None:
    """Its vector code for the CPU fails on the gradient of rows that are read from a single number."""
    norm, x = ours.LayerNorm(CHANNELS), torch.randn(NODES, CHANNELS, requires_grad=True)
    factors, batch = torch.randn(NODES, CHANNELS), torch.zeros(NODES, dtype=torch.long)

    def step(x: torch.Tensor) -> torch.Tensor:
        return norm(x) * factors + norm(2 * x, batch, batch_size=1)

    eager, compiled = (torch.autograd.grad(f(x).sum(), x)[0] for f in (step, torch.compile(step, dynamic=True)))
    assert torch.allclose(eager, compiled, atol=1e-5)
