"""The Triton kernels on a GPU. Run by: pytest -m gpu tests/triton/test_gpu.py

What matters most comes first, since time on a card may run out. With --rehearse: on the CPU, with small graphs.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

import gdsl
import gdsl.nn
from tests.programs import harness
from tests.programs.test_programs import LISTED, NAMES
from tests.triton.test_interpreted import SINGLE

pytestmark = pytest.mark.gpu
needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="streams, captures and memory of a CUDA device")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NODES, EDGES = (900, 12_000) if torch.cuda.is_available() else (60, 1_500)


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
    edges = harness.random_edges(NODES, EDGES, seed)
    edges[1, : EDGES * 2 // 5] = 7
    edges[1][edges[1] == 11] = 12
    return edges


@needs_card
def test_auto_takes_triton_on_a_gpu() -> None:
    conv = gdsl.compile("layer C(d) { node x[d] aggregate a = mean(x[j]) update y = a }", d=16)
    x, edges = torch.rand(100, 16, device="cuda"), harness.random_edges(100, 700, seed=0).cuda()
    conv(x, edges)
    assert [ran.backend for ran in conv._ran()] == ["triton"]


@needs_card
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


@needs_card
@pytest.mark.parametrize("name", ["GCN", "GATv2", "EdgeConv"])
def test_in_a_cuda_graph(name: str) -> None:
    made = harness.layer(name, "triton").float().to(DEVICE)
    values = moved(harness.inputs(made, large(seed=4), NODES), DEVICE, torch.float32)
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


@needs_card
def test_a_training_step_in_a_cuda_graph() -> None:
    """As docs/performance.md has it: the same parameters as steps one by one, and new draws in each."""
    graph = gdsl.Graph(harness.random_edges(60, 400, seed=0).to(DEVICE), 60)
    x, labels = torch.rand(60, 16, device=DEVICE), torch.arange(60, device=DEVICE) % 4
    torch.manual_seed(0)
    first = gdsl.nn.GAT(16, 8, num_layers=2, out_channels=4, heads=2).to(DEVICE)
    found: list[Tensor] = []
    for recorded in (False, True):
        model = copy.deepcopy(first)
        optimizer = torch.optim.Adam(model.parameters(), capturable=True)

        def step(model: torch.nn.Module = model, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(model(x, graph), labels).backward()
            optimizer.step()

        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(beside)
        whole = torch.cuda.CUDAGraph()
        if recorded:
            optimizer.zero_grad(set_to_none=True)
            with torch.cuda.graph(whole):
                step()
        for _ in range(5):
            whole.replay() if recorded else step()
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.cuda.synchronize()
    torch.testing.assert_close(*found)

    drop = gdsl.compile("layer D(d) { node x[d] update y = sum(dropout(x[j], 0.5)) }", d=16).to(DEVICE).train()
    drop(x, graph)
    whole = torch.cuda.CUDAGraph()
    with torch.cuda.graph(whole):
        y = drop(x, graph)
    whole.replay()
    once = y.clone()
    whole.replay()
    torch.cuda.synchronize()
    assert not torch.equal(once, y)


@needs_card
@pytest.mark.parametrize("name", ["EdgeConv", "GAT"])
def test_measured_block_sizes(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The call that measures gives what the next ones give, also where chunks of hubs are measured."""
    monkeypatch.setenv("GDSL_TUNE", "1")
    monkeypatch.setenv("GDSL_CACHE", str(tmp_path))
    made = harness.layer(name, "triton").to(DEVICE)
    values = moved(harness.inputs(made, large(seed=5), NODES), DEVICE, torch.float64)
    first, again = harness.run(made, values), harness.run(made, values)
    for x, y in zip(first, again, strict=True):
        assert harness.difference(x, y) < 1e-12


@pytest.mark.parametrize("name", LISTED)
def test_same_bits(name: str) -> None:
    made = harness.layer(name, "triton").float().to(DEVICE)
    values = moved(harness.inputs(made, large(seed=3), NODES), DEVICE, torch.float32)
    first, again = harness.run(made, values), harness.run(made, values)
    assert all(torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("name", SINGLE)
def test_float32_with_a_hub(name: str) -> None:
    exact = harness.layer(name, "torch")
    values = harness.inputs(exact, large(seed=2), NODES)
    single = harness.twin(exact, "triton").float().to(DEVICE)
    found = harness.run(single, moved(values, DEVICE, torch.float32))[:2]
    for parts, wanted in zip(found, harness.run(exact, values)[:2], strict=True):
        for x, y in zip(parts, wanted, strict=True):
            off = (x.double().cpu() - y).norm() / y.norm().clamp(min=1e-9)
            assert off < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_every_program(name: str) -> None:
    """Values, gradients and second derivatives in double precision, as the reference gives them on the CPU."""
    made = harness.layer(name, "triton")
    plain = harness.twin(made, "torch")
    values = harness.inputs(made, harness.random_edges(40, 300, seed=1), 40)
    expected = harness.run(plain, values)
    found = harness.run(made.to(DEVICE), moved(values, DEVICE, torch.float64))
    for order, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert harness.difference([t.cpu() for t in a], b) < 1e-9, f"derivative of order {order}"
