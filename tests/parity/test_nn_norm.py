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
]


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
    values = {"batch": torch.tensor([0] * 4 + [2] * 5)} if batched and name != "BatchNorm" else {}
    for nodes in (NODES, 1) if options.get("allow_single_element") else (NODES,):
        x = torch.randn(nodes, CHANNELS, dtype=torch.float64) + 1
        found, expected = (outcome(norm, (x,), None, values) for norm in (a, b))
        assert harness.difference(list(found.values()), list(expected.values())) < 1e-9
    assert harness.difference(list(a.state_dict().values()), list(b.state_dict().values())) < 1e-9
    if hasattr(a, "reset_parameters"):
        a.reset_parameters()
        b.reset_parameters()
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
