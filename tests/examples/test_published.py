"""examples/published.py: each text is what plain torch gives, with two derivatives and on all backends."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gdsl.runtime.triton import interpreted

QUICK = ["CompGCN, mult", "NBFNet", "SGFormer", "DMPNN", "GMoE", "SetAttention"]
HEAVY = [
    "EGNN", "PaiNN", "GatedGCN", "CompGCN, sub", "TGAT", "GRIT", "GAT", "DimeNet", "DimeNet++", "Exphormer", "TGN",
    "HGP-SL", "SparseTransformer", "MoNet",
]  # fmt: skip
BACKENDS = ["torch", "cpp", *["triton"] * interpreted()]
WAYS = [
    *(pytest.param(n, b, 2) for n in QUICK for b in BACKENDS),
    *(pytest.param(n, "cpp", 1) for n in HEAVY),
    *(pytest.param(n, b, 2, marks=pytest.mark.slow) for n in HEAVY for b in BACKENDS),
]


@pytest.fixture
def example(examples_on_path: Path) -> Any:
    return importlib.import_module("published")


def given(example: Any) -> dict[str, Tensor]:
    """Two molecules with an atom that has no edge, and an edge that is there twice, both ways."""
    inputs = example.molecules(2, 5, 4, 3)
    kept = (inputs["edges"] != 2).all(0).nonzero().flatten()
    back = (inputs["edges"] == inputs["edges"][:, kept[:1]].flip(0)).all(0).nonzero().flatten()
    kept = torch.cat([kept, kept[:1], back])
    by_edge = {n: v[kept] for n, v in inputs.items() if n in ("e", "f", "age", "w", "rel")}
    return {**inputs, **by_edge, "edges": inputs["edges"][:, kept]}


def test_all_are_tried(example: Any) -> None:
    assert sorted(example.PUBLISHED) == sorted(QUICK + HEAVY)
    starts = [line.removeprefix("layer ") for line in example.TEXT.split("\n") if line.startswith("layer ")]
    assert {one.layer for one in example.PUBLISHED.values()} == {line.split("(")[0] for line in starts}


@pytest.mark.filterwarnings("ignore:(invalid|divide):RuntimeWarning")  # of NumPy, in Triton's interpreter
@pytest.mark.parametrize(("name", "backend", "orders"), WAYS)
def test_it_is_what_torch_gives(example: Any, name: str, backend: str, orders: int) -> None:
    """Values and derivatives by all inputs and parameters."""
    one = example.PUBLISHED[name]
    gaps = example.compared(one, one.make(4, 3, backend=backend).double(), given(example), orders=orders)
    assert len(gaps) == 1 + orders and all(gap < 1e-9 for gap in gaps)


@pytest.mark.parametrize("name", ["EGNN", "PaiNN"])
def test_it_turns_with_its_inputs(example: Any, name: str) -> None:
    """Scalars stay, and positions and vectors turn; those of EGNN move along, too."""
    made, inputs = example.PUBLISHED[name].make(4, 3, backend="cpp").double(), given(example)
    by, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    along = torch.randn(3, dtype=torch.float64)
    turned = {**inputs, "p": inputs["p"] @ by.T + along, "v": by @ inputs["v"]}
    (scalars, vectors), (scalars_after, vectors_after) = (example.call(made, x) for x in (inputs, turned))
    expected = vectors @ by.T + along if name == "EGNN" else by @ vectors
    assert torch.allclose(scalars_after, scalars, atol=1e-10)
    assert torch.allclose(vectors_after, expected, atol=1e-10)
    assert not torch.allclose(vectors_after, vectors, atol=1e-2)


def test_its_table(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    example.main(["--short", "--layers", "NBFNet"])
    assert [line.split(" | ")[0] for line in capsys.readouterr().out.strip().split("\n")[2:]] == ["| NBFNet"]
