"""What an op is: one definition, and the table of all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, get_type_hints

from gdsl.errors import GdslError
from gdsl.ir.attributes import Allowed, Attrs, IRError, need
from gdsl.ir.node import Node
from gdsl.ir.types import Dim, Domain, Type

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Gradients = Sequence[Node | None]
# A printed form and how strongly its outermost operator binds.
Text = tuple[str, int]
ATOM = 9


class Run(Protocol):
    """What a reference form knows besides its operands: the graph, the compute dtype and the device.

    rows: how many rows a value of a domain has
    ends: for each edge its node at an end; of pairs, for each pair its edge; for ``g``, for each node its graph
    travelled: what the processes of a distributed graph have together for a node, from the value of its operand; of
          another graph, the value itself
    """

    @property
    def graph(self) -> Any: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    def rows(self, domain: Domain) -> int: ...
    def ends(self, end: str, elements: Domain = ...) -> Tensor: ...
    def travelled(self, node: Node, value: Tensor) -> Tensor: ...


class Sizes(Protocol):
    """What work is counted in: numbers, or formulas.

    rows:  of a domain
    numel: places of some dims together
    """

    def rows(self, domain: Domain) -> Any: ...
    def numel(self, dims: tuple[Dim, ...]) -> Any: ...


class NotDifferentiable(GdslError):
    """An op has no derivative rule."""


def no_work(node: Node, sizes: Sizes) -> int:
    """Of an op that reads or moves numbers, and computes none."""
    return 0


def one_each(node: Node, sizes: Sizes) -> Any:
    """Of a function: one operation a number."""
    return sizes.rows(node.domain) * sizes.numel(node.dims)


def no_gradient(node: Node, g: Node, ties: str) -> Gradients:
    """Of an op that is constant, or that a user has taken for one."""
    return [None] * len(node.inputs)


def called(node: Node, args: list[str]) -> Text:
    """``op(a, b)``"""
    return f"{node.op}({', '.join(args)})", ATOM


@dataclass(frozen=True, kw_only=True)
class Op:
    """The definition of an op, the only place that knows what it means.

    operands: the fewest and the most
    attrs:    the class of its attributes
    rule:     the type rule: the node made once more by its constructor, from its operands, attributes, and of its type
              what the op leaves open. Raises :class:`gdsl.ir.attributes.IRError` for what does not fit
    value:    the reference form: from the tensors of the operands, each ``[rows of the domain, *dims]``, the node's;
              None where a run gives the value
    pull:     the pull-back: from the gradient of the result that of each operand, None for zero. Its last argument says
              whether equal maxima (minima) "split" a gradient, or the "first" gets it all. None where there is none
    text:     the printed form, from those of the operands
    levels:   how strongly the first operand, and the others, must bind to stand in it without parentheses
    word:     what a value is called that has no name
    work:     operations of all rows together. A function is one a number, be it an addition, a comparison or an exp;
              a multiplication with its addition is two
    cost:     the time of one of these operations, in that of an addition

    The traits, each with the property that ``tests/ir/test_traits.py`` holds it to:

    leaf:      it has no operands, and no step of a plan computes it
    view:      it moves no number: in memory the result is the operand, read otherwise
    arranges:  it computes no number, and only says where those of its operands stand
    look:      each number of the result is a number of its operand
    exact:     the same numbers when it is computed again from the same numbers, whatever else is computed with it
    rowwise:   a row of the result reads that row of each operand with rows, and only that
    pointwise: a place of the result reads that place of each operand only
    maps:      where an operand has one dim more, so has the result, and each place along it is by itself
    linear:    in its float operands together; it passes an infinity on, and no derivative multiplies by it
    heavy:     worth storing rather than computing twice
    reduces:   a place of the result takes all places of its operands along some dims
    aggregates: a row of the result takes many rows: edges of one node, or nodes of one graph
    commutes:  its operands may be swapped
    computes:  a kernel computes numbers for it, and does not only look at some
    singular:  where the value or a derivative may be infinite or NaN though all operands are finite: "" nowhere,
               "at zero" only where its last operand is 0 or has the wrong sign, "somewhere" at others too
    whole:     torch runs it on whole tensors: no kernel has it
    travels:   it takes what other processes of a distributed graph have, which all of them give together
    no_file:   why no program in a file has it; "" where it may
    """

    name: str
    operands: tuple[int, int]
    rule: Callable[[Node], Node]
    attrs: type[Attrs] = Attrs
    value: Callable[[Node, Sequence[Tensor], Run], Tensor] | None = None
    pull: Callable[[Node, Node, str], Gradients] | None = None
    text: Callable[[Node, list[str]], Text] = called
    levels: Callable[[Node], tuple[int, int]] = lambda node: (0, 0)
    word: str = ""
    work: Callable[[Node, Sizes], Any] = no_work
    cost: int = 1
    leaf: bool = False
    view: bool = False
    arranges: bool = False
    look: bool = False
    exact: bool = False
    rowwise: bool = False
    pointwise: bool = False
    maps: bool = False
    linear: bool = False
    heavy: bool = False
    aggregates: bool = False
    commutes: bool = False
    reduces: bool = False
    computes: bool = False
    singular: str = ""
    whole: bool = False
    travels: bool = False
    no_file: str = ""

    @functools.cached_property
    def fields(self) -> dict[str, Allowed]:
        """What each attribute may be."""
        hints = get_type_hints(self.attrs, include_extras=True)
        return {name: hints[name].__metadata__[0] for name in self.attrs.fields}


OPS: dict[str, Op] = {}


def define(op: Op) -> Op:
    """Add an op to the table."""
    assert op.name not in OPS, op.name
    OPS[op.name] = op
    return op


def of(node: Node) -> Op:
    """The definition of a node's op."""
    return OPS[node.op]


def end_of(node: Node) -> str | None:
    """The end of edges at which a node reads or reduces; None for an op that does neither."""
    return getattr(node.attrs, "end", None)


# ------------------------------------------------------------------------------ for type rules


def dim_of(x: Node, name: str) -> Dim:
    need(name in x.type.names, f"there is no dim {name!r} in {x.type}")
    return x.type.dim(name)


def check_dims(dims: Sequence[Dim]) -> None:
    seen: set[str] = set()
    for d in dims:
        if d.name in seen:
            raise IRError(f"dim `{d.name}` occurs twice", f"call the second one `{d.name}'`")
        if d.size < 0:
            raise IRError(f"dim `{d.name}` has size {d.size}")
        seen.add(d.name)


# ------------------------------------------------------------------------- for reference forms


def row_axes(type: Type) -> int:
    """How many axes a tensor has before those of its dims: one for rows, none for a global value."""
    return 0 if type.domain is Domain.GLOBAL else 1


def shape_of(type: Type, run: Run) -> tuple[int, ...]:
    """The shape of a tensor whose rows and dims are written out."""
    return (run.rows(type.domain), *type.shape) if row_axes(type) else type.shape


def full(value: Tensor, type: Type, run: Run) -> Tensor:
    """The tensor with its broadcast rows and dims written out."""
    shape = shape_of(type, run)
    return value if value.shape == shape and value.is_contiguous() else value.expand(shape).contiguous()


def align(value: Tensor, have: Type, want: Type) -> Tensor:
    """A view of the value that broadcasts against the wanted dims, matched by name."""
    rows, lead = row_axes(have), row_axes(want)
    order = [have.names.index(n) + rows for n in want.names if n in have.names]
    value = value.permute([*range(rows), *order])
    if lead > rows:
        value = value.unsqueeze(0)
    for place, name in enumerate(want.names):
        if name not in have.names:
            value = value.unsqueeze(place + lead)
    return value
