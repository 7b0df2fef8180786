"""Functions that differ in nothing but names are compiled once; what differs in anything else is not."""

from __future__ import annotations

import pytest
import torch

import gdsl
from gdsl.codegen import cpp, cpp_writer, hubs
from gdsl.codegen.alike import KernelSource, once
from gdsl.runtime import cpp as bound
from gdsl.runtime import order, prepare
from tests.passes.test_pieces import compiled, gat
from tests.programs.harness import difference, random_edges


def bodies(text: str) -> int:
    return text.count("#pragma omp parallel")


def test_rounds_are_compiled_once() -> None:
    """The functions of a program of ten rounds are those of five, and each has its name in the library."""
    found = [compiled(gat(k))._ran()[0].inspection.plans for k in (5, 10)]
    few, many = ([cpp.generate(plan, "float", "int32_t") for _, plan in plans] for plans in found)
    for a, b in zip(few, many, strict=True):
        assert bodies(a) == bodies(b) < b.count('extern "C"')
    plan = compiled(gat(5))._ran()[0].inspection.plans[0][1]
    assert bodies(hubs.generate_hubs(plan, "float", "int32_t")) < len(plan.kernels)


FUNCTION = """// {name}: a comment
extern "C" void {name}(
    const T* __restrict__ {a},
    {type}* __restrict__ {b}
) {{
    const {type} {v} = {call}({a}[i]);  // {name}
    {b}[i] = {v} + {constant};
}}
"""


def function(name: str, a: str = "x", b: str = "y", v: str = "v", type: str = "T", call: str = "exp", constant="1"):
    text = FUNCTION.format(name=name, a=a, b=b, v=v, type=type, call=call, constant=constant)
    return KernelSource(name, text, {a, b, v})


def test_names_alone_are_no_difference() -> None:
    found = once([function("f"), function("g", a="p", b="v", v="w"), function("h", a="y", b="x")])
    assert [bool(t.count("alias")) for t in found] == [False, True, True]
    assert found[1].endswith('T* __restrict__ v\n) __attribute__((alias("f")));\n')


@pytest.mark.parametrize(
    "other",
    [
        {"type": "idx_t"},
        {"call": "log"},
        {"call": "gdsl::exp"},
        {"constant": "2"},
        {"a": "exp", "v": "log", "call": "exp"},
        {"a": "log", "v": "exp", "call": "log"},
        {"v": "y"},
    ],
)
def test_what_differs_is_another_function(other: dict[str, str]) -> None:
    same_calls = other.get("call", "exp") == "exp" and "v" in other and other["v"] != "y"
    found = once([function("f"), function("g", **other)])
    assert ("alias" in found[1]) == same_calls


def test_aliases_compute_what_is_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds with parameters of their own, on a graph with hubs, so that aliases of both kinds run."""
    for module in (cpp_writer, hubs, order, prepare, bound):
        for name in ("HUB_EDGES", "CHUNK_EDGES"):
            monkeypatch.setattr(module, name, 20, raising=False)
    edges = torch.cat([random_edges(9, 60, 0), torch.stack([torch.arange(50) % 9, torch.full((50,), 2)])], 1)
    graph = gdsl.Graph(edges, 9)
    assert graph.in_edges.has_hubs
    found = []
    for backend in ("torch", "cpp"):
        torch.manual_seed(0)
        made = compiled(gat(3), backend=backend)
        x = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
        y = made(x, graph)
        found.append([y, *torch.autograd.grad(y.sum(), [x, *made.parameters()])])
    assert difference(found[1], found[0]) < 1e-9
