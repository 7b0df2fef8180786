"""First and second derivatives of every program of the collection by finite differences, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.programs import harness
from tests.programs.sources import PROGRAMS

# Its aggregator is a torch module with a recurrence, whose derivatives are torch's own.
NAMES = [name for name in PROGRAMS if name != "SAGE_module"]


LISTED = ["GCN", "SAGE_max", "GATv2", "RGCN"]
# tests/programs compares the C++ of all programs with torch's derivatives to second order.
CASES = [
    pytest.param(name, backend, marks=[pytest.mark.slow] if backend == "cpp" and name not in LISTED else [])
    for name in NAMES
    for backend in ("torch", "cpp")
]


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_by_finite_differences(name: str, backend: str) -> None:
    """Along random directions, by all inputs and parameters at once; on a graph with loops and parallel edges."""
    made = harness.layer(name, backend)
    values = harness.inputs(made, harness.random_edges(5, 11, seed=4), 5)
    real = [k for k, v in values.items() if isinstance(v, Tensor) and v.is_floating_point()]
    params = dict(made.named_parameters())

    def outputs(*given: Tensor) -> tuple[Tensor, ...]:
        found: Any = torch.func.functional_call(
            made, dict(zip(params, given[len(real) :], strict=True)), (), values | dict(zip(real, given, strict=False))
        )
        return tuple(o for o in (found if isinstance(found, tuple) else (found,)) if o.is_floating_point())

    leaves = [values[k].clone().requires_grad_() for k in real] + [
        p.detach().clone().requires_grad_() for p in params.values()
    ]
    assert torch.autograd.gradcheck(outputs, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(outputs, leaves, fast_mode=True)
