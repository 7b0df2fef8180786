"""Random programs: every backend, optimised or not, against plain torch and its autograd.

``GDSL_RANDOM=5000 pytest tests/programs/test_random.py`` runs that many instead of the default few.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from gdsl import Graph
from gdsl.codegen import unrolled
from gdsl.ir.printer import print_program
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind
from gdsl.passes import dense
from gdsl.passes.options import Options
from gdsl.passes.pipeline import optimise
from gdsl.runtime import reference
from gdsl.runtime.autograd import Runner
from gdsl.runtime.frame import Frame
from tests.programs import harness, random_programs

COUNT = int(os.environ.get("GDSL_RANDOM", "24"))
GRAPHS = [(6, 14), (1, 3), (5, 0), (9, 40), (4, 2)]


def tensors(program: Program, graph: Graph, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = {Domain.NODE: graph.num_targets, Domain.EDGE: graph.num_edges}
    found = []
    for load in program.inputs:
        shape = (() if load.domain is Domain.GLOBAL else (rows[load.domain],)) + load.type.shape
        if load.kind is Kind.INT:
            found.append(torch.randint(0, load.type.bound, shape, generator=generator))
        else:
            found.append(torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_())
    return found


@pytest.mark.parametrize("seed", range(COUNT))
def test_random_program(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 2:  # Triton writes out the short dims of these, as otherwise only beside long ones
        monkeypatch.setattr(unrolled, "LEAST_BESIDE", 2)
    check(random_programs.write(seed, 4 + seed % 12), seed, triton=True)


@pytest.mark.parametrize("seed", range(1000, 1000 + COUNT))
def test_with_every_product_left_to_the_blas(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for wide layers, where it takes the products of nodes, and sums of them."""
    monkeypatch.setattr(dense, "DENSE_INTENSITY", 0)
    check(random_programs.write(seed, 2 + seed % 4, layers=True), seed, triton=False)


def check(program: Program, seed: int, triton: bool) -> None:
    """All that a program gives on a graph, by each backend, against plain torch."""
    nodes, edges = GRAPHS[seed % len(GRAPHS)]
    graph = Graph(harness.random_edges(nodes, edges, seed), nodes)
    frame = Frame(graph, torch.float64, torch.device("cpu"))
    given = tensors(program, graph, seed)
    leaves = [t for t in given if t.requires_grad]
    expected = reference.run(program.nodes, dict(zip(program.inputs, given, strict=True)), frame)
    wanted = harness._derivatives(expected, leaves)
    by_name = {n.attrs.name: t for n, t in zip(program.inputs, given, strict=True)}
    plain = Options(optimise=False, save=False)
    for backend, made, options in [
        ("torch", program, plain),
        ("cpp", optimise(program), Options()),
        ("cpp", program, plain),
        *([("triton", optimise(program), Options())] if triton else []),
        *([("triton", program, plain)] if triton and seed % 4 == 0 else []),
    ]:
        runner = Runner(made, backend, torch.float64, torch.int32, options)
        outputs = runner([by_name[n.attrs.name] for n in runner.inputs], frame)
        found = harness._derivatives(list(outputs), leaves)
        for order, (a, b) in enumerate(zip(found, wanted, strict=True)):
            message = f"{backend}, {options}, derivative of order {order}\n{print_program(program)}"
            assert harness.difference(a, b) < 1e-8, message
