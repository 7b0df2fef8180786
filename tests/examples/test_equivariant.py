"""examples/equivariant.py: what the layer gives turns with its inputs, and is what plain torch gives."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gdsl.ir.node import walk


@pytest.fixture
def example(examples_on_path: Path) -> Any:
    return importlib.import_module("equivariant")


def given(example: Any, atoms: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(atoms, example.ORDERS, 4, generator=g, dtype=torch.float64)
    p = torch.randn(atoms, 3, generator=g, dtype=torch.float64)
    edges = torch.nonzero(1 - torch.eye(atoms)).T[:, torch.randperm(atoms * (atoms - 1), generator=g)[:25]]
    return x.requires_grad_(), p.requires_grad_(), edges


def layer(example: Any, backend: str) -> Any:
    torch.manual_seed(0)
    return example.interaction(4, hidden=5, centers=6, backend=backend).double()


def plain(example: Any, made: Any, x: Tensor, p: Tensor, edges: Tensor) -> Tensor:
    """The layer in torch, with the whole tables."""
    j, i = edges
    coupling, degree = example.couplings(), example.orders_of_degrees().double()
    d = p[j] - p[i]
    r = d.norm(dim=1)
    near = torch.where(r < 3, 0.5 + 0.5 * torch.cos(r * torch.pi / 3), 0.0)
    basis = near[:, None] * torch.exp(-((2 * (r[:, None] - made.center)) ** 2))
    weights = made.radial(basis).view(len(r), len(coupling), 4)
    y = example.harmonics(d / r[:, None])

    def mixed(h: Tensor, w: Tensor) -> Tensor:
        return torch.einsum("lm,lcd,nmc->nmd", degree, w, h)

    m = torch.einsum("pabc,eah,eb,eph->ech", coupling, mixed(x, made.before)[j], y, weights)
    count = torch.bincount(i, minlength=len(x)).clamp(min=1)
    a = torch.zeros_like(x).index_add(0, i, m) / count[:, None, None]
    out = mixed(a, made.after) + mixed(x, made.own)
    gates = torch.sigmoid(made.gates(out[:, 0])).view(len(x), 3, 4)
    return out * torch.einsum("lm,nlc->nmc", degree, gates)


@pytest.mark.parametrize(
    ("backend", "orders"), [("torch", 1), ("cpp", 1), pytest.param("cpp", 2, marks=pytest.mark.slow)]
)
def test_it_is_what_torch_gives(example: Any, backend: str, orders: int) -> None:
    """Values and derivatives."""
    made, (x, p, edges) = layer(example, backend), given(example)
    leaves = [x, p, *made.parameters()]
    found = []
    for y in (made(x, p, edges), plain(example, made, x, p, edges)):
        first = torch.autograd.grad((y * torch.cos(y)).sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves) if orders > 1 else ()
        found.append([y, *first, *second])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-9 * (1 + b.abs().max().item()))


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_it_turns_with_its_inputs(example: Any, backend: str) -> None:
    made, (x, p, edges) = layer(example, backend), given(example)
    before = made(x, p, edges)
    assert before[:, 1:].abs().max() > 0.01
    for seed in range(3):
        by = (-1) ** seed * example.rotation(torch.Generator().manual_seed(seed))  # the second is a mirror, too
        whole = example.turned(by)
        after = made(torch.einsum("ab,nbc->nac", whole, x), p @ by.T, edges)
        assert torch.allclose(after, torch.einsum("ab,nbc->nac", whole, before), atol=1e-10)
        assert not torch.allclose(after, before, atol=1e-3)


def test_couplings(example: Any) -> None:
    """Eleven paths; a degree with degree 0 is itself, and two vectors have a dot product and a cross product."""
    table = example.couplings()
    assert table.shape == (11, 9, 9, 9)
    scalar = example.coupling(2, 0, 2)[4:, 0, 4:]
    assert torch.allclose(scalar, torch.eye(5, dtype=torch.float64), atol=1e-9)
    dot = example.coupling(1, 1, 0)[1:4, 1:4, 0]
    assert torch.allclose(dot, torch.eye(3, dtype=torch.float64) / 3**0.5, atol=1e-9)
    cross = example.coupling(1, 1, 1)[1:4, 1:4, 1:4]
    assert torch.allclose(cross, -cross.transpose(0, 1), atol=1e-9)
    assert (table != 0).sum() < 0.05 * table.numel()


def test_only_what_is_not_zero_is_computed(example: Any) -> None:
    made = layer(example, "cpp")
    products = [n for n in walk([n for _, n in made.program.outputs]) if n.op == "table_product"]
    terms = sum(1 for n in products for v in n.attrs.numbers if v)
    assert terms == int((example.couplings() != 0).sum()) + 4 * 9  # and a degree's orders, four times
    assert all("coupling" not in line for k in made.kernels for line in k.source.split("\n") if "__restrict__" in line)


def test_energies_do_not_change(example: Any) -> None:
    torch.manual_seed(0)
    model = example.Energies(2, channels=4)
    kind, p, edges, owner, _ = example.molecules(5, 6, seed=0)
    by = example.rotation(torch.Generator().manual_seed(0)).float()
    found, after = model(kind, p, edges, owner, 5), model(kind, p @ by.T, edges, owner, 5)
    assert torch.allclose(found, after, atol=1e-5) and found.std() > 1e-3
