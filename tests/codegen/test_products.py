"""Matrix products on edges: which values are one, the tiles of matmul.h, and the kernels that call them."""

from __future__ import annotations

import ctypes

import pytest
import torch

from gdsl.codegen import cpp
from gdsl.codegen.products import FUNCTIONS, block_edges, product_of
from gdsl.ir import build as b
from gdsl.ir.node import Node
from gdsl.ir.types import Dim, Domain
from gdsl.passes.options import Options
from gdsl.passes.pipeline import lower, optimise
from gdsl.runtime import cache
from tests.ir.drive import E, G, N, assert_same, expected, gradients, load, program, random_frame, runner, tensors

SIZES = [(2, 8), (8, 16), (16, 64), (64, 64), (5, 9), (13, 50), (30, 100), (3, 31), (7, 8)]
ROWS = [0, 1, 2, 3, 4, 5, 7, 8, 20, 33]
TYPES = {"float": torch.float32, "double": torch.float64}


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    text = [cpp.header("prelude.h"), cpp.header("matmul.h")]
    for name in FUNCTIONS:
        for depth, width in SIZES:
            for t in TYPES:
                head = f'extern "C" void {name}_{depth}_{width}_{t}(int64_t rows, const {t}* a, const {t}* b, {t}* out)'
                text.append(f"{head} {{ gdsl::{name}<{depth}, {width}>(rows, a, b, out); }}")
    return cache.load("\n".join(text), name="products")


@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize(("depth", "width"), SIZES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_against_torch(library: ctypes.CDLL, function: str, depth: int, width: int, type_name: str) -> None:
    generator = torch.Generator().manual_seed(depth)
    call = getattr(library, f"{function}_{depth}_{width}_{type_name}")
    for rows in ROWS:
        left = torch.randn(rows, depth, generator=generator, dtype=torch.float64)
        if function.startswith("sparse"):
            left *= torch.rand(rows, depth, generator=generator) < 0.1
        summed = function.endswith("add_outer")
        right = torch.randn(rows if summed else depth, width, generator=generator, dtype=torch.float64)
        # A number on either side of the result shows a write outside of it.
        start = torch.randn((depth if summed else rows) * width + 2, generator=generator, dtype=torch.float64)
        wanted = start.clone()
        inside = wanted[1:-1].view(-1, width)
        inside.copy_(inside + left.T @ right if summed else left @ right)
        given = [t.to(TYPES[type_name]).contiguous() for t in (left, right)]
        out = start.to(TYPES[type_name])
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in given]
        call(ctypes.c_int64(rows), *pointers, ctypes.c_void_p(out.data_ptr() + out.element_size()))
        tolerance = 1e-5 if type_name == "float" else 1e-12
        torch.testing.assert_close(out.double(), wanted, rtol=tolerance, atol=tolerance)


def test_a_nan_is_no_zero(library: ctypes.CDLL) -> None:
    left, right, out = torch.zeros(1, 8), torch.ones(8, 16), torch.empty(1, 16)
    left[0, 3] = float("nan")
    library.sparse_matmul_8_16_float(ctypes.c_int64(1), *(ctypes.c_void_p(t.data_ptr()) for t in (left, right, out)))
    assert out.isnan().all()


K, M, Q = Dim("k", 12), Dim("m", 24), Dim("q", 6)
e, f, w = load("e", E, K), load("f", E, M), load("w", G, K, M)


@pytest.mark.parametrize(
    ("node", "function"),
    [
        (b.contract([e, w], ["k"]), "matmul"),
        (b.contract([e, f], total=True), "add_outer"),
        (b.segment(e * f, "i", "sum", N), "add_outer"),
        (b.segment(b.contract([e, f]), "i", "sum", N), "add_outer"),
        (b.contract([e, load("w", G, M, K)], ["k"]), None),
        (b.contract([e, load("v", G, K)], ["k"]), None),
        (b.contract([e, b.gather(load("w", N, K, M), "i")], ["k"]), None),
        (b.segment(e * f, "i", "max", N), None),
        (b.segment(e * load("g", E, K), "i", "sum", N), None),
        (b.segment(e * load("g", E, Dim("l", 4)), "i", "sum", N), None),
    ],
)
def test_what_is_a_product(node: Node, function: str | None) -> None:
    found = product_of(node)
    assert (found.function if found else None) == function


def test_blocks_of_wide_rows_are_small() -> None:
    def edges(depth: int) -> int:
        k = Dim("k", depth)
        found = product_of(b.contract([load("e", E, k), load("w", G, k, M)], ["k"]))
        assert found is not None
        return block_edges([found])

    assert [edges(d) for d in (8, 128, 512, 1 << 20)] == [32, 32, 8, 4]


def edge_mlp(reducer: str):
    """relu(p[i] + q[j]) @ w, aggregated: the message network of EdgeConv once its first product is on nodes."""
    p, q = load("p", N, K), load("q", N, K)
    hidden = b.elementwise("relu", b.gather(p, "i") + b.gather(q, "j"))
    m = b.elementwise("sin", b.contract([hidden, w], ["k"]))
    second = b.contract([m, load("v", G, M, Q)], ["m"])
    return program(b.segment(second, "i", reducer, N), b.segment(m, "j", "max", N), name="mlp", m=m)


def outer():
    """Edge features and source features, their outer product summed at the target."""
    h = b.gather(load("x", N, K), "j")
    a = b.segment(h * b.elementwise("exp", f), "i", "sum", N)
    return program(b.contract([a, load("cube", G, K, M, Q)], ["k", "m"]), name="outer", a=a)


def softmax_mlp():
    """A product inside a softmax, so that the product's rows are kept between walks."""
    from gdsl.ir import library

    score = b.elementwise("tanh", b.contract([e * b.gather(load("x", N, K), "j"), w], ["k"]))
    alpha = library.segment_softmax(score, "i", N)
    return program(b.segment(alpha * f, "i", "sum", N), name="softmax", alpha=alpha)


PROGRAMS = {"max": edge_mlp("max"), "sum": edge_mlp("sum"), "outer": outer(), "softmax": softmax_mlp()}


@pytest.mark.parametrize(("nodes", "edges"), [(40, 400), (3, 200), (30, 30), (5, 0)])
@pytest.mark.parametrize("name", PROGRAMS)
def test_values_and_gradients(name: str, nodes: int, edges: int) -> None:
    p, at = PROGRAMS[name], random_frame(nodes, edges)
    values = tensors(p, at, low=-1.0, high=1.0)
    found = runner(optimise(p), "cpp")(
        [values[[n.attrs.name for n in p.inputs].index(n.attrs.name)] for n in optimise(p).inputs], at
    )
    wanted = expected(p, values, at)
    assert_same(found, wanted)
    assert_same(gradients(found, values), gradients(wanted, values))


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_bits_for_any_number_of_threads(name: str) -> None:
    p, at = optimise(PROGRAMS[name]), random_frame(40, 3000, dtype=torch.float32)
    values = tensors(p, at)
    run = runner(p, "cpp", dtype=torch.float32)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        outputs = run(values, at)
        results.append([*outputs, *gradients(outputs, values)])
    torch.set_num_threads(before)
    assert all(torch.equal(a, c) for a, c in zip(*results, strict=True))


def test_the_kernel_calls_tiles() -> None:
    plan = lower(optimise(PROGRAMS["max"]), Options())
    text = cpp.generate(plan, "float", "int32_t")
    assert "gdsl::matmul<12, 24>(upto - at, relu, w, " in text
    assert not any(o.domain is Domain.EDGE for k in plan.kernels for o in k.outputs)


def test_a_unit_without_products_does_not_compile_them() -> None:
    plan = lower(optimise(program(b.segment(e, "i", "sum", N))), Options())
    assert "add_outer" not in cpp.generate(plan, "float", "int32_t")
