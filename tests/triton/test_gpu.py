"""The Triton kernels on a GPU. Run by: pytest -m gpu tests/triton/test_gpu.py"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gdsl
from tests.programs import harness
from tests.programs.test_programs import LISTED, NAMES
from tests.triton.test_interpreted import SINGLE

pytestmark = pytest.mark.gpu


def moved(values: dict[str, object], device: str, dtype: torch.dtype) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Tensor):
            found[name] = value.to(device, dtype) if value.is_floating_point() else value.to(device)
        else:
            found[name] = value.to(device) if isinstance(value, gdsl.Graph) else value
    return found


def large(seed: int) -> Tensor:
    """A graph with a hub of its own chunks, rows without edges, and thousands of others."""
    edges = harness.random_edges(900, 12_000, seed)
    edges[1, :5000] = 7
    edges[1][edges[1] == 11] = 12
    return edges


@pytest.mark.parametrize("name", NAMES)
def test_every_program(name: str) -> None:
    """Values, gradients and second derivatives in double precision, as the reference gives them on the CPU."""
    made = harness.layer(name, "triton")
    plain = harness.twin(made, "torch")
    values = harness.inputs(made, harness.random_edges(40, 300, seed=1), 40)
    expected = harness.run(plain, values)
    found = harness.run(made.to("cuda"), moved(values, "cuda", torch.float64))
    for order, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert harness.difference([t.cpu() for t in a], b) < 1e-9, f"derivative of order {order}"


@pytest.mark.parametrize("name", SINGLE)
def test_float32_with_a_hub(name: str) -> None:
    exact = harness.layer(name, "torch")
    values = harness.inputs(exact, large(seed=2), 900)
    single = harness.twin(exact, "triton").float().to("cuda")
    found = harness.run(single, moved(values, "cuda", torch.float32))[:2]
    for parts, wanted in zip(found, harness.run(exact, values)[:2], strict=True):
        for x, y in zip(parts, wanted, strict=True):
            off = (x.double().cpu() - y).norm() / y.norm().clamp(min=1e-9)
            assert off < 1e-4


@pytest.mark.parametrize("name", LISTED)
def test_same_bits(name: str) -> None:
    made = harness.layer(name, "triton").float().to("cuda")
    values = moved(harness.inputs(made, large(seed=3), 900), "cuda", torch.float32)
    first, again = harness.run(made, values), harness.run(made, values)
    assert all(torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))


def test_auto_takes_triton_on_a_gpu() -> None:
    conv = gdsl.compile("layer C(d) { node x[d] aggregate a = mean(x[j]) update y = a }", d=16)
    x, edges = torch.rand(100, 16, device="cuda"), harness.random_edges(100, 700, seed=0).cuda()
    conv(x, edges)
    assert [r.backend for r in conv._runners.values()] == ["triton"]


def test_another_stream() -> None:
    conv = gdsl.compile("layer C(d) { node x[d] aggregate a = sum(x[j]) update y = a }", d=64)
    graph = gdsl.Graph(harness.random_edges(2000, 50_000, seed=0).cuda(), 2000)
    x = torch.rand(2000, 64, device="cuda")
    expected = conv(x, graph)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        later = torch.zeros_like(x)
        torch.cuda._sleep(10_000_000)
        later.copy_(x)
        found = conv(later, graph)
    stream.synchronize()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["GCN", "GATv2", "EdgeConv"])
def test_in_a_cuda_graph(name: str) -> None:
    made = harness.layer(name, "triton").float().to("cuda")
    values = moved(harness.inputs(made, large(seed=4), 900), "cuda", torch.float32)
    with torch.no_grad():
        expected = made(**values)
        capture = torch.cuda.CUDAGraph()
        with torch.cuda.graph(capture):
            found = made(**values)
        for value in values.values():
            if isinstance(value, Tensor) and value.is_floating_point():
                value.mul_(1.0)
        capture.replay()
    torch.cuda.synchronize()
    assert torch.equal(found, expected)


def test_host_time_of_a_call() -> None:
    """Printed, not asserted: run with -s."""
    import time

    conv = gdsl.compile("layer C(d) { node x[d] aggregate a = sum(x[j]) update y = a }", d=64)
    graph = gdsl.Graph(harness.random_edges(30, 64, seed=0).cuda(), 30)
    x = torch.rand(30, 64, device="cuda")
    with torch.no_grad():
        for _ in range(50):
            conv(x, graph)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(1000):
            conv(x, graph)
        took = time.perf_counter() - start
    torch.cuda.synchronize()
    print(f"{took * 1e3:.1f} us of host time a call")
    assert took > 0
