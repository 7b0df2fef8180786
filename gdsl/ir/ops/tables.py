"""Tables of numbers that are known when a program is made, and sums of products with their non-zeros, written out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from gdsl.ir.attributes import NAMES, Allowed, Attrs, IRError, need, whole
from gdsl.ir.node import Node, make
from gdsl.ir.ops.elementwise import broadcast, to_float
from gdsl.ir.ops.op import ATOM, OPS, Gradients, Op, Run, Sizes, Text, check_dims, define, dim_of, full, row_axes
from gdsl.ir.ops.products import contract, space, sum_to
from gdsl.ir.types import Dim, Domain, Type

if TYPE_CHECKING:
    from torch import Tensor

# Kernels write out as many terms, and a table has as many places: more would be text that no compiler likes.
MOST_TERMS = 2048
MOST_NUMBERS = 2**20
# A table of so few non-zeros is written out also where hardly a number of it is 0.
SHORT_TABLE = 32
# The reference multiplies by a table as by a matrix, zeros and all, up to so many places for each non-zero.
_MOSTLY_ZERO = 16

NUMBERS = Allowed(
    "finite floats, not 0", lambda v: type(v) is tuple and all(type(x) is float and x and math.isfinite(x) for x in v)
)
PLACES = Allowed(
    "ints, in order",
    lambda v: type(v) is tuple and all(map(whole, v)) and all(a < b for a, b in itertools.pairwise((-1, *v))),
)


class Table(Attrs):
    places: Annotated[tuple[int, ...], PLACES]
    numbers: Annotated[tuple[float, ...], NUMBERS]


def table(numbers: Sequence[float], dims: Sequence[Dim]) -> Node:
    """Numbers in the order of the dims, the last one fastest: the same everywhere, and constant."""
    size = math.prod(d.size for d in dims)
    need(len(numbers) == size, f"a table has a number for each of its {size} places, not {len(numbers)}")
    return _of_entries({place: float(v) for place, v in enumerate(numbers) if v}, dims)


def _of_entries(entries: Mapping[int, float], dims: Sequence[Dim]) -> Node:
    """The non-zeros by their row-major places, in order."""
    check_dims(dims)
    size = math.prod(d.size for d in dims)
    need(size <= MOST_NUMBERS, f"a table has at most {MOST_NUMBERS} places, not {size}")
    need(all(0 <= place < size for place in entries), f"a number of a table stands at a place of {size}")
    return make("table", (), Type(Domain.GLOBAL, tuple(dims)), Table(tuple(entries), tuple(entries.values())))


def _table_rule(node: Node) -> Node:
    places, numbers = node.attrs.places, node.attrs.numbers
    need(len(places) == len(numbers), f"there are {len(numbers)} numbers, and places for {len(places)}")
    return _of_entries(dict(zip(places, numbers, strict=True)), node.dims)


def numbers_of(node: Node) -> list[float]:
    """All numbers of a table, with its zeros."""
    found = [0.0] * node.type.numel
    for place, number in zip(node.attrs.places, node.attrs.numbers, strict=True):
        found[place] = number
    return found


def _table_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    import torch

    return torch.tensor(numbers_of(node), dtype=torch.float64).to(run.device, run.dtype).view(node.type.shape)


def _table_text(node: Node, args: list[str]) -> Text:
    return f"table[{', '.join(node.type.names)}: {len(node.attrs.numbers)} non-zeros]", ATOM


define(Op(
    name="table", operands=(0, 0), attrs=Table, rule=_table_rule, value=_table_value,
    text=_table_text, leaf=True, exact=True,
))  # fmt: skip


# --------------------------------------------------------------------------------- table_product


class TableProduct(Attrs):
    places: Annotated[tuple[int, ...], PLACES]
    numbers: Annotated[tuple[float, ...], NUMBERS]
    dims: Annotated[tuple[str, ...], NAMES]
    reduce: Annotated[tuple[str, ...], NAMES]


def table_product(
    inputs: Sequence[Node], of_table: Node, reduce: Sequence[str], *, order: Sequence[str] | None = None
) -> Node:
    """The product of the inputs and a table, summed over some of the table's dims: a term for each non-zero.

    order: of the dims of the result; by default those of the table, then the others
    """
    nodes = [to_float(n) for n in inputs]
    if not nodes:
        raise IRError("a table is multiplied by something")
    domain, dims = broadcast(nodes)
    known = {d.name for d in dims}
    # What no input varies along is summed now.
    of_table = _summed(of_table, [name for name in reduce if name not in known])
    reduce = tuple(name for name in of_table.type.names if name in reduce)
    names = {d.name: d for d in (*of_table.dims, *dims) if d.name not in reduce}
    for d in dims:
        need(d.name not in of_table.type.names or of_table.type.dim(d.name) == d, f"`{d.name}` has two sizes")
    order = order or tuple(names)
    need(sorted(order) == sorted(names), f"the result has the dims {', '.join(names)}, not {', '.join(order)}")
    kept = tuple(names[name] for name in order)
    attrs = TableProduct(of_table.attrs.places, of_table.attrs.numbers, of_table.type.names, reduce)
    return make("table_product", nodes, Type(domain, kept), attrs)


def sum_over(x: Node, names: Sequence[str]) -> Node:
    """The sum over some dims. Of a product with a table, its terms, before anything is multiplied by its zeros."""
    factors, pending = [], [x]
    while pending:
        factor = pending.pop()
        if factor.op == "mul":
            pending += reversed(factor.inputs)
        else:
            factors.append(factor)
    order = [name for name in x.type.names if name not in names]
    return written_out(factors, names, order=order) or contract([x], names)


def written_out(
    factors: Sequence[Node], reduce: Sequence[str], *, total: bool = False, order: Sequence[str]
) -> Node | None:
    """A contraction of which one operand is a table that is worth writing out, so; None where there is none."""
    for k, of_table in enumerate(factors):
        others = [*factors[:k], *factors[k + 1 :]]
        if of_table.op != "table" or not others or not _worth_writing_out(of_table):
            continue
        own = [name for name in reduce if name in of_table.type.names]
        rest = [name for name in reduce if name not in of_table.type.names]
        if not rest and not total:
            return table_product(others, of_table, own, order=order)
        return contract([table_product(others, of_table, own)], rest, total=total, order=order)
    return None


def _worth_writing_out(of_table: Node) -> bool:
    """Whether a table has few non-zeros, absolutely and beside its zeros."""
    count = len(of_table.attrs.numbers)
    return count <= MOST_TERMS and (2 * count <= of_table.type.numel or count <= SHORT_TABLE)


def _summed(of_table: Node, gone: Sequence[str]) -> Node:
    if not gone:
        return of_table
    kept = [d for d in of_table.dims if d.name not in gone]
    sums = dict.fromkeys(itertools.product(*(range(d.size) for d in kept)), 0.0)
    for places, value in entries(of_table.attrs, of_table.dims):
        sums[tuple(p for p, d in zip(places, of_table.dims, strict=True) if d.name not in gone)] += value
    return table(tuple(sums.values()), kept)


def entries(attrs: Attrs, dims: Sequence[Dim]) -> Iterator[tuple[tuple[int, ...], float]]:
    """The non-zeros, each with its place along each dim."""
    for place, number in zip(attrs.places, attrs.numbers, strict=True):
        at: list[int] = []
        for d in reversed(dims):
            place, digit = divmod(place, d.size)
            at.append(digit)
        yield tuple(reversed(at)), number


def table_dims(node: Node) -> tuple[Dim, ...]:
    """The dims of the table of a product."""
    known = {d.name: d for d in (*node.dims, *space(node))}
    return tuple(known[name] for name in node.attrs.dims)


def terms(node: Node) -> dict[tuple[int, ...], list[tuple[dict[str, int], float]]]:
    """For each place of the kept dims of the table, its terms: where each dim of the table stands, and the number."""
    dims = table_dims(node)
    kept = [d for d in dims if d.name not in node.attrs.reduce]
    found: dict[tuple[int, ...], list[tuple[dict[str, int], float]]] = {
        at: [] for at in itertools.product(*(range(d.size) for d in kept))
    }
    for places, value in entries(node.attrs, dims):
        at = {d.name: place for d, place in zip(dims, places, strict=True)}
        found[tuple(at[d.name] for d in kept)].append((at, value))
    return found


def _product_rule(node: Node) -> Node:
    inner = {d.name: d for i in node.inputs for d in i.dims}
    dims = [inner[name] if name in inner else dim_of(node, name) for name in node.attrs.dims]
    need(len(node.attrs.places) == len(node.attrs.numbers), "there is a place for each number")
    return table_product(node.inputs, _whole(node, dims), node.attrs.reduce, order=node.type.names)


def _whole(node: Node, dims: Sequence[Dim]) -> Node:
    """The table of a product."""
    return _of_entries(dict(zip(node.attrs.places, node.attrs.numbers, strict=True)), dims)


def _dense(node: Node) -> Node:
    """The same as a contraction with the whole table."""
    of_table = _whole(node, table_dims(node))
    return contract([of_table, *node.inputs], node.attrs.reduce, order=node.type.names)


def _product_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    if math.prod(d.size for d in table_dims(node)) > _MOSTLY_ZERO * len(node.attrs.numbers):
        return _value_by_terms(node, args, run)
    dense = _dense(node)
    value = OPS["contract"].value
    assert value is not None
    return value(dense, [_table_value(dense.inputs[0], [], run), *args], run)


def _value_by_terms(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    """All terms, then their sums: what is 0 in the table is never multiplied, nor has a place in memory."""
    import torch

    dims = table_dims(node)
    names = [d.name for d in dims]
    rest = [d for d in node.dims if d.name not in names]
    letters = {d.name: letter for d, letter in zip(rest, "abcdefghijklmopqrsuvwxyz", strict=False)}
    places = torch.tensor(node.attrs.places, dtype=torch.long, device=run.device)
    place = dict(zip(names, torch.unravel_index(places, [d.size for d in dims]), strict=True))
    numbers = torch.tensor(node.attrs.numbers, dtype=torch.float64).to(run.device, run.dtype)
    tensors, texts = [numbers], ["t"]
    for operand, arg in zip(node.inputs, args, strict=True):
        value, lead = full(arg, operand.type, run), row_axes(operand.type)
        own = [n for n in operand.type.names if n in place]
        others = [n for n in operand.type.names if n not in place]
        axes = [lead + operand.type.names.index(n) for n in (*own, *others)]
        value = value.permute(*axes[: len(own)], *range(lead), *axes[len(own) :])
        tensors.append(value[tuple(place[n] for n in own)] if own else value)
        texts.append("t" * bool(own) + "n" * lead + "".join(letters[n] for n in others))
    lead = row_axes(node.type)
    every = torch.einsum(f"{','.join(texts)}->t{'n' * lead}{''.join(letters[d.name] for d in rest)}", *tensors)
    kept = [d for d in dims if d.name not in node.attrs.reduce]
    into = torch.zeros(len(numbers), dtype=torch.long, device=run.device)
    for d in kept:
        into = into * d.size + place[d.name]
    sums = every.new_zeros(math.prod(d.size for d in kept), *every.shape[1:]).index_add(0, into, every)
    sums = sums.view(*(d.size for d in kept), *every.shape[1:])
    found = [d.name for d in kept] + [""] * lead + [d.name for d in rest]
    return sums.permute(*(found.index(n) for n in ([""] * lead + list(node.type.names))))


def _product_pull(node: Node, g: Node, ties: str) -> Gradients:
    """The same table, read from another side."""
    of_table = _whole(node, table_dims(node))
    parts: list[Node | None] = []
    for k, operand in enumerate(node.inputs):
        others = [n for j, n in enumerate(node.inputs) if j != k]
        gone = [name for name in node.attrs.dims if name not in operand.type.names]
        parts.append(sum_to(table_product([g, *others], of_table, gone), operand.type))
    return parts


def _product_text(node: Node, args: list[str]) -> Text:
    head = f"table[{', '.join(node.attrs.dims)}: {len(node.attrs.numbers)} non-zeros]"
    over = f"[{', '.join(node.attrs.reduce)}]" if node.attrs.reduce else ""
    return f"sum{over}({' * '.join([head, *args])})", ATOM


def _product_work(node: Node, sizes: Sizes) -> Any:
    """A multiplication for each input and an addition, for each non-zero and each place of the other dims."""
    rest = tuple(d for d in space(node) if d.name not in node.attrs.dims)
    return sizes.rows(node.domain) * sizes.numel(rest) * len(node.attrs.numbers) * (len(node.inputs) + 1)


define(Op(
    name="table_product", operands=(1, 8), attrs=TableProduct, rule=_product_rule, value=_product_value,
    pull=_product_pull, text=_product_text, word="terms", work=_product_work, rowwise=True, maps=True, commutes=True,
    heavy=True, computes=True,
))  # fmt: skip
