"""Compiled kernels on hard graphs, in both precisions, on any number of threads."""

from __future__ import annotations

import math
import re
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import gdsl
from gdsl.codegen import cpp, values
from gdsl.ir import build as b
from gdsl.ir import library
from gdsl.ir.node import Node
from gdsl.ir.program import Program
from gdsl.ir.types import Dim, Domain, Kind
from gdsl.passes.options import Options
from gdsl.passes.pipeline import differentiate, lower, optimise
from gdsl.runtime import cache
from gdsl.runtime.graph import Graph
from tests.ir.drive import (
    GRAPHS,
    LAYERS,
    A,
    B,
    E,
    G,
    N,
    R,
    S,
    T,
    assert_same,
    expected,
    frame,
    gradients,
    integer,
    load,
    program,
    random_frame,
    runner,
    tensors,
)  # fmt: skip

x, z, y, e, m = load("x", N, A), load("z", N, A), load("y", N, A, B), load("e", E, A), load("m", E, A, B)
w, p, rel = load("w", G, A, B), load("p", G, A), integer("rel", E, 3)
xi, xj = b.gather(x, "i"), b.gather(x, "j")
op = b.elementwise


def segment(value: Node, reducer: str = "sum", end: str = "i", **by) -> Node:
    return b.segment(value, end, reducer, N, **by)


def hub() -> Tensor:
    """20,000 edges into node 0, as many out of node 1, and a few others."""
    spread = torch.arange(20_000) % 500
    into = torch.stack([spread, torch.zeros_like(spread)])
    out = torch.stack([torch.ones_like(spread), spread])
    return torch.cat([into, out, torch.tensor([[3, 4, 4], [5, 5, 4]])], 1)


HARD = {name: (edges, 6) for name, edges in GRAPHS.items()}
HARD |= {"no_nodes": ([[], []], 0), "one_node": ([[], []], 1), "one_loop": ([[0], [0]], 1), "big_hub": (hub(), 520)}


def drawn(salt: int, domain: Domain, *dims: Dim) -> Node:
    return b.random(integer("seed", G, None), salt, domain, dims)


# What a kernel can be made of, each as a program of its own.
PROGRAMS: dict[str, Program] = {name: make() for name, make in LAYERS.items()} | {
    "reducers": program(*(segment(xj * e, how) for how in ("sum", "max", "min"))),
    "reducers at j": program(*(segment(xi * e, how, "j") for how in ("sum", "max", "min"))),
    "first winners": program(*(segment(e, how) for how in ("argmax", "argmin"))),
    "product": program(segment(op("exp", 1e-3 * (e - 1.0)), "mul")),
    "by relation": program(segment(xj * e, by=rel, dim=R)),
    "relation weights": program(segment(b.matmul(xj, b.index(load("t", G, R, A, B), rel, "r")))),
    "edge outputs": program(op("exp", -xi * xj), library.segment_softmax(e, "i", N)),
    "edge matrix": program(segment(b.matmul(op("relu", xi - xj), w), "max")),
    "views": program(segment(b.merge(b.transpose(m, ["b", "a"]), ["b", "a"], "ba"))),
    "cat and slice": program(segment(b.cat([xi, e, b.slice_dim(e * xj, "a", 1, Dim("s", 2))], ["a", "a", "s"],
                                           Dim("all", 10)))),
    "reductions over a dim": program(segment(b.reduce(m, "max", "a")), b.reduce(y, "argmin", "b")),
    "totals": program(b.total(e * xj), b.contract([m, xi], ["a"], total=True)),
    "a total by relation": program(b.scatter(e * xj, rel, R, ["r", "a"])),
    "two rounds": program(segment(b.gather(op("tanh", segment(xj * e)), "j") * e)),
    "graph values": program(segment(xj / b.gather(op("maximum", b.graph_value("out_degree", N), 1.0), "j"))),
    "dropout": program(
        segment(op("where", drawn(0, E, A) < 0.5, xj, 0.0)),
        # The mask is read by loops that are not joined; one number a row; numbers at the other end.
        *(b.contract([op("where", drawn(1, N, A, B) < 0.3, 0.0, v), y], ["a"]) for v in (y, op("exp", y))),
        segment(op("where", drawn(2, E) < 0.5, e, 0.0)),
        segment(b.gather(drawn(3, N, A, B), "j") * m, "max"),
    ),
    "spread": program(segment(b.spread(p, E)), b.spread(p, E) * 2.0),
    "no edges needed": program(op("exp", x) * z, b.contract([y, p], ["a"])),
}  # fmt: skip


def run(name: str, backend: str, f, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and gradients."""
    q = PROGRAMS[name]
    values = tensors(q, f, seed)
    made = _runners.setdefault((name, f.dtype), runner(q, "cpp", dtype=f.dtype))
    outputs = list(made(values, f)) if backend == "cpp" else expected(q, values, f)
    return outputs, [g.detach() for g in gradients(outputs, values)]


_runners: dict = {}


@pytest.mark.parametrize("graph", HARD)
@pytest.mark.parametrize("name", PROGRAMS)
def test_against_the_reference(name: str, graph: str) -> None:
    edges, nodes = HARD[graph]
    f = frame(edges, nodes)
    for found, wanted in zip(run(name, "cpp", f), run(name, "torch", f), strict=True):
        assert_same(found, wanted, 1e-9)


@pytest.mark.parametrize("name", PROGRAMS)
def test_float32(name: str) -> None:
    """Near the float64 result, or where rounding counts for more, about as near as torch's own float32."""
    exact, single = random_frame(40, 200), random_frame(40, 200, dtype=torch.float32)
    results = [run(name, "cpp", single), run(name, "torch", single), run(name, "cpp", exact)]
    for found, reference, wanted in zip(*results, strict=True):
        for a, r, w in zip(found, reference, wanted, strict=True):
            assert a.dtype is (torch.float32 if w.is_floating_point() else w.dtype)
            assert (a - w).abs().max() <= max(2e-5 * max(w.abs().max(), 1), 2 * (r - w).abs().max())


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_bits_on_any_number_of_threads(name: str) -> None:
    f = frame(hub(), 520, torch.float32)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 2, 3):
            torch.set_num_threads(count)
            outputs, grads = run(name, "cpp", f)
            results.append([*outputs, *grads])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, c) for a, c in zip(results[0], other, strict=True))


@given(
    name=st.sampled_from(list(PROGRAMS)), nodes=st.integers(1, 9), edges=st.integers(0, 30), seed=st.integers(0, 10**6)
)
def test_random_graphs(name: str, nodes: int, edges: int, seed: int) -> None:
    f = random_frame(nodes, edges, seed)
    for found, wanted in zip(run(name, "cpp", f, seed), run(name, "torch", f, seed), strict=True):
        assert_same(found, wanted, 1e-9)


@pytest.mark.parametrize("sizes", [(5, 3), (3, 5), (1, 1), (4, 4)])
def test_bipartite(sizes: tuple[int, int]) -> None:
    s, t = load("s", S, A), load("t", T, A)
    message = op("tanh", b.gather(s, "j") * b.gather(t, "i"))
    q = program(b.segment(message, "i", "sum", T), b.segment(message, "j", "max", S))
    generator = torch.Generator().manual_seed(0)
    ends = [torch.randint(0, n, (12,), generator=generator) for n in sizes]
    f = frame(torch.stack(ends), sizes)
    values = tensors(q, f)
    outputs, wanted = runner(q, "cpp")(values, f), expected(q, values, f)
    assert_same(outputs, wanted)
    assert_same(gradients(outputs, values), gradients(wanted, values))


@pytest.mark.parametrize("reducer", ["sum", "max", "min", "mul", "argmax", "argmin"])
@pytest.mark.parametrize("special", [math.nan, math.inf, -math.inf])
def test_special_numbers_behave_as_in_torch(reducer: str, special: float) -> None:
    q, f = program(segment(load("v", E), reducer)), frame([[0] * 6, [0, 0, 0, 1, 2, 2]], 4)
    value = torch.tensor([1.0, special, 2.0, special, special, special], dtype=torch.float64)
    assert_same(runner(q, "cpp")([value], f), expected(q, [value], f))


def test_integers_do_not_wrap() -> None:
    n = integer("n", E, None)
    q, f = program(n * n), frame([[0], [0]])
    assert runner(q, "cpp")([torch.tensor([100_000])], f)[0].tolist() == [10**10]


@pytest.mark.parametrize("reducer", ["max", "min", "argmax", "argmin", "mul"])
def test_an_empty_bucket_of_a_row_with_edges(reducer: str) -> None:
    q, f = program(segment(e, reducer, by=rel, dim=R)), frame(GRAPHS["mixed"])
    values = tensors(q, f)
    with torch.no_grad():
        assert_same(runner(q, "cpp")(values, f), expected(q, values, f))


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_index_types(index: torch.dtype) -> None:
    text = cpp.generate(lower(optimise(LAYERS["GAT"]()), Options()), "float", f"{index}".removeprefix("torch.") + "_t")
    assert f"typedef {index}".replace("torch.", "") + "_t idx_t;" in text
    cache.load(text, name="index_types")


# ----------------------------------------------------------------------------------- the text


def units(name: str) -> list[str]:
    """The forward and backward translation unit of a program."""
    q = optimise(PROGRAMS[name])
    wrt = [n for n in q.inputs if n.kind is Kind.FLOAT]
    real = [k for k, n in enumerate(q.nodes) if n.kind is Kind.FLOAT]
    back = differentiate(q, wrt, real, None, Options()).program
    return [cpp.generate(lower(r, Options()), "float", "int32_t") for r in ([q, back] if back.outputs else [q])]


@pytest.mark.parametrize("name", PROGRAMS)
def test_kernels_allocate_nothing(name: str) -> None:
    assert not any(re.search(r"\b(malloc|calloc|new|free)\b *\(", text) for text in units(name))


def test_memory_does_not_grow() -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    f = frame(hub(), 520, torch.float32)
    for _ in range(3):
        run("GATv2", "cpp", f)
    before = resident()
    for _ in range(30):
        run("GATv2", "cpp", f)
    assert resident() - before < 20 * 2**20


# All warnings, but for functions of the prelude, arguments and loop variables that one kernel needs and another not.
UNUSED = ["-Wno-unused-function", "-Wno-unused-parameter", "-Wno-unused-variable"]
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wshadow", *UNUSED, "-fsyntax-only"]


def test_generated_code_has_no_warnings() -> None:
    compiler = cache.find_compiler()
    assert compiler is not None
    flags = [f for f in cache.FLAGS if f != "-O3"]
    for name in PROGRAMS:
        for text in units(name):
            command = [compiler.path, *flags, *WARNINGS, "-x", "c++", "-"]
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{name}: {done.stderr[:2000]}"


NASTY = [
    "int",
    "T",
    "i",
    "j",
    "e",
    "id",
    "block",
    "gdsl",
    "x y",
    "a-b",
    "α",
    "1st",
    "x'",
    "threads",
    "acc",
    "malloc",
    "__x",
    "s",
    "v",
]


@pytest.mark.parametrize("text", NASTY)
def test_any_name_makes_valid_code(text: str) -> None:
    """Names come from the user: none may collide with what the generator writes."""
    dim = Dim(text, 3)
    v, u = load(text, N, dim), load(f"{text}_2", G, dim)
    message = op("exp", b.gather(v, "j")) * u * b.gather(v, "i")
    q = program(segment(message, "max"), segment(message), name="Names", **{text: message})
    f = frame(GRAPHS["mixed"])
    values = tensors(q, f)
    with torch.no_grad():
        assert_same(runner(q, "cpp")(values, f), expected(q, values, f))


def test_names_never_leave_the_identifier() -> None:
    v = load("x; system(1)", N, A)
    text = cpp.kernel_source(
        *(lambda plan: (plan.kernels[0], plan))(lower(program(segment(b.gather(v, "j"))), Options()))
    )
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("//"))
    assert "system(1)" not in code


def test_a_constant_is_written_in_full() -> None:
    cases = {0.1: "T(0.1)", math.inf: "T(__builtin_inf())", -math.inf: "T(-__builtin_inf())", 1e300: "T(1e+300)"}
    for value, text in cases.items():
        assert values.literal(b.const(value)) == text
    assert values.literal(b.const(math.nan)) == 'T(__builtin_nan(""))'
    assert [values.literal(b.const(v)) for v in (True, False, 7)] == ["true", "false", "7"]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 32, 33, 50, 64, 65])
def test_sums_over_dims_of_every_length(size: int) -> None:
    """Sums of fewer numbers than lanes, of as many, of several blocks, and of blocks and a rest."""
    text = """layer Sums(c) {
        param w[c, 2] ~ normal(1)
        node x[c]
        message m = sum[c](x[i] * x[j])
        aggregate a = sum(m)
        update y = a + sum[c](x * w)
    }"""
    edges, nodes = HARD["mixed"]
    layer = gdsl.compile(text, c=size, backend="cpp").double()
    reference = gdsl.compile(text, c=size, backend="torch").double()
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(nodes, size, dtype=torch.float64, requires_grad=True)
    results = []
    for made in (layer, reference):
        y = made(x, gdsl.Graph(torch.as_tensor(edges), nodes))
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, made.w])])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [1, 3, 16, 100])
def test_a_difference_of_equal_products_is_zero(size: int, dtype: torch.dtype) -> None:
    """As in torch, where each product is rounded: the length of such a cross product has no gradient at a loop."""
    text = "layer Cross { node x[d] node y[d] return max(x[j] * y[i] - x[i] * y[j]) }"
    x, y = torch.randn(2, 20, size, dtype=dtype).unbind()
    loops = torch.arange(20).repeat(2, 1)
    assert torch.equal(gdsl.compile(text, backend="cpp")(x, y, loops), torch.zeros(20, size, dtype=dtype))


def test_a_difference_of_products_of_integers() -> None:
    text = (
        "layer Whole(k = 5) { node a: int(k) node b: int(k) node x[d] return sum(x[j] * (a[j] * b[i] - a[i] * b[j])) }"
    )
    numbers, x = torch.randint(5, (2, 4)), torch.randn(4, 3, dtype=torch.float64)
    edges = torch.tensor([[0, 1, 3], [1, 2, 2]])
    found, wanted = (gdsl.compile(text, backend=backend)(*numbers, x, edges) for backend in ("cpp", "torch"))
    torch.testing.assert_close(found, wanted)


def test_products_with_a_gathered_table_run_along_its_rows() -> None:
    """As with a table of all edges: the other order reads one number of each of its cache lines."""
    text = "layer Mix(k = 3, d = 16) { node h[k, d] edge g[k] return max(sum[k](g * h[j])) }"
    source = gdsl.compile(text, backend="cpp").kernels[0].source
    assert re.search(
        r"for \(int64_t d = 0; d < 16; \+\+d\) \{\s+\w+\[d\] \+= g_id\[k\] \* h_j\[k \* 16 \+ d\];", source
    )


def test_sums_over_dims_follow_the_widest_operand() -> None:
    """A place and a feature of it are summed place by place, as the matrices lie, whatever the order in the factor."""
    corner = Dim("corner", 4)
    places = integer("places", E, 3, corner)
    picked = b.index(load("ws", G, R, A, B), places, "r")
    message = b.contract([b.transpose(e * load("basis", E, corner), ["a", "corner"]), picked], ["a", "corner"])
    source = cpp.generate(lower(program(segment(message)), Options()), "float", "int32_t", 1)
    assert re.search(
        r"for \(int64_t corner = .*\n *for \(int64_t a = .*\n *#pragma omp simd\n *for \(int64_t b = ", source
    )


def test_blocks_cover_every_row_once() -> None:
    order = Graph(hub(), 520).in_edges
    assert order.blocks[0] == 0 and order.blocks[-1] == 520
    assert (order.blocks.diff() >= 0).all()
    assert order.max_degree >= 20_000


@pytest.mark.skipif(sys.maxsize < 2**40, reason="needs a 64-bit address space")
def test_more_numbers_than_an_int32_counts() -> None:
    """40 million sources of 64 features are 2.56e9 numbers, of which only the pages that are read exist."""
    count, width = 40_000_000, 64
    assert count * width > 2**31
    layer = gdsl.compile("layer Sum { source x[c] target z aggregate a = sum(x[j]) update y = a + z }", backend="cpp")
    try:
        x = torch.empty(count, width)
    except RuntimeError:
        pytest.skip("the system does not lend 10 GB of address space")
    places = torch.tensor([0, 17, 2**31 // width - 1, 2**31 // width, 2**32 // width // 2 + 3, count - 1])
    for k, place in enumerate(places.tolist()):
        x[place] = float(2**k)
    graph = gdsl.Graph(torch.stack([places, torch.tensor([0, 1, 0, 1, 0, 1])]), (count, 2))
    assert graph.index_dtype == torch.int32
    y = layer(x, torch.zeros(2), graph)
    assert y[:, 0].tolist() == [1.0 + 4 + 16, 2.0 + 8 + 32]
    assert bool((y == y[:, :1]).all())


@pytest.mark.parametrize("name", PROGRAMS)
def test_offsets_are_counted_in_int64(name: str) -> None:
    """Rows, columns and edge numbers become int64 before they are multiplied by a width."""
    for whole in units(name):
        text = whole.partition("typedef int32_t idx_t;")[2]
        for product in re.findall(r"(\w+) \* \d+", text):
            if product in ("i", "j", "id", "e"):
                assert re.search(rf"int64_t {product}\b", text)
        assert not re.search(r"\bint (i|j|id|e|group)\b", text)


@pytest.mark.parametrize("count", [values.MOST_STREAMS - 1, values.MOST_STREAMS])
@pytest.mark.parametrize("walked", [True, False])
def test_rows_of_many_buffers_are_asked_for_early(count: int, walked: bool) -> None:
    """The first and the last rows too, of blocks of any number."""
    parts = [load(f"x{k}", N, A) for k in range(count)]
    made = op("tanh", sum(parts))
    prog = program(segment(b.gather(made, "i") * xj) if walked else made)
    kernel = next(k for k in lower(prog, Options()).kernels if k.stores and len(k.buffers) >= count)
    asked = cpp.kernel_source(kernel, lower(prog, Options())).count("__builtin_prefetch(x1 + row_ahead * 4)")
    assert asked == (count == values.MOST_STREAMS)
    f = frame(GRAPHS["mixed"])
    given = tensors(prog, f)
    assert_same(runner(prog, "cpp")(given, f), expected(prog, given, f))
