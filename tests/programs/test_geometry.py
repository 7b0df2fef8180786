"""Spherical harmonics and small matrices in programs, against closed forms, e3nn and torch.linalg."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

import gdsl

NONE = torch.empty(2, 0, dtype=torch.long)
BACKENDS = pytest.mark.parametrize("backend", ["cpp", "torch"])

# e3nn 0.6.0: spherical_harmonics([0, 1, 2, 3, 4], [0.6, -1.1, 0.3], True, "component")
OF_E3NN = [
    1.0, 0.806599286907, -1.478765359329, 0.403299643453, 0.419962049589, -1.539860848492, 1.326823468577,
    -0.769930424246, -0.314971537192, -0.052810545857, -0.948631862849, 1.995346356972, -0.728003312028,
    0.997673178486, 0.711473897137, -0.290458002216, -0.156511183114, 0.135263478669, 1.492037374883,
    -1.982505723553, -0.101751887066, -0.991252861777, -1.119028031163, 0.743949132681, -0.045649095075,
]  # fmt: skip


def harmonics(v: Tensor, degree: int, backend: str, normalize: bool = True) -> Tensor:
    text = f"layer L {{ node v[3] y = harmonics(v, {degree}, normalize = {str(normalize).lower()}) return y }}"
    found: Tensor = gdsl.compile(text, backend=backend)(v, NONE)
    return found


def on_the_sphere(degree: int) -> tuple[Tensor, Tensor]:
    """Points and weights whose sums are means over the sphere of polynomials up to a degree."""
    polar, weight = map(torch.from_numpy, np.polynomial.legendre.leggauss(degree // 2 + 1))
    angle = torch.arange(degree + 1, dtype=torch.float64) * (2 * math.pi / (degree + 1))
    side = (1 - polar**2).sqrt()[:, None]
    points = torch.stack([side * angle.cos(), polar[:, None].expand(-1, len(angle)), side * angle.sin()], -1)
    return points.reshape(-1, 3), (weight[:, None] / (2 * len(angle))).expand(-1, len(angle)).reshape(-1)


@BACKENDS
def test_harmonics_are_those_of_e3nn(backend: str) -> None:
    v = torch.tensor([[0.6, -1.1, 0.3]], dtype=torch.float64)
    assert torch.allclose(harmonics(v, 4, backend)[0], torch.tensor(OF_E3NN, dtype=torch.float64), atol=1e-11)


@pytest.mark.parametrize("normalize", [True, False])
def test_harmonics_beside_e3nn(normalize: bool) -> None:
    o3 = pytest.importorskip("e3nn.o3", reason="e3nn is not installed")
    v = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    expected = o3.spherical_harmonics(list(range(9)), v, normalize, "component")
    found = harmonics(v, 8, "cpp", normalize)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    weight = torch.randn_like(expected)
    one, two = (torch.autograd.grad((y * weight).sum(), v)[0] for y in (found, expected))
    assert torch.allclose(one, two, rtol=1e-8, atol=1e-8)


def test_harmonics_are_orthonormal() -> None:
    """The mean of a product of two over the sphere is 1 of one with itself, and 0 of others."""
    points, weight = on_the_sphere(16)
    y = harmonics(points, 8, "cpp")
    assert y.shape[1] == 81
    assert torch.allclose(y.T @ (weight[:, None] * y), torch.eye(81, dtype=torch.float64), atol=1e-11)


def plain(v: Tensor, normalize: bool) -> Tensor:
    """Degrees 0 to 2."""
    r = v.norm(dim=1, keepdim=True)
    x, y, z = (v / r if normalize else v).unbind(1)
    s, q = math.sqrt(3), math.sqrt(15)
    square = x * x + y * y + z * z
    second = [q * x * z, q * x * y, s * q / 6 * (3 * y * y - square), q * y * z, q / 2 * (z * z - x * x)]
    return torch.stack([torch.ones_like(x), s * x, s * y, s * z, *second], 1)


@BACKENDS
@pytest.mark.parametrize("normalize", [True, False])
def test_derivatives_of_harmonics(backend: str, normalize: bool) -> None:
    v = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    found, expected = harmonics(v, 2, backend, normalize), plain(v, normalize)
    same(derivatives([found], [v]), derivatives([expected], [v]))


@BACKENDS
def test_harmonics_of_no_direction(backend: str) -> None:
    """Of a vector of length 0, such as a loop's: 0 but for degree 0, with no gradient."""
    v = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    y = harmonics(v, 3, backend)
    assert y.tolist() == [[1.0] + [0.0] * 15] * 2
    (g,) = torch.autograd.grad((y * torch.arange(16)).sum(), v, create_graph=True)
    (h,) = torch.autograd.grad(g.square().sum() + g.sum(), v)
    assert g.tolist() == h.tolist() == v.tolist()
    solid = harmonics(v, 1, backend, normalize=False)
    (g,) = torch.autograd.grad(solid.sum(), v)
    assert torch.allclose(g, torch.full_like(g, math.sqrt(3)))


def test_harmonics_in_half_the_precision() -> None:
    v = torch.randn(7, 3)
    assert torch.allclose(harmonics(v, 5, "cpp").double(), harmonics(v.double(), 5, "cpp"), atol=2e-5)


def test_harmonics_of_many_vectors() -> None:
    """A dim beside that of the places stays, and what stands after `;` names the places."""
    text = "layer L(c) { node v[c, 3] edge w y = harmonics(v, 1; lm) return sum[lm](y), sum(w * y[j]) }"
    made = gdsl.compile(text, c=2)
    v = torch.randn(4, 2, 3, dtype=torch.float64)
    one, two = made(v, torch.tensor([[0, 1], [1, 1]]), w=torch.tensor([2.0, 3.0], dtype=torch.float64))
    expected = plain(v.flatten(0, 1), True)[:, :4].view(4, 2, 4)
    assert torch.allclose(one, expected.sum(2))
    assert torch.allclose(two[1], 2 * expected[0] + 3 * expected[1])
    assert not two[[0, 2, 3]].any()


def derivatives(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """Values, gradients and second derivatives."""
    weights = [torch.cos(torch.arange(o.numel(), dtype=o.dtype)).view(o.shape) for o in outputs]
    score = sum((o * w).sum() for o, w in zip(outputs, weights, strict=True))
    first = torch.autograd.grad(score, leaves, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
    return [*outputs, *first, *second]


def same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-9 * (1 + b.abs().max().item()))


@pytest.mark.parametrize(("backend", "size"), [("torch", 1), ("torch", 4), ("cpp", 2), ("cpp", 3)])
def test_matrices(backend: str, size: int) -> None:
    """Of edges, with a dim before the matrix and one that only the right side has."""
    text = """layer L(n) {
        edge a[h, n, n']
        edge b[n, k]
        node x
        return sum(det(a)), sum(inverse(a)), sum(solve(a, b))
    }"""
    made = gdsl.compile(text, n=size, backend=backend)
    edges = torch.tensor([[0, 0, 1, 2], [1, 1, 2, 0]])
    g = torch.Generator().manual_seed(3)
    a = torch.randn(4, 2, size, size, generator=g, dtype=torch.float64).requires_grad_()
    b = torch.randn(4, size, 3, generator=g, dtype=torch.float64).requires_grad_()
    found = made(torch.zeros(4, dtype=torch.float64), edges, a=a, b=b)
    of_edges = torch.linalg.det(a), torch.linalg.inv(a), torch.linalg.solve(a, b[:, None])
    expected = [v.new_zeros(4, *v.shape[1:]).index_add(0, edges[1], v) for v in of_edges]
    same(derivatives(found, [a, b]), derivatives(expected, [a, b]))


@BACKENDS
def test_what_an_inverse_undoes(backend: str) -> None:
    text = "layer L(d, k) { node x[d] param w[d, k] ~ orthogonal return x @ w @ inverse(w), sum[k](w * solve(w, x)) }"
    x = torch.randn(3, 3)
    for found in gdsl.compile(text, d=3, k=3, backend=backend)(x, NONE):
        assert torch.allclose(found, x, atol=1e-5)


@BACKENDS
def test_a_matrix_without_an_inverse(backend: str) -> None:
    """It has determinant 0, and no number stands for what is not there."""
    made = gdsl.compile("layer L { node a[2, 2'] return det(a), inverse(a) }", backend=backend)
    a = torch.tensor([[[1.0, 2.0], [2.0, 4.0]], [[1.0, 2.0], [2.0, 5.0]]])
    size, found = made(a, NONE)
    assert size.tolist() == [0.0, 1.0]
    assert not found[0].isfinite().any()
    assert found[1].tolist() == [[5.0, -2.0], [-2.0, 1.0]]


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("length", [1e-30, 1e-15, 1e20])
def test_directions_of_any_length_in_float32(backend: str, length: float) -> None:
    layer = gdsl.compile("layer L { node p[3] update y = harmonics(p, 2) return y }", backend=backend)
    edges, p = torch.zeros(2, 0, dtype=torch.long), torch.tensor([[0.3, -0.5, 0.7]])
    long = (p * length).requires_grad_()
    unit = p.clone().requires_grad_()
    torch.testing.assert_close(layer(long, edges), layer(unit, edges))
    (found,) = torch.autograd.grad(layer(long, edges).square().sum() + layer(long, edges)[:, 2].sum(), long)
    (wanted,) = torch.autograd.grad(layer(unit, edges).square().sum() + layer(unit, edges)[:, 2].sum(), unit)
    torch.testing.assert_close(found * length, wanted, atol=1e-4, rtol=1e-4)
