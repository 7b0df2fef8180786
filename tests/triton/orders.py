"""Sums in another order in each kernel, in Triton's interpreter: as on a GPU, where it depends on how a kernel's blocks
lie in threads, and not as in NumPy, where a number that is computed again has the same bits."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from triton.runtime.interpreter import GridExecutor, ReduceOps


@contextmanager
def other_orders() -> Iterator[None]:
    """One order for each kernel, and for each shape of what is summed up in it; always the same ones."""
    running = ""
    run = GridExecutor.__call__

    def launched(executor: GridExecutor, *arguments: Any, **named: Any) -> None:
        nonlocal running
        running = executor.fn.__name__
        run(executor, *arguments, **named)

    def summed(reduce: ReduceOps, block: Any) -> Any:
        data, axis = block.handle.data, reduce.axis
        seed = zlib.crc32(f"{running} {data.ndim} {axis}".encode())
        order = np.random.default_rng(seed).permutation(data.shape[axis])
        # NumPy accumulates one after the other, and adds up in its own order otherwise.
        total = np.add.accumulate(data.take(order, axis), axis, dtype=data.dtype).take([-1], axis)
        return reduce.to_tensor(total if reduce.keep_dims else total.squeeze(axis), block.dtype)

    with mock.patch.object(GridExecutor, "__call__", launched), mock.patch.object(ReduceOps, "sum", summed):
        yield
