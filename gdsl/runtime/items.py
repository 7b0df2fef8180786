"""What a plan is made of when it is ready to run: how its values lie in memory, and its steps with what they read and
write."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from gdsl.codegen.storage import packed_buffers
from gdsl.codegen.values import c_type
from gdsl.ir.node import Node
from gdsl.ir.ops.edges import finds_winners
from gdsl.ir.types import Domain, Kind
from gdsl.passes.plan import Plan, TorchStep
from gdsl.runtime.dense import Product
from gdsl.runtime.frame import Frame

# The C++ names of what kernels compute with and count in.
C_TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
# Kernels read these, compute in float32, and write what is read again in float32.
HALF = (torch.bfloat16, torch.float16)
INDEX_TYPES = {torch.int32: "int32_t", torch.int64: "int64_t"}


def as_stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The value as kernels read it; nothing is done where it lies so already. The imaginary part of a conjugate has the
    memory of the number itself, and a mark that says minus."""
    if value._is_zerotensor():  # has no memory
        return torch.zeros(value.shape, dtype=dtype, device=value.device)
    if value.dtype is dtype and value.is_contiguous() and not value.is_neg():
        return value
    return value.to(dtype).contiguous().resolve_neg()


@dataclass(frozen=True)
class Storage:
    """How the values of a plan lie in memory.

    stored:  the dtype of what a user gives and gets
    dtype:   what kernels compute with
    index:   of the graph
    visible: how many of the outputs a user sees
    packed:  buffers of the stored dtype, where it is not the other
    """

    stored: torch.dtype
    dtype: torch.dtype
    index: torch.dtype
    visible: int
    packed: frozenset[Node]

    @property
    def names(self) -> tuple[str, str]:
        """What the code generators call the stored dtype and the index dtype."""
        return C_TYPES[self.stored], INDEX_TYPES[self.index]

    def of(self, node: Node) -> torch.dtype:
        """The dtype of a buffer: see :func:`gdsl.codegen.values.c_type`."""
        if node.kind is Kind.FLOAT:
            return self.stored if node in self.packed else self.dtype
        if node.kind is Kind.BOOL:
            return torch.bool
        return torch.int64 if c_type(node) == "int64_t" else self.index

    def of_part(self, node: Node, winner: bool) -> torch.dtype:
        """The dtype of what a chunk of a hub writes down: see :func:`gdsl.codegen.storage.partials`."""
        return self.index if finds_winners(node) and not winner else self.dtype


def storage_of(plan: Plan, dtype: torch.dtype, index: torch.dtype, visible: int) -> Storage:
    """How the values of a plan lie in memory for a user's dtype."""
    computed = torch.float32 if dtype in HALF else dtype
    return Storage(dtype, computed, index, visible, packed_buffers(plan, C_TYPES[dtype], visible))


class Launch(Protocol):
    """A compiled kernel."""

    def groups(self, frame: Frame) -> int:
        """How many partial sums it makes of each of its totals."""
        ...

    def __call__(self, reads: list[Tensor], writes: list[Tensor], groups: int, frame: Frame) -> Mapping[Node, Tensor]:
        """Fill the tensors of ``writes``. Returns what is to be added to totals besides the partial sums."""
        ...

    def by_rows(
        self, reads: list[Tensor], writes: list[Tensor], inner: Sequence[bool], frame: Frame
    ) -> Iterator[tuple[int, int]]:
        """Fill the tensors of ``writes`` some rows at a time: yields (first, last) after each. For ``BY_ROWS``.

        An ``inner`` tensor has room for some rows, which the next ones replace.
        """
        ...


@dataclass(frozen=True)
class Write:
    """A tensor that a kernel fills; ``domain`` is None for the partial sums of a total."""

    node: Node
    domain: Domain | None
    shape: tuple[int, ...]
    dtype: torch.dtype

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Of rows behind each other, and of the dims."""
        return tuple(math.prod(self.shape[k:]) for k in range(len(self.shape) + 1))


@dataclass(frozen=True)
class KernelItem:
    """A kernel and, worked out once, the tensors of a call of it."""

    launch: Launch
    reads: tuple[tuple[Node, torch.dtype], ...]
    writes: tuple[Write, ...]


@dataclass(frozen=True)
class TileItem:
    """A kernel and products of what it stores, in turns."""

    call: KernelItem
    products: tuple[TorchItem, ...]
    inner: frozenset[Node]


@dataclass(frozen=True)
class TorchItem:
    """A step of torch; ``product`` where that is a sum of matrix products, or a view, for these shapes.

    whole: whether what it reads has all its rows and dims written out
    """

    step: TorchStep
    reads: tuple[Node, ...]
    product: Product | None
    whole: bool


Item = KernelItem | TorchItem | TileItem
