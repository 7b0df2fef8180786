"""topk, argmax and sparsemax, over edges and along dims, against torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gdsl
from gdsl.ir.ops import supports
from gdsl.ir.program import Program
from gdsl.ir.serialise import from_data, to_data
from tests.programs import harness

# Node 3 has no edge in, node 4 none out.
EDGES = torch.tensor([[0, 1, 2, 3, 5, 0, 2, 1, 3, 3, 0], [1, 2, 0, 0, 5, 5, 2, 0, 0, 1, 4]])
REL = torch.tensor([0, 1, 2, 2, 0, 0, 1, 0, 2, 1, 0])
BACKENDS = pytest.mark.parametrize("backend", ["cpp", "torch"])
HEAD = "layer L(R = 3) { node x edge s edge rel: int(R) "


def call(text: str, s: Tensor, backend: str) -> Tensor:
    x = torch.linspace(-1, 1, 6, dtype=s.dtype)
    found: Tensor = gdsl.compile(HEAD + text + " }", backend=backend)(x, EDGES, s=s, rel=REL)
    return found


def sparsemax(z: Tensor) -> Tensor:
    """Martins and Astudillo 2016, algorithm 1."""
    falling, k = z.sort(descending=True).values, torch.arange(1, len(z) + 1)
    support = int((1 + k * falling > falling.cumsum(0)).sum())
    return (z - (falling[:support].sum() - 1) / support).clamp(min=0)


def of_each(keys: Tensor, values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """The function of the values of each key, in their places."""
    found = torch.zeros_like(values)
    for key in keys.unique():
        places = (keys == key).nonzero().flatten()
        found = found.index_copy(0, places, function(values[places]))
    return found


def largest(k: int) -> Callable[[Tensor], Tensor]:
    return lambda z: torch.zeros_like(z).index_fill(0, z.topk(min(k, len(z))).indices, 1)


def derivatives(y: Tensor, *leaves: Tensor) -> list[Tensor]:
    """The value, the gradient, and the second derivative."""
    weights = torch.cos(torch.arange(y.numel())).view(y.shape)
    first = torch.autograd.grad((y * weights).sin().sum(), leaves, create_graph=True)
    return [y, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), leaves)]


def same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@BACKENDS
@pytest.mark.parametrize("end", ["i", "j"])
@pytest.mark.parametrize("scale", [0.3, 1.0, 1000.0])
def test_sparsemax(backend: str, end: str, scale: float) -> None:
    s = (scale * torch.randn(11, dtype=torch.float64)).requires_grad_()
    found = call(f"a = sparsemax(s) at {end} return a", s, backend)
    expected = of_each(EDGES[1 if end == "i" else 0], s, sparsemax)
    same(derivatives(found, s), derivatives(expected, s))


def test_sparsemax_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which sorts all values: those far below the first, too, and those of nodes that are masked."""
    monkeypatch.setattr(supports, "_near", lambda below: torch.arange(len(below)))
    test_sparsemax("torch", "i", 1.0)
    test_what_is_masked_has_no_weight("torch", "sparsemax(s)")


@BACKENDS
def test_sparsemax_along_a_dim(backend: str) -> None:
    x = torch.randn(5, 2, 6, dtype=torch.float64, requires_grad=True)
    made = gdsl.compile("layer L { node x[h, d] y = sparsemax[d](x) return y }", backend=backend)
    expected = torch.stack([sparsemax(row) for row in x.flatten(0, 1)]).view_as(x)
    same(derivatives(made(x, EDGES[:, :0]), x), derivatives(expected, x))


@BACKENDS
def test_sparsemax_of_heads_and_of_graphs(backend: str) -> None:
    made = gdsl.compile("layer L { node x[h] pool r = sum(sparsemax(x) * x) return r }", backend=backend)
    x, batch = torch.randn(6, 2, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 1])
    expected = torch.stack([of_each(batch, column, sparsemax) * column for column in x.T], 1)
    found = made(x, EDGES[:, :0], batch=batch)
    assert torch.allclose(found, torch.zeros(2, 2, dtype=torch.float64).index_add(0, batch, expected))


@BACKENDS
@pytest.mark.parametrize("text", ["sparsemax(s)", "sparsemax[h](s)"])
def test_what_is_masked_has_no_weight(backend: str, text: str) -> None:
    """Nor a gradient, also where all is masked; a number that is none makes its node none."""
    source = f"layer L {{ node x edge s[h] a = {text} return a }}"
    none = -math.inf
    s = torch.tensor([[0.3, none], [none, none], [0.1, 2.0], [none, none]], dtype=torch.float64).requires_grad_()
    edges = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 1]])
    found = gdsl.compile(source, backend=backend)(torch.zeros(4, dtype=torch.float64), edges, s=s)
    along = [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    over = [[0.6, 0.0], [0.0, 0.0], [0.4, 1.0], [0.0, 0.0]]
    assert torch.allclose(found, torch.tensor(along if "[h]" in text else over, dtype=torch.float64))
    (g,) = torch.autograd.grad((found * torch.arange(8).view(4, 2)).sum(), s)
    assert g.isfinite().all()
    assert not g[s == none].any()
    wrong = s.detach().clone()
    wrong[0, 0] = math.nan
    found = gdsl.compile(source, backend=backend)(torch.zeros(4, dtype=torch.float64), edges, s=wrong)
    assert found[0, 0].isnan()
    assert found[3].tolist() == [0.0, 0.0]
    assert found[2, 0].isnan() == ("[h]" not in text)


def test_sparsemax_of_many_edges_in_single_precision() -> None:
    """Where sums of all would lose what tells them apart."""
    g = torch.Generator().manual_seed(0)
    s = 1e4 + torch.randn(20_000, generator=g)
    edges = torch.stack([torch.zeros(20_000, dtype=torch.long), torch.arange(20_000) // 5000])
    made = gdsl.compile("layer L { node x edge s a = sparsemax(s) return a, sum(a) }")
    found, total = made(torch.zeros(4), edges, s=s)
    assert torch.allclose(total, torch.ones(4), atol=1e-5)
    expected = of_each(edges[1], s.double(), sparsemax)
    assert torch.allclose(found.double(), expected, atol=1e-4)
    assert torch.equal(found > 1e-3, expected > 1e-3)


@BACKENDS
@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("where", ["", " at j", " by rel"])
def test_topk(backend: str, k: int, where: str) -> None:
    """A node with fewer edges has them all."""
    keys = {"": EDGES[1], " at j": EDGES[0], " by rel": EDGES[1] * 3 + REL}[where]
    s = torch.randn(11, dtype=torch.float64)
    found = call(f"t = topk(s, {k}){where} return where(t, 1, 0) + 0 * s", s, backend)
    assert torch.equal(found, of_each(keys, s, largest(k)))


@BACKENDS
def test_topk_of_equal_and_masked_values(backend: str) -> None:
    """The first of equal ones are the larger, -inf is never taken, and a number that is none always."""
    s = torch.tensor([1, 0, 2, 2, -math.inf, -math.inf, 1, 2, 2, math.nan, -math.inf], dtype=torch.float64)
    found = call("t = topk(s, 2) return where(t, 1, 0) + 0 * x[j]", s, backend)
    assert found.tolist() == [1, 1, 1, 1, 0, 0, 1, 0, 0, 1, 0]


@BACKENDS
def test_topk_along_a_dim(backend: str) -> None:
    """As a router of experts has it."""
    made = gdsl.compile(
        "layer L { node x[h, d] y = softmax[d](where(topk[d](x, 2), x, -inf)) return y }", backend=backend
    )
    x = torch.randn(5, 2, 6, dtype=torch.float64, requires_grad=True)
    chosen = torch.zeros_like(x).scatter(2, x.topk(2, 2).indices, 1)
    expected = torch.where(chosen > 0, x, -math.inf).softmax(2)
    same(derivatives(made(x, EDGES[:, :0]), x), derivatives(expected, x))


@BACKENDS
def test_topk_at_pairs(backend: str) -> None:
    text = "layer L { node x edge s t = topk(s[kj], 1) return sum(where(t, s[kj], 0)) }"
    s = torch.randn(11, dtype=torch.float64)
    found = gdsl.compile(text, backend=backend)(torch.zeros(6, dtype=torch.float64), EDGES, s=s)
    for k, source in enumerate(EDGES[0]):
        into = s[EDGES[1] == source]
        assert found[k] == (into.max() if len(into) else 0)


@BACKENDS
@pytest.mark.parametrize("where", ["", " at j", " by rel"])
def test_argmax(backend: str, where: str) -> None:
    """The message of the latest edge, of equal times the first; 0 where there is none."""
    s = torch.tensor([3, 1, 2, 9, 0, 0, 4, 9, 9, 3, 5], dtype=torch.float64)
    keys = {"": EDGES[1], " at j": EDGES[0], " by rel": EDGES[1] * 3 + REL}[where]
    m = torch.arange(1, 12, dtype=torch.float64).requires_grad_()
    text = f"layer L(R = 3) {{ node x edge s edge m edge rel: int(R) return argmax(sin(m), s){where} }}"
    found = gdsl.compile(text, backend=backend)(torch.zeros(6, dtype=torch.float64), EDGES, s=s, m=m, rel=REL).flatten()
    expected = torch.zeros_like(found)
    for key in keys.unique():
        (places,) = (keys == key).nonzero(as_tuple=True)
        expected = expected.index_put((key,), m[places[s[places].argmax()]].sin())
    same(derivatives(found, m), derivatives(expected, m))


@pytest.mark.parametrize("name", ["Selection", "Geometry"])
def test_its_program_can_be_a_file(name: str) -> None:
    """All names in it are such as a file may have, which torch.compile needs."""
    program = Program(name, tuple(harness.layer(name, "torch").program.outputs))
    assert from_data(json.loads(json.dumps(to_data(program)))).nodes == program.nodes


def test_attention_to_few_of_a_hub() -> None:
    """More edges than one piece of a row has."""
    g = torch.Generator().manual_seed(1)
    s = torch.randn(40_000, generator=g, dtype=torch.float64)
    edges = torch.stack([torch.arange(40_000) % 7, (torch.arange(40_000) % 40 == 0).long()])
    made = gdsl.compile("layer L { node x edge s return sum(where(topk(s, 8), s, 0)), sum(sparsemax(s) * s) }")
    found, mean = made(torch.zeros(7, dtype=torch.float64), edges, s=s)
    for node in (0, 1):
        own = s[edges[1] == node]
        assert torch.allclose(found[node], own.topk(8).values.sum())
        assert torch.allclose(mean[node], (sparsemax(own) * own).sum())


def test_integers_that_floats_do_not_tell_apart() -> None:
    text = "layer L(d) {{ node x[d] edge t: int({}) return argmax(x[j], t) }}"
    x, edges = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[0, 1], [2, 2]])
    found = gdsl.compile(text.format(2**24), d=1)(x, edges, torch.tensor([2**24 - 2, 2**24 - 1]))
    assert found[2].item() == 2.0
    with pytest.raises(gdsl.GdslError, match="not all different"):
        gdsl.compile(text.format(2**24 + 1), d=1)
