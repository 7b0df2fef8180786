"""The sanitizer of Triton kernels reports mistakes of each kind, and finds none in generated kernels.

All programs: python -m tests.triton.sanitize
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from gdsl.runtime import triton as runtime
from tests.triton import sanitize, sanitizer
from tests.triton.orders import other_orders

pytestmark = pytest.mark.skipif(not runtime.interpreted(), reason="Triton was imported for a GPU, not to interpret")


@triton.jit
def past_the_end(x, y, n):
    k = tl.program_id(0) * 4 + tl.arange(0, 4)
    tl.store(y + k, tl.load(x + k), mask=k < n)


@triton.jit
def into_another(x, y, n):
    k = tl.arange(0, 4)
    tl.store(x + 4 + k, tl.load(y + k), mask=tl.program_id(0) == 0)


@triton.jit
def before_the_start(x, y, n):
    k = tl.program_id(0) * 4 + tl.arange(0, 4)
    tl.store(y + k, tl.load(x - 1 + k, mask=k < n), mask=k < n)


@triton.jit
def reads_what_is_new(x, y, n):
    k = tl.program_id(0) * 4 + tl.arange(0, 4)
    tl.store(x + k, tl.load(y + k, mask=k < n), mask=k < n)


@triton.jit
def lanes_of_one_place(x, y, n):
    k = tl.program_id(0) * 4 + tl.arange(0, 4)
    tl.store(y + k // 2, tl.load(x + k, mask=k < n), mask=k < n)


@triton.jit
def stored_and_loaded(x, y, n):
    k = tl.program_id(0) * 4 + tl.arange(0, 4)
    back = tl.program_id(0) * 4 + 3 - tl.arange(0, 4)
    tl.store(y + k, tl.load(x + k, mask=k < n), mask=k < n)
    tl.store(x + k, tl.load(y + back, mask=back < n), mask=k < n)


@triton.jit
def turned_in_place(x, y, n):
    k = tl.program_id(0) * 4 + tl.arange(0, 4)
    back = tl.program_id(0) * 4 + 3 - tl.arange(0, 4)
    tl.store(x + k, tl.load(x + back, mask=back < n), mask=k < n)


@triton.jit
def stored_twice(x, y, n):
    k = tl.program_id(0) * 4 + tl.arange(0, 4)
    tl.store(y + k, 0.0, mask=k < n)
    tl.store(y + k, tl.load(x + k, mask=k < n), mask=k < n)


@triton.jit
def next_to_another(x, y, n):
    k = tl.program_id(0) * 4 + tl.arange(0, 4)
    tl.store(x + k, tl.load(x + k + 4, mask=k + 4 < n), mask=k < n)


@triton.jit
def all_to_one(x, y, n):
    tl.store(y + tl.arange(0, 4), tl.load(x + tl.arange(0, 4)))


@triton.jit
def waits(x, y, n):
    k = tl.program_id(0) * 4 + tl.arange(0, 4)
    back = tl.program_id(0) * 4 + 3 - tl.arange(0, 4)
    tl.store(y + k, tl.load(x + k, mask=k < n), mask=k < n)
    tl.debug_barrier()
    tl.store(x + k, tl.load(y + back, mask=back < n), mask=k < n)


@triton.jit
def one_sum(x, y):
    tl.store(y + tl.arange(0, 1), tl.sum(tl.load(x + tl.arange(0, 64)), axis=0, keep_dims=True))


@triton.jit
def another_sum(x, y):
    tl.store(y + tl.arange(0, 1), tl.sum(tl.load(x + tl.arange(0, 64)), axis=0, keep_dims=True))


MISTAKES: dict[Any, set[str]] = {
    past_the_end: {sanitizer.OUTSIDE},
    into_another: {sanitizer.OUTSIDE, sanitizer.UNWRITTEN},
    before_the_start: {sanitizer.OUTSIDE},
    reads_what_is_new: {sanitizer.UNWRITTEN},
    lanes_of_one_place: {sanitizer.TWICE},
    stored_and_loaded: {sanitizer.AFTER_STORE, sanitizer.AFTER_LOAD},
    turned_in_place: {sanitizer.AFTER_LOAD},
    stored_twice: {sanitizer.STORED_AGAIN},
    next_to_another: {sanitizer.LOAD_RACE},
    all_to_one: {sanitizer.STORE_RACE},
    waits: set(),
}


@pytest.mark.parametrize("kernel", MISTAKES, ids=lambda kernel: kernel.fn.__name__)
def test_a_mistake_is_reported(kernel: Any) -> None:
    memory = torch.randn(16)
    with sanitizer.watched() as watch:
        y = torch.empty(8)
        kernel[(2,)](memory[:6], y, 6)
    assert {report.kind for report in watch.reports} == MISTAKES[kernel]
    assert all(report.kernel == kernel.fn.__name__ and "tl." in report.line for report in watch.reports)


def test_another_order_of_sums() -> None:
    """What is asked of a number that two kernels compute is another answer in each."""
    x = torch.rand(64, dtype=torch.float64)
    with other_orders():
        totals = [torch.empty(1, dtype=torch.float64) for _ in range(2)]
        one_sum[(1,)](x, totals[0])
        another_sum[(1,)](x, totals[1])
    torch.testing.assert_close(totals[0], totals[1])
    assert not torch.equal(totals[0], totals[1])


CLEAN = [("SAGE_max", False), ("SAGE_max", True), ("EdgeConv", False)]


@pytest.mark.parametrize(("name", "hubs"), [*CLEAN, pytest.param("EdgeConv", True, marks=pytest.mark.slow)])
def test_a_program_is_clean(name: str, hubs: bool) -> None:
    with sanitize.small_hubs() if hubs else nullcontext():
        assert sanitize.mistakes(sanitize.of_collection(name, hubs)) == []


@pytest.mark.parametrize("seed", range(3))
def test_random_programs_are_clean(seed: int) -> None:
    assert sanitize.mistakes(sanitize.of_random(seed)) == []
