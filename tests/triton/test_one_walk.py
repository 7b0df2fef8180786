"""A softmax in one walk, in Triton's interpreter: its numbers and derivatives where maxima grow from block to block."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import gdsl
from gdsl.ir import build as b
from gdsl.ir import library
from gdsl.runtime import triton as runtime
from tests.ir.drive import A, E, N, expected, load, program, runner
from tests.ir.drive import frame as frame_of
from tests.programs import harness
from tests.triton.sanitize import small_hubs

pytestmark = pytest.mark.skipif(not runtime.interpreted(), reason="Triton was imported for a GPU, not to interpret")

# Two softmaxes of heads and of features, one of which is weighed by its own score, with values that are thrown away.
TEXT = """
layer Several(heads = 2, d = 3) {
    node x[heads, d]
    edge s[heads]
    alpha = softmax(s)
    beta = softmax(3 * s[0] * x[j])
    aggregate a = sum(dropout(alpha, 0.3) * x[j])
    aggregate c = sum(beta * x[j] * x[i])
    update y = a + c
}
"""
NODES = 5
# Node 0 has 37 edges, node 1 has 5, node 2 has one, nodes 3 and 4 have none.
TARGETS = torch.tensor([0] * 37 + [1] * 5 + [2])
EDGES = torch.stack([torch.arange(len(TARGETS)) % NODES, TARGETS])
ORDERS = {"grows": torch.linspace(-90.0, 90.0, 43), "falls": torch.linspace(90.0, -90.0, 43)}


@pytest.fixture(params=["rows", "hubs"])
def hubs(request: pytest.FixtureRequest) -> Iterator[None]:
    """As rows, and as hubs of which chunks have a maximum each."""
    if request.param == "rows":
        yield
    else:
        with small_hubs():
            yield


def values(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(NODES, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype) + 0.5


@pytest.mark.parametrize(("order", "hubs"), [("grows", "rows"), ("falls", "hubs")], indirect=["hubs"])
def test_maxima_that_grow(order: str, hubs: None) -> None:
    made = gdsl.compile(TEXT, backend="triton").double().eval()
    scores = torch.stack([ORDERS[order], -0.1 * ORDERS[order]], 1).double()
    given = {"x": values(), "s": scores, "graph": gdsl.Graph(EDGES, NODES)}
    found, wanted = harness.run(made, given), harness.run(harness.twin(made, "torch"), given)
    for order_of, (a, w) in enumerate(zip(found, wanted, strict=True)):
        assert harness.difference(a, w) < 1e-9, f"derivative of order {order_of}"
    (walked,) = (k for k in made.kernels if k.name == k.kernel.name and k.kernel.phases and k.direction == "forward")
    assert len(walked.kernel.phases) == 1
    assert "shrink" in walked.source


def test_what_is_thrown_away_is_the_same() -> None:
    found: list[Tensor] = []
    given = (values(), gdsl.Graph(EDGES, NODES), torch.stack([ORDERS["grows"], ORDERS["falls"]], 1).double())
    for backend in ("triton", "torch"):
        torch.manual_seed(3)
        found.append(gdsl.compile(TEXT, backend=backend).double().train()(*given))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fewer_bits(dtype: torch.dtype, hubs: None) -> None:
    """Rescaled sums lose no more than the sums of two walks: compared with float64 on the same numbers."""
    scores = torch.stack([ORDERS["grows"], ORDERS["falls"] / 50], 1).to(dtype)
    x, graph = values(dtype), gdsl.Graph(EDGES, NODES)
    y = gdsl.compile(TEXT, backend="triton").to(dtype).eval()(x, graph, scores)
    wanted = gdsl.compile(TEXT, backend="torch").double().eval()(x.double(), graph, scores.double())
    most = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), wanted, rtol=most, atol=most)
    assert torch.equal(y, gdsl.compile(TEXT, backend="triton").to(dtype).eval()(x, graph, scores))


INF, NAN = math.inf, math.nan
# The scores of a row each.
SPECIAL = {
    "masked before": [-INF] * 10 + [0.5] * 9,
    "masked behind": [0.5] * 9 + [-INF] * 10,
    "all masked": [-INF] * 19,
    "one, masked": [-INF],
    "infinite at first": [INF] + [0.0] * 18,
    "infinite at last": [0.0] * 18 + [INF],
    "NaN in between": [0.0] * 9 + [NAN] + [1.0] * 9,
    "NaN behind what is masked": [-INF] * 18 + [NAN],
    "far apart": [-1e30] * 9 + [1e30] + [1e29] * 9,
    "none": [],
}


@pytest.mark.parametrize("masked", [True, False])
def test_scores_that_are_no_numbers(masked: bool, hubs: None) -> None:
    """As of two walks; where nothing is guarded, NaN of -inf alone, as in torch."""
    x, s = load("x", N, A), load("s", E)
    made = program(b.segment(library.segment_softmax(s, "i", N, masked) * b.gather(x, "j"), "i", "sum", N))
    nodes, rows = len(SPECIAL), list(SPECIAL.values())
    targets = torch.tensor([k for k, row in enumerate(rows) for _ in row])
    frame = frame_of(torch.stack([torch.arange(len(targets)) % nodes, targets]), nodes)
    given = [
        torch.linspace(-1.0, 2.0, nodes * 4, dtype=torch.float64).reshape(nodes, 4)
        if n is x
        else torch.tensor([score for row in rows for score in row], dtype=torch.float64)
        for n in made.inputs
    ]
    (found,), (wanted,) = runner(made, "triton")(given, frame), expected(made, given, frame)
    for name, a, w in zip(SPECIAL, found, wanted, strict=True):
        torch.testing.assert_close(
            a, w, equal_nan=True, rtol=1e-12, atol=1e-12, msg=lambda text, n=name: f"{n}: {text}"
        )
    nan = {name for name, a in zip(SPECIAL, found, strict=True) if a.isnan().all()}
    of_masked = set() if masked else {"all masked", "one, masked"}
    assert nan == {"infinite at first", "infinite at last", "NaN in between", "NaN behind what is masked"} | of_masked
