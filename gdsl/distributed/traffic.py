"""How many bytes a process sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch.distributed as dist
from torch import Tensor

from gdsl.runtime.answers import place


class Traffic:
    """Counts what this process sends in a block by the functions of ``torch.distributed``, as layers on a part of a
    graph call them. What DDP sends by itself is not seen.

        with gdsl.distributed.Traffic() as sent:
            model(x, graph)
        print(sent.rows, sent.reduced)

    rows     bytes of rows that went to other processes
    reduced  bytes of sums over all processes, 2 (p - 1) / p of a tensor for p processes, as a ring sends them
    agreed   how often processes told each other what they do
    calls    of each time that processes waited for each other, how many rows this one sent, and the bytes of one; of a
             sum, none and the bytes of the tensor
    """

    def __init__(self) -> None:
        self.rows, self.reduced, self.agreed = 0, 0.0, 0
        self.calls: list[tuple[int, int]] = []
        self._before: dict[str, Callable[..., Any]] = {}

    @property
    def total(self) -> float:
        return self.rows + self.reduced

    def __enter__(self) -> Self:
        watched: dict[str, Callable[..., None]] = {
            "all_to_all_single": self._seen_rows, "all_reduce": self._seen_sum, "all_gather": self._seen_agreement,
        }  # fmt: skip
        for name, seen in watched.items():
            self._before[name] = getattr(dist, name)
            setattr(dist, name, self._watching(self._before[name], seen))
        return self

    def __exit__(self, *error: object) -> None:
        for name, function in self._before.items():
            setattr(dist, name, function)

    def _watching(self, function: Callable[..., Any], seen: Callable[..., None]) -> Callable[..., Any]:
        def called(*args: Any, **options: Any) -> Any:
            seen(*args, **options)
            return function(*args, **options)

        return called

    def _seen_rows(
        self, output: Tensor, input: Tensor, output_split_sizes: Any = None, input_split_sizes: Any = None,
        group: Any = None, async_op: bool = False,
    ) -> None:  # fmt: skip
        rank, size = place(group)
        kept = input_split_sizes[rank] if input_split_sizes else len(input) // size
        width = input.nbytes // max(len(input), 1)
        self.rows += (len(input) - kept) * width
        self.calls.append((len(input) - kept, width))

    def _seen_sum(self, tensor: Tensor, op: Any = None, group: Any = None, async_op: bool = False) -> None:
        size = place(group)[1]
        self.reduced += 2 * (size - 1) / size * tensor.nbytes
        self.calls.append((0, tensor.nbytes))

    def _seen_agreement(self, *args: Any, **options: Any) -> None:
        self.agreed += 1

    def __repr__(self) -> str:
        return f"Traffic({self.rows:,} bytes of rows, {self.reduced:,.0f} of sums, {len(self.calls)} calls)"
