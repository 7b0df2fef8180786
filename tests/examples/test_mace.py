"""examples/mace.py: the layer is what plain torch gives with the whole tables, and turns with its inputs."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gdsl.ir.node import walk
from gdsl.runtime.triton import interpreted

CHANNELS, KINDS = 2, 3
slow = pytest.mark.slow
WAYS = [
    ("torch", 2, 2),
    ("cpp", 2, 1),
    pytest.param("torch", 3, 2, marks=slow),
    pytest.param("cpp", 3, 2, marks=slow),
    *[pytest.param("triton", 2, 2, marks=slow)] * interpreted(),
]


@pytest.fixture
def example(examples_on_path: Path) -> Any:
    return importlib.import_module("mace")


def given(degrees: int, atoms: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The last atom has no edge."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(atoms, degrees**2, CHANNELS, generator=g, dtype=torch.float64)
    p = torch.randn(atoms, 3, generator=g, dtype=torch.float64)
    pairs = torch.nonzero(1 - torch.eye(atoms - 1)).T
    edges = pairs[:, torch.randperm(pairs.shape[1], generator=g)[:9]]
    return x.requires_grad_(), torch.randint(0, KINDS, (atoms,), generator=g), p.requires_grad_(), edges


def layer(example: Any, degrees: int, backend: str) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden": 4, "basis": 3, "mean_degree": 2}
    return example.layer(CHANNELS, KINDS, degrees, **sizes, backend=backend).double()


def whole(example: Any, factors: int, orders: int) -> Tensor:
    """The symmetric products of features of the first orders, with all their numbers."""
    table = example.products(factors)
    table = table[(slice(None), *[slice(orders)] * (factors + 1))]
    return table[table.flatten(1).any(1)]


def plain(example: Any, made: Any, degrees: int, x: Tensor, z: Tensor, p: Tensor, edges: Tensor) -> Tensor:
    """The layer in torch, by equations 8 to 12 of the paper, with the whole tables."""
    equivariant = importlib.import_module("equivariant")
    j, i = edges
    orders = degrees**2
    given = example.tables(degrees)
    coupling, degree = given["coupling"], given["degree"].double()
    d = p[j] - p[i]
    r = d.norm(dim=1)
    u = r[:, None] / 3
    near = torch.where(u < 1, 1 - 21 * u**5 + 35 * u**6 - 15 * u**7, 0.0)
    weights = made.radial(near * torch.sin(made.frequency * u) / u).view(len(r), len(coupling), -1)
    y = equivariant.harmonics(d / r[:, None])[:, :orders]

    def mixed(h: Tensor, w: Tensor) -> Tensor:
        return torch.einsum("lm,lcd,nmc->nmd", degree, w, h)

    phi = torch.einsum("pabc,eah,eb,eph->epch", coupling, mixed(x, made.before)[j], y, weights)
    heard = phi.new_zeros(len(x), *phi.shape[1:]).index_add(0, i, phi)
    a = torch.einsum("npch,phk->nck", heard, made.mix) / 2
    b = torch.einsum("lm,nlc->nmc", degree, made.one_of[z]) * a
    b = b + torch.einsum("wabm,nwc,nac,nbc->nmc", whole(example, 2, orders), made.two_of[z], a, a)
    three = torch.einsum("wabgm,nwc->nabgmc", whole(example, 3, orders), made.three_of[z])
    b = b + torch.einsum("nabgmc,nac,nbc,ngc->nmc", three, a, a, a)
    return mixed(b, made.after) + torch.einsum("lm,nlcd,nmc->nmd", degree, made.own[z], x)


@pytest.mark.filterwarnings("ignore:(invalid|divide):RuntimeWarning")  # of NumPy, in Triton's interpreter
@pytest.mark.parametrize(("backend", "degrees", "orders"), WAYS)
def test_it_is_what_torch_gives(example: Any, backend: str, degrees: int, orders: int) -> None:
    """Values and derivatives by all inputs and parameters."""
    made, (x, z, p, edges) = layer(example, degrees, backend), given(degrees)
    leaves = [x, p, *made.parameters()]
    found = []
    for y in (made(x, z, p, edges), plain(example, made, degrees, x, z, p, edges)):
        first = torch.autograd.grad((y * torch.cos(y)).sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves) if orders > 1 else ()
        found.append([y, *first, *second])
    assert found[0][0].abs().max() > 0.1
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-9 * (1 + b.abs().max().item()))


def test_it_turns_with_its_inputs(example: Any) -> None:
    equivariant = importlib.import_module("equivariant")
    made, (x, z, p, edges) = layer(example, 3, "torch"), given(3)
    before = made(x, z, p, edges)
    assert before[:, 4:].abs().max() > 0.01
    for seed in range(3):
        by = (-1) ** seed * equivariant.rotation(torch.Generator().manual_seed(seed))  # the second is a mirror, too
        turned = equivariant.turned(by)
        after = made(torch.einsum("ab,nbc->nac", turned, x), z, p @ by.T, edges)
        assert torch.allclose(after, torch.einsum("ab,nbc->nac", turned, before), atol=1e-10)
        assert not torch.allclose(after, before, atol=1e-3)


def ways(factors: int, degree: int) -> int:
    """How often a degree is in the symmetric products of so many features, by the weights of their orders: one for each
    product of the weight that the degree ends with, but for those that greater degrees have."""
    orders = [(n, m) for n in range(3) for m in range(-n, n + 1)]
    drawn = itertools.combinations_with_replacement(orders, factors)
    weights = [sum(m for _, m in d) for d in drawn if (sum(n for n, _ in d) + degree) % 2 == 0]
    return weights.count(degree) - weights.count(degree + 1)


def test_all_products_are_there(example: Any) -> None:
    """As many as there can be, no two alike, each symmetric and turning with its factors."""
    equivariant = importlib.import_module("equivariant")
    whole = equivariant.turned(-equivariant.rotation(torch.Generator().manual_seed(5)))
    a = torch.randn(example.ORDERS, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    for factors, expected in ((2, (3, 2, 3)), (3, (5, 5, 6))):
        tables = example.products(factors)
        assert torch.allclose(tables, tables.transpose(1, 2), atol=1e-12)
        for degree, (places, count) in enumerate(zip(equivariant.PLACES, expected, strict=True)):
            found = tables[..., places].flatten(1)
            assert count == ways(factors, degree) == int(found.any(1).sum()) == torch.linalg.matrix_rank(found)
        for table in (tables, example.folded(tables)):
            before, after = (product(table, v, factors) for v in (a, whole @ a))
            assert torch.allclose(after, before @ whole.T, atol=1e-10)


def product(table: Tensor, a: Tensor, factors: int) -> Tensor:
    for _ in range(factors):
        table = torch.tensordot(table, a, ([1], [0]))
    return table


def test_products_are_those_of_e3nn(example: Any) -> None:
    o3 = pytest.importorskip("e3nn.o3", reason="e3nn is not installed")
    theirs = o3.ReducedTensorProducts("ijk=jik=ikj", i="1x0e+1x1o+1x2e", filter_ir_out=["0e", "1o", "2e"])
    table, mine = theirs.change_of_basis.double(), example.products(3)
    for degree, places in enumerate(importlib.import_module("equivariant").PLACES):
        at = [s for s, (_, ir) in zip(theirs.irreps_out.slices(), theirs.irreps_out, strict=True) if ir.l == degree]
        blocks = [table[s].view(-1, 2 * degree + 1, *table.shape[1:]) for s in at]
        spanned = torch.cat(blocks).movedim(1, -1).flatten(1)
        own = mine[..., places].flatten(1)
        own = own[own.any(1)]
        assert len(own) == torch.linalg.matrix_rank(torch.cat([spanned, own]), tol=1e-5) == len(spanned)


def test_only_what_is_not_zero_is_computed(example: Any) -> None:
    made = layer(example, 3, "torch")
    counts = {name: int((table != 0).sum()) for name, table in example.tables(3).items()}
    assert counts == {"degree": 9, "coupling": 83, "two": 52, "three": 213}
    terms = [len(n.attrs.numbers) for n in walk([n for _, n in made.program.outputs]) if n.op == "table_product"]
    assert {213, 52, 83} <= set(terms)


@slow
def test_energies_do_not_change(example: Any) -> None:
    torch.manual_seed(0)
    model = example.Energies(2, channels=2, degrees=2, mean_degree=5, backend="torch")
    equivariant = importlib.import_module("equivariant")
    kind, p, edges, owner, _ = equivariant.molecules(5, 6, seed=0)
    by = equivariant.rotation(torch.Generator().manual_seed(0)).float()
    found, after = model(kind, p, edges, owner, 5), model(kind, p @ by.T, edges, owner, 5)
    assert torch.allclose(found, after, atol=1e-4) and found.std() > 1e-3
