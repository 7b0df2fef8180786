"""Sums at rows by torch: the same bits in each run, on a GPU too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import gdsl
from gdsl.ir.ops.rows import add_at
from gdsl.runtime import rewire

# What adds in another order in each run, on a GPU, where several numbers go to one place.
UNORDERED = {"index_add", "index_add_", "scatter_add", "scatter_add_"}


class Noticed(TorchDispatchMode):
    """Which ops ran on floats."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(a, Tensor) and a.is_floating_point() for a in args):
            self.ops.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def on_a_gpu(call: Callable[[Tensor, Tensor], Tensor]) -> set[str]:
    """The ops of a call with tensors of a GPU that need not be there."""
    mode = FakeTensorMode()
    with mode, torch.no_grad(), Noticed() as noticed:
        value = FakeTensor(mode, torch.empty(9, 3, device="meta"), torch.device("cuda:0"))
        where = FakeTensor(mode, torch.empty(9, dtype=torch.int64, device="meta"), torch.device("cuda:0"))
        call(value, where)
    return noticed.ops


def test_a_gpu_adds_in_order() -> None:
    ops = on_a_gpu(lambda value, where: add_at(value, where, 4))
    assert "index_put" in ops and not ops & UNORDERED


@pytest.mark.parametrize("how", ["sum", "mean"])
def test_loops_that_sum_what_comes_in(how: str) -> None:
    ops = on_a_gpu(lambda value, where: rewire._reduce(value, where, 4, how))
    assert "index_put" in ops and not ops & UNORDERED


def test_the_check_sees_what_it_looks_for() -> None:
    assert "index_add" in on_a_gpu(lambda value, where: value.new_zeros(4, 3).index_add(0, where, value))


def test_both_ways_are_the_same_sum() -> None:
    value, where = torch.rand(50, 3, dtype=torch.float64), torch.randint(0, 4, (50,))
    ordered = value.new_zeros(4, 3).index_put((where,), value, accumulate=True)
    torch.testing.assert_close(add_at(value, where, 4), ordered)
    assert add_at(torch.ones(3, dtype=torch.long), torch.zeros(3, dtype=torch.long), 2).tolist() == [3, 0]


def test_loops_by_mean_are_right() -> None:
    graph = gdsl.Graph(torch.tensor([[0, 1, 2], [1, 0, 0]]), 3)
    rewired = graph.add_self_loops()
    found = rewire.rewire_edge_value(rewired, torch.tensor([[1.0], [2.0], [4.0]]), "mean")
    assert found.flatten().tolist() == [1.0, 2.0, 4.0, 3.0, 1.0, 0.0]
