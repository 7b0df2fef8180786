"""What a user prints at a prompt fits a screen, however large the program is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import gdsl
import gdsl.nn as ours

LINES, COLUMNS = 24, 100

ROUNDS = """
layer Rounds(K, d) {
    node x[d]
    param w[d, d'] ~ glorot
    h = x
    for k in 1..K { h = tanh(sum(h[j] * 0.5) + h) }
    update y = h @ w
}"""


def made() -> Iterator[nn.Module]:
    yield gdsl.compile(ROUNDS, K=60, d=4, backend="torch")
    yield ours.GATConv(8, 4, heads=3, backend="torch")
    yield ours.PNAConv(8, 8, ["mean", "max", "std"], ["identity", "linear"], torch.tensor([0, 4, 9]), backend="torch")

    class User(ours.MessagePassing):
        def forward(self, x: Any, edge_index: Any) -> Any:
            return self.propagate(edge_index, x=x)

        def message(self, x_j: Any) -> Any:
            for _ in range(60):
                x_j = torch.tanh(x_j) + 0.1
            return x_j

    yield User(backend="torch")


@pytest.mark.parametrize("layer", [*made()], ids=lambda layer: type(layer).__name__)
def test_all_that_a_layer_gives(layer: Any) -> None:
    width = 4 if isinstance(layer, gdsl.Layer) else 8
    layer(torch.randn(6, width), torch.randint(6, (2, 20)))
    found = [layer, layer.program, *layer.program.rules, *layer.kernels, *(k.kernel for k in layer.kernels)]
    for ran in layer._ran():
        seen = ran.inspection
        found += [ran, ran.kind, ran.compiled, ran.kind.key, *ran.kind.ready.values(), *seen.programs, *seen.adjoints]
        found += [plan for _, plan in seen.plans]
    if isinstance(layer, gdsl.Layer):
        found += [layer.signature, layer.definition]
    for value in found:
        text = repr(value)
        assert sum(len(line) // COLUMNS + 1 for line in text.splitlines()) <= LINES, text


def test_a_report() -> None:
    report = ours.GATConv(3, 2, backend="torch").check(torch.randn(4, 3), torch.randint(4, (2, 6)))
    assert repr(report) == f"<CheckReport GATConv: all {len(report.rows)} checks passed>"
    assert len(str(report).splitlines()) == len(report.rows) + 2


def test_kernels_one_a_line() -> None:
    layer = gdsl.compile(ROUNDS, K=2, d=4)
    for kernel in layer.kernels:
        assert repr(kernel).startswith(f"KernelInfo(name='{kernel.name}', direction='{kernel.direction}'")
        assert "\n" not in repr(kernel)
