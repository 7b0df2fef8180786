"""A softmax whose scores are all -inf gives zeros, and no gradient: on every backend, in values and two derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gdsl
from gdsl.runtime.triton import interpreted

BACKENDS = ["torch", "cpp", *["triton"] * interpreted()]

# The ways in which a score becomes -inf, and both ends.
SOURCE = """
layer Masked(h = 2) {
    node x[h]
    edge s[h]
    edge keep: bool
    alpha = softmax(where(keep, s, -inf))
    added = softmax(s + log(where(keep, 1, 0)))
    out = softmax(where(keep, s, 0) + where(keep, 0, -inf)) at j
    beta = softmax[h](where(x > 0, x, -inf))
    aggregate y = sum(added * tanh(beta)[j])
    return y, alpha, added, out, beta
}
"""

# Node 0 has edges of which none is kept, 1 some, 2 one that is not, 3 one that is, 4 none at all.
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 1], [0, 0, 0, 1, 1, 2, 3]])
KEEP = torch.tensor([0, 0, 0, 1, 0, 0, 1], dtype=torch.bool)


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x, s = (torch.randn(n, 2, dtype=torch.float64, generator=generator).to(dtype) for n in (5, 7))
    x[2] = -1.0  # no place of it is positive
    x[3] = 0.5
    return x.requires_grad_(), s.requires_grad_()


def softmax(s: Tensor, end: int) -> Tensor:
    """The softmax in torch, only over what is kept."""
    alpha = torch.zeros_like(s)
    for n in range(5):
        at = ((EDGES[end] == n) & KEEP).nonzero()[:, 0]
        alpha = alpha.index_put((at,), torch.softmax(s[at], 0))
    return alpha


def plain(x: Tensor, s: Tensor) -> tuple[Tensor, ...]:
    alpha = softmax(s, 1)
    raised = torch.where(x > 0, x, 0.0).exp() * (x > 0)
    total = raised.sum(1, keepdim=True)
    beta = raised / torch.where(total == 0, 1.0, total)
    y = torch.zeros_like(x).index_add(0, EDGES[1], alpha * torch.tanh(beta)[EDGES[0]])
    return y, alpha, alpha, softmax(s, 0), beta


def derivatives(outputs: tuple[Tensor, ...], given: tuple[Tensor, ...]) -> list[Tensor]:
    first = torch.autograd.grad(sum(y.sin().sum() for y in outputs), given, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), given)
    return [*outputs, *first, *second]


@pytest.mark.filterwarnings("ignore:(invalid|divide):RuntimeWarning")  # of NumPy, in Triton's interpreter
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_that_are_masked(backend: str, dtype: torch.dtype, tolerance: float) -> None:
    conv = gdsl.compile(SOURCE, backend=backend)
    given = inputs(dtype)
    found = derivatives(conv(given[0], EDGES, given[1], KEEP), given)
    expected = derivatives(plain(*given), given)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=tolerance), (a, b)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_stays_none(bad: float) -> None:
    """Only -inf masks: one score that is NaN or inf makes its node NaN, as in torch."""
    conv = gdsl.compile(
        "layer A { node x[1] edge s a = softmax(s) update y = sum(a * x[j]) return y, a }", backend="cpp"
    )
    s = torch.tensor([bad, 0.0, 1.0, 1.0, float("-inf"), 0.0, 0.0])
    y, a = conv(torch.ones(5, 1), EDGES, s)
    assert y[0].isnan() and y[1:].isfinite().all()
    assert a[0].isnan() and a[4] == 0
