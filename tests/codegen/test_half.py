"""bfloat16 and float16: stored half as wide, computed in float32, rounded once."""

from __future__ import annotations

import ctypes

import pytest
import torch
from torch import Tensor

import gdsl
from gdsl.codegen import cpp
from gdsl.codegen.schedule import HUB_EDGES
from gdsl.codegen.storage import packed_buffers
from gdsl.ir.node import walk
from gdsl.ir.program import Program
from gdsl.passes.pipeline import lower, optimise
from gdsl.runtime import cache
from gdsl.runtime.execute import KernelPlan
from tests.ir.drive import LAYERS, Options
from tests.programs.sources import PROGRAMS

EPSILON = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
SMOOTH = ["GCN", "SGC", "Transformer", "NNConv", "ResGated"]
# Rounding turns some maxima and slopes over: single gradients jump, most do not.
KINKED = ["GAT", "GATv2", "EdgeConv_text", "PNA"]


# Loops over stored numbers, as kernels have them.
LOOPS = """
extern "C" void widen(int64_t size, const gdsl::{stored}* __restrict__ x, float* __restrict__ y) {{
    #pragma omp simd
    for (int64_t n = 0; n < size; ++n) y[n] = float(x[n]);
}}
extern "C" void narrow(int64_t size, const float* __restrict__ x, gdsl::{stored}* __restrict__ y) {{
    #pragma omp simd
    for (int64_t n = 0; n < size; ++n) y[n] = x[n];
}}
"""


def loops(dtype: torch.dtype) -> str:
    stored = {torch.bfloat16: "bf16", torch.float16: "f16"}[dtype]
    return cpp.header("prelude.h") + cpp.header("half.h") + LOOPS.format(stored=stored)


def converted(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The numbers by a kernel's conversion, from or to the format ``dtype``."""
    narrow = x.dtype is torch.float32
    y = torch.empty(len(x), dtype=dtype if narrow else torch.float32)
    call = getattr(cache.load(loops(dtype), name="half"), "narrow" if narrow else "widen")
    call(ctypes.c_int64(len(x)), ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr()))
    return y


def assert_same_bits(found: Tensor, wanted: Tensor) -> None:
    integers = {2: torch.int16, 4: torch.int32}[wanted.element_size()]
    real = ~wanted.isnan()
    assert torch.equal(found.isnan(), ~real)
    assert torch.equal(found[real].view(integers), wanted[real].view(integers))


@pytest.mark.parametrize("dtype", EPSILON)
def test_every_number_is_widened_exactly(dtype: torch.dtype) -> None:
    x = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    assert_same_bits(converted(x, dtype), x.float())


@pytest.mark.parametrize("dtype", EPSILON)
def test_numbers_are_rounded_as_by_torch(dtype: torch.dtype) -> None:
    """Numbers of all magnitudes, and each that lies half way between two of the format, with its neighbours."""
    spread = torch.arange(-(2**31), 2**31, 1327, dtype=torch.int64).to(torch.int32)
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).float()
    half_way = ((every[1:].double() + every[:-1].double()) / 2).float().view(torch.int32)
    x = torch.cat([spread, half_way - 1, half_way, half_way + 1]).view(torch.float32)
    assert_same_bits(converted(x, dtype), x.to(dtype))


@pytest.mark.parametrize("dtype", EPSILON)
def test_conversions_become_vector_code(dtype: torch.dtype) -> None:
    widen, _, narrow = cache.assembly(loops(dtype)).partition("\nnarrow:")
    if "xmm" in widen:
        assert "pslld" in widen and "psrld" in narrow


def case(name: str, dtype: torch.dtype) -> tuple[gdsl.Layer, list[Tensor], gdsl.Graph]:
    """A layer and its inputs, numbers that the format holds exactly, and a graph."""
    source, arguments = PROGRAMS[name]
    torch.manual_seed(0)
    layer = gdsl.compile(source, **arguments)
    graph = gdsl.Graph(torch.randint(60, (2, 600)), 60)
    rows = {"node": 60, "edge": 600}
    inputs = []
    for i in (*layer.signature.before_graph, *layer.signature.after_graph):
        if not i.optional:
            typed = layer._text.outline(layer, frozenset())
            declared = next(d for d in typed.declarations if d.name == i.name)
            assert declared.type is not None
            inputs.append(torch.rand(rows[i.domain], *declared.type.shape).to(dtype))
    return layer.to(dtype), inputs, graph


def run(layer: gdsl.Layer, inputs: list[Tensor], graph: gdsl.Graph) -> list[Tensor]:
    """Results and gradients, of the inputs and of the parameters."""
    before = len(layer.signature.before_graph)
    given = [v.detach().clone().requires_grad_() for v in inputs]
    y = layer(*given[:before], graph, *given[before:])
    found = torch.autograd.grad(y, [*given, *layer.parameters()], torch.ones_like(y))
    return [y.detach(), *found]


@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("name", [*SMOOTH, *KINKED])
def test_close_to_float64(name: str, dtype: torch.dtype) -> None:
    layer, inputs, graph = case(name, dtype)
    layer.backend = "cpp"
    found = run(layer, inputs, graph)
    assert all(t.dtype == dtype for t in found)
    exact = run(layer.double(), [v.double() for v in inputs], graph)
    for k, (a, e) in enumerate(zip(found, exact, strict=True)):
        # A few values are rounded on the way: inputs of a product, its result, the result itself.
        most = 0.15 if k and name in KINKED else 8 * EPSILON[dtype]
        assert float((a.double() - e).norm()) <= most * float(e.norm()), name


def test_a_sum_is_rounded_once() -> None:
    """1 + 1000 small numbers: bfloat16 sums would stay at 1."""
    layer = gdsl.compile("layer Sum { node x[c] aggregate a = sum(x[j]) update y = a }", backend="cpp")
    count = 1001
    edges = torch.stack([torch.arange(count), torch.zeros(count, dtype=torch.long)])
    x = torch.full((count, 3), 2.0**-9, dtype=torch.bfloat16)
    x[0] = 1.0
    y = layer(x, gdsl.Graph(edges, count))
    assert y.dtype is torch.bfloat16
    assert float(y[0, 0]) == float(torch.tensor(1 + 1000 * 2.0**-9).bfloat16())


def test_the_sum_of_a_hub_is_rounded_once() -> None:
    layer = gdsl.compile("layer Sum { node x[c] aggregate a = sum(x[j]) update y = a }", backend="cpp")
    count = HUB_EDGES + 1
    edges = torch.stack([torch.arange(count), torch.zeros(count, dtype=torch.long)])
    x = torch.full((count, 3), 2.0**-9, dtype=torch.bfloat16, requires_grad=True)
    y = layer(x, gdsl.Graph(edges, count))
    assert float(y[0, 0].detach()) == float(torch.tensor(count * 2.0**-9).bfloat16())
    (gradient,) = torch.autograd.grad(y[0].sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))


def test_what_is_read_again_stays_float32() -> None:
    plan = KernelPlan(lower(optimise(LAYERS["GAT"]()), Options()), "cpp", torch.bfloat16, torch.int32, 1)
    source = cpp.generate(plan.plan, "bfloat16", "int32_t", 1)
    assert "typedef gdsl::bf16 S;" in source
    assert "const S* __restrict__ x_i = x + i" in source
    written = {o for k in plan.plan.kernels for o in k.outputs}
    read = {b for k in plan.plan.kernels for b in k.buffers}
    assert written & read
    assert plan.storage.packed & written == written - read == set(plan.plan.program.nodes)


def test_what_the_backward_reads_stays_float32() -> None:
    program = optimise(LAYERS["GAT"]())
    (name, seen), *_ = program.outputs
    saved = next(n for n in walk([seen]) if n.op == "segment" and n is not seen)
    both = Program(program.name, ((name, seen), ("saved", saved)), program.names)
    plan = lower(both, Options())
    seen, saved = plan.program.nodes
    assert packed_buffers(plan, "bfloat16", 1) & {seen, saved} == {seen}
    assert packed_buffers(plan, "bfloat16", 2) & {seen, saved} == {seen, saved}


def test_mixed_dtypes_are_refused() -> None:
    layer = gdsl.compile("layer P { param w[c] ~ ones node x[c] aggregate a = sum(x[j] * w) update y = a }", c=3)
    graph = gdsl.Graph(torch.tensor([[0], [1]]), 2)
    with pytest.raises(gdsl.InputError, match="bfloat16"):
        layer(torch.rand(2, 3).bfloat16(), graph)


def test_nan_and_infinity_are_read_as_they_are() -> None:
    layer = gdsl.compile("layer Max { node x[c] aggregate a = sum(x[j]) update y = a }", backend="cpp")
    x = torch.tensor([[float("nan")], [float("inf")], [1e-40], [-0.0]], dtype=torch.bfloat16)
    y = layer(x, gdsl.Graph(torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]]), 4))
    torch.testing.assert_close(y, x, equal_nan=True)
