"""What all aggregations share, and how one runs by itself."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.ir import build
from gdsl.ir.node import Node, substitute, walk
from gdsl.ir.types import Dim, Domain, Type
from gdsl.kept import Kept
from gdsl.language.modules import Reader, Unreadable, no_dropout
from gdsl.language.parts import Itself, states
from gdsl.language.program import Declaration, TypedProgram
from gdsl.module import compiled
from gdsl.module.api import find_layer
from gdsl.module.compilable import Compilable
from gdsl.module.host import stands_for
from gdsl.module.layer import Layer
from gdsl.module.ways import Text, text_for
from gdsl.nn.declared import Module, words
from gdsl.nn.grouped import count_in, reduced
from gdsl.passes.options import Options
from gdsl.runtime.dtypes import short
from gdsl.runtime.recent import grouped
from gdsl.runtime.spans import rows_of
from gdsl.runtime.together import longest
from gdsl.runtime.tracers import check_tracers, refuse

# A name for an aggregation in the names of its own parameters.
_ITSELF = "itself"

PROGRAM = """
layer Aggregation {
    module aggr
    edge x[channels]
    aggregate y = aggr(x)
    return y
}
"""


@stands_for("torch_geometric.nn.aggr.base", "Aggregation")
class _HostsAggregation(Module):
    """What torch_geometric's tools take for an aggregation of its own."""


class Aggregation(_HostsAggregation, Compilable):
    """Base of the aggregations. A class of a user's own overrides ``forward``, or ``read_aggregation`` to be fused."""

    def __init__(self) -> None:
        super().__init__()
        self._programs = Kept()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""

    def __prepare_scriptable__(self) -> nn.Module:
        """What ``torch.jit.script`` asks for first: only a ``forward`` of the class's own can be compiled there."""
        if type(self).forward is Aggregation.forward:
            refuse("torch.jit.script")
        return self

    # What a `forward` of a user's own may ask for, as of torch_geometric's base.

    def assert_index_present(self, index: Tensor | None) -> None:
        """Raises NotImplementedError where there is no index."""
        if index is None:
            raise NotImplementedError("Aggregation requires 'index' to be specified")

    def assert_sorted_index(self, index: Tensor | None) -> None:
        """Raises ValueError for rows that are not sorted by group."""
        if index is not None:
            _check_sorted(index)

    def assert_two_dimensional_input(self, x: Tensor, dim: int) -> None:
        """Raises ValueError for what is no [E, channels] with its rows first."""
        _check_rows(x)
        if dim not in (-2, 0):
            raise ValueError(f"Aggregation needs to perform aggregation in first dimension (got '{dim}')")

    def reduce(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
        reduce: str = "sum",
    ) -> Tensor:
        """Rows in groups, as in :meth:`forward`, by "sum", "mean", "max", "min", "mul" or "any", in torch.

        Raises RuntimeError where neither ``index`` nor ``ptr`` says the groups, and what :meth:`forward` raises.
        """
        if index is None and ptr is None:
            raise RuntimeError("Aggregation requires 'index' to be specified")
        check_dim(x, dim)
        index, size = groups_of(x.size(dim), x.device, index, ptr, dim_size)
        return reduced(x, index, size, dim, reduce)

    def to_dense_batch(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
        fill_value: float = 0.0,
        max_num_elements: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Rows [E, channels], sorted by group, as a block for each group: [groups, most, channels], padded with
        ``fill_value``, and the mask [groups, most] of the rows that are there.

        max_num_elements: rows of a group that are kept; without it, those of the largest group

        Raises NotImplementedError without an index, and ValueError for other shapes and for rows that are not sorted.
        """
        self.assert_index_present(index)
        self.assert_two_dimensional_input(x, dim)
        index, size = groups_of(len(x), x.device, index, None, dim_size)
        return dense_with_mask(x, index, size, fill_value, max_num_elements)

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        """The aggregate of an edge value in the IR.

        reader: loads a parameter of this module by its place in the layer's state
        path:   of this module in the layer
        end:    the end of the edges at which they meet: "i" or "j"
        rows:   where the result lives
        """
        raise Unreadable

    def plain(self, rows: Tensor, index: Tensor, size: int) -> Tensor | None:
        """The aggregate of whole or complex numbers, in torch: kernels have real ones. None where they have no meaning.

        rows:  [E, ...]; the result is [size, ...]
        index: [E] the group of each row
        """
        return None

    def run_parts(self, x: Tensor, index: Tensor, size: int) -> Tensor:
        """The same of rows [E, channels] in torch, where a part has to run: it has a hook, or no program reads it."""
        raise NotImplementedError(f"{type(self).__name__} has neither a `forward` nor a `read_aggregation` of its own")

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        """Aggregate rows.

        x:        [..., E, channels], with the rows in dimension ``dim``, or [E]. Whole numbers are summed, compared and
                  multiplied as such, and are real ones to other aggregations
        index:    [E] the group of each row; without it and ``ptr`` there is one group
        ptr:      [groups + 1] the groups as ranges of rows
        dim_size: the number of groups; without it the largest index plus one

        Raises ValueError for a ``dim`` that x does not have, for a ``dim_size`` that is too small, and for complex
        numbers where they have no meaning; :class:`gdsl.InputError` under a tracer that would not see the kernels.
        """
        if not torch.compiler.is_compiling():
            check_tracers((x, index))
        check_dim(x, dim)
        index, size = groups_of(x.size(dim), x.device, index, ptr, dim_size)
        x = x if x.layout is torch.strided else x.to_dense()
        rows = x.movedim(dim, 0)
        if not x.is_floating_point():
            found = self.plain(rows, index, size)
            if found is not None:
                return found.movedim(0, dim)
            if x.is_complex():
                raise ValueError(f"{type(self).__name__} is of real numbers, and `x` is {short(x.dtype)}")
            rows = rows.to(torch.get_default_dtype())
        flat = rows.reshape(rows.shape[0], -1) if rows.dim() != 2 else rows
        result: Any = (self._compiled if torch.compiler.is_compiling() else self._run)(flat, index, size)
        if rows.dim() == 1 and result.shape[1] == 1:
            return result.squeeze(1)
        width = 0 if not flat.shape[1] else result.shape[1] // flat.shape[1]
        if rows.dim() == 2 or (rows.dim() > 2 and width == 1):
            last = result.shape[1] // max(math.prod(rows.shape[1:-1]), 1)
            return result.reshape(size, *rows.shape[1:-1], last).movedim(0, dim)
        raise ValueError(f"{type(self).__name__} takes rows of one dimension, not of shape {list(rows.shape[1:])}")

    def _run(self, x: Tensor, index: Tensor, size: int) -> Any:
        program = self._program(x.shape[1])
        if program is None:
            return self.run_parts(x, index, size)
        return program.forward(graph=grouped(index, size), x=x)

    def _compiled(self, x: Tensor, index: Tensor, size: int) -> Any:
        """As an operator that torch.compile and torch.export record."""
        key = operator.index(x.shape[1]), compiled.state_of(self._children(), self._fields())
        if not self._is_read(key):
            return self.run_parts(x, index, size)
        graph = compiled.SymbolicGraph(torch.stack([index, index]), size, size)
        return compiled.run(self, key, {"x": x}, graph, None, None)

    def _children(self) -> list[nn.Module]:
        return [self]

    @compiled.constant_for_tracer
    def _is_read(self, key: Any) -> bool:
        return self._read(key) is not None

    def _staged(self, key: Any) -> compiled.Staged:
        found = self._read(key)
        assert found is not None  # it was asked for
        return found

    def _read(self, key: Any) -> compiled.Staged | None:
        """The program on parameters of this module by their names; None where a part has to run."""

        def make() -> compiled.Staged | Unreadable:
            m = build.load("x", Type(Domain.EDGE, (Dim("channels", key[0]),)), "input")
            try:
                out = self.read_aggregation(Reader(_ITSELF, no_dropout), _ITSELF, m, "i", Domain.NODE)
            except Unreadable as reason:
                return reason
            loads = [n for n in walk([out]) if n.op == "load" and n is not m]
            own = {n: build.load(n.attrs.name.removeprefix(f"{_ITSELF}."), n.type, "param") for n in loads}
            params = [Declaration(n.attrs.name, "param", n.type) for n in own.values()]
            declared = (Declaration("x", "input", m.type), *params)
            outputs = (("y", substitute([out], own)[out] if own else out),)
            typed = TypedProgram(type(self).__name__, (), declared, (), (), outputs, {m: "x"})
            return compiled.Staged.of(typed, Options(), "auto")

        found = self._programs.once((key, states([self])), make)
        return found if isinstance(found, compiled.Staged) else None

    def _program(self, channels: int) -> Layer | None:
        """The program of this aggregation; None where a part has to run."""
        owner = nn.Module()
        owner.aggr = itself = Itself(self)

        def make() -> Text | Unreadable:
            m = build.load("x", Type(Domain.EDGE, (Dim("channels", channels),)), "input")
            try:
                itself.read_aggregation(Reader("aggr", no_dropout), "aggr", m, "i", Domain.NODE)
            except Unreadable as reason:
                return reason
            return text_for(owner, find_layer(PROGRAM), {}, {"x": torch.empty(0, channels)})

        found = self._programs.once((channels, states([self])), make)
        return Layer._of(found, {"aggr": itself}) if isinstance(found, Text) else None

    __repr__ = words("")


def check_dim(x: Tensor, dim: int) -> None:
    """Raises ValueError for a dimension that x does not have."""
    if dim >= x.dim() or dim < -x.dim():
        raise ValueError(f"Encountered invalid dimension '{dim}' of source tensor with {x.dim()} dimensions")


def groups_of(
    rows: int, device: torch.device, index: Tensor | None, ptr: Tensor | None, dim_size: int | None
) -> tuple[Tensor, int]:
    """The group of each row, and how many there are."""
    if ptr is not None:
        groups = ptr.numel() - 1
        if dim_size not in (None, groups):
            raise ValueError(f"Encountered invalid 'dim_size' (got '{dim_size}' but expected '{groups}')")
        told = rows if torch.compiler.is_compiling() else None  # no number is known there
        return rows_of(ptr, told), groups
    if index is None:
        return torch.zeros(rows, dtype=torch.long, device=device), 1 if dim_size is None else dim_size
    if torch.compiler.is_compiling():
        return index, compiled.above(index) if dim_size is None else dim_size
    needed = count_in(index)
    if dim_size is not None and dim_size < needed:
        raise ValueError(f"Encountered invalid 'dim_size' (got '{dim_size}' but expected >= '{needed}')")
    return index, needed if dim_size is None else dim_size


def dense(x: Tensor, index: Tensor, size: int, fill: float = 0.0, most: int | None = None) -> Tensor:
    """The rows of each group as a block: [E, C] to [groups, most, C], padded with ``fill``.

    most: rows of a group that are kept; without it, those of the largest group

    Raises ValueError where the rows are not sorted by group, or are no rows of numbers.
    """
    return dense_with_mask(x, index, size, fill, most)[0]


def dense_with_mask(
    x: Tensor, index: Tensor, size: int, fill: float = 0.0, most: int | None = None
) -> tuple[Tensor, Tensor]:
    """The same, and which rows there are: [groups, most]."""
    _check_rows(x)
    _check_sorted(index)
    count = torch.bincount(index, minlength=size)
    width = longest(int(count.max()) if size else 0, x.device) if most is None else most
    # What a row of a group is moved by: groups begin at multiples of the width, and not one after the other.
    shift = torch.arange(size, device=x.device).mul_(width).sub_(count.cumsum(0)).add_(count)
    row = shift.index_select(0, index).add_(torch.arange(len(index), device=x.device))
    if most is not None:
        kept = row - index * width < width
        row, x = row[kept], x[kept]
    block = x.new_full((size * width, x.shape[1]), fill).index_copy(0, row, x)
    return block.view(size, width, x.shape[1]), torch.arange(width, device=x.device) < count.unsqueeze(1)


def _check_rows(x: Tensor) -> None:
    if x.dim() != 2:
        raise ValueError(f"Aggregation requires two-dimensional inputs (got '{x.dim()}')")


def _check_sorted(index: Tensor) -> None:
    if len(index) > 1 and int(index.diff().min()) < 0:
        raise ValueError("Can not perform aggregation since the 'index' tensor is not sorted")
