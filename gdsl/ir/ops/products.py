"""Products that are summed over dims and rows, and their adjoints: what an einsum says, with names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from gdsl.ir.attributes import BOOL, MOST, NAMES, Attrs, IRError, need
from gdsl.ir.node import Node, make
from gdsl.ir.ops.elementwise import broadcast, to_float
from gdsl.ir.ops.leaves import const
from gdsl.ir.ops.op import ATOM, Gradients, Op, Run, Sizes, Text, define, full, row_axes
from gdsl.ir.ops.views import transpose
from gdsl.ir.types import Dim, Domain, Kind, Type

if TYPE_CHECKING:
    from torch import Tensor

# torch names the dims of a product by letters, and one of them is for the rows.
MOST_DIMS = 25

# -------------------------------------------------------------------------------------- contract


class Contract(Attrs):
    reduce: Annotated[tuple[str, ...], NAMES]
    total: Annotated[bool, BOOL]


def contract(
    inputs: Sequence[Node], reduce: Iterable[str] = (), *, total: bool = False, order: Sequence[str] | None = None
) -> Node:
    """The product of the inputs, summed over the dims named in ``reduce``: an einsum with names.

    With ``total``, also summed over all rows of the domain: the result is global. ``order`` gives the order of
    the remaining dims; by default the order of :func:`gdsl.ir.build.broadcast`.
    """
    nodes = [to_float(n) for n in inputs]
    domain, dims = broadcast(nodes)
    reduced = set(reduce)
    missing = reduced - {d.name for d in dims}
    if missing:
        raise IRError(f"no dim `{min(missing)}` to sum over in {Type(domain, dims)}")
    kept = tuple(d for d in dims if d.name not in reduced)
    if order is not None:
        by_name = {d.name: d for d in kept}
        kept = tuple(by_name[name] for name in order)
    if total and domain is Domain.GLOBAL:
        raise IRError("a global value has no rows to sum over")
    attrs = Contract(tuple(d.name for d in dims if d.name in reduced), total)
    return make("contract", nodes, Type(Domain.GLOBAL if total else domain, kept), attrs)


def matmul(a: Node, b: Node) -> Node:
    """``a @ b``: contracts the last dim of a, which b must have; other shared names are batch dims."""
    if not a.dims:
        raise IRError(f"`@` needs a dim to sum over, and the left side is {a.type}", "use * for a product of numbers")
    last = a.dims[-1]
    if last.name not in b.type.names:
        raise IRError(
            f"`@` sums over `{last.name}`, the last dim of the left side, and the right side {b.type} has no such dim",
            f"rename a dim of the right side, or sum over another: the left side is {a.type}",
        )
    batch = [d.name for d in a.dims[:-1]]
    order = batch + [d.name for d in b.dims if d.name != last.name and d.name not in batch]
    return contract([a, b], [last.name], order=order)


def sum_dims(x: Node, dims: Iterable[str]) -> Node:
    return contract([x], dims)


def total(x: Node) -> Node:
    """The sum over all rows: global."""
    return contract([x], total=True)


def _contract_rule(node: Node) -> Node:
    _, dims = broadcast(node.inputs)
    need(len(dims) <= MOST_DIMS, f"a product has at most {MOST_DIMS} dims, not {len(dims)}")
    reduced = node.attrs.reduce
    kept = {d.name for d in dims} - set(reduced)
    need(set(node.type.names) == kept, f"{sorted(kept)} are left, and its type is {node.type}")
    return contract(node.inputs, reduced, total=node.attrs.total, order=node.type.names)


def _contract_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    import torch

    if len(args) == 1:
        return _sum(node, args[0], run)
    letters: dict[str, str] = {}
    for operand in node.inputs:
        for name in operand.type.names:
            letters.setdefault(name, "abcdefghijklmopqrstuvwxyz"[len(letters)])
    terms = []
    for operand in node.inputs:
        row = "" if operand.domain is Domain.GLOBAL else "n"
        terms.append(row + "".join(letters[n] for n in operand.type.names))
    lead = "" if node.domain is Domain.GLOBAL else "n"
    out = lead + "".join(letters[n] for n in node.type.names)
    tensors = [full(a, i.type, run) for a, i in zip(args, node.inputs, strict=True)]
    return torch.einsum(",".join(terms) + "->" + out, *tensors)


def _sum(node: Node, value: Tensor, run: Run) -> Tensor:
    operand = node.inputs[0].type
    rows = row_axes(operand)
    places = [operand.names.index(name) + rows for name in node.attrs.reduce]
    if node.attrs.total:
        places.append(0)
    value = full(value, operand, run)
    if places:
        value = value.sum(places)
    kept = [n for n in operand.names if n not in node.attrs.reduce]
    lead = row_axes(node.type)
    return value.permute([*range(lead), *(kept.index(n) + lead for n in node.type.names)])


def _contract_pull(node: Node, g: Node, ties: str) -> Gradients:
    parts: list[Node | None] = []
    for k, operand in enumerate(node.inputs):
        if operand.kind is not Kind.FLOAT:
            parts.append(None)
            continue
        others = [n for j, n in enumerate(node.inputs) if j != k]
        parts.append(product([g, *others], operand.type))
    return parts


def _contract_text(node: Node, args: list[str]) -> Text:
    over = ", ".join(node.attrs.reduce)
    dims = f"[{over}]" if over else ""
    head = f"total{dims}" if node.attrs.total else f"sum{dims}"
    return f"{head}({' * '.join(args)})", ATOM


def space(node: Node) -> tuple[Dim, ...]:
    """The dims over which a product multiplies."""
    return tuple({d.name: d for i in node.inputs for d in i.dims}.values())


def _contract_work(node: Node, sizes: Sizes) -> Any:
    """A multiplication less than operands, and an addition where something is summed."""
    domain = next((i.domain for i in node.inputs if i.domain is not Domain.GLOBAL), Domain.GLOBAL)
    each = len(node.inputs) - 1 + bool(node.attrs.reduce or node.attrs.total)
    return sizes.rows(domain) * sizes.numel(space(node)) * each


define(Op(
    name="contract", operands=(1, MOST), attrs=Contract, rule=_contract_rule, value=_contract_value,
    pull=_contract_pull, text=_contract_text, levels=lambda n: (6, 6) if len(n.inputs) > 1 else (0, 0), word="dot",
    work=_contract_work, rowwise=True, maps=True, commutes=True, reduces=True, computes=True,
))  # fmt: skip

# ---------------------------------------------------------------------------------------- spread


def spread(x: Node, domain: Domain) -> Node:
    """A global value as a value of a domain: the same for each row."""
    if x.domain is domain:
        return x
    if x.domain is not Domain.GLOBAL:
        raise IRError(f"{x.type} is not global")
    return make("spread", (x,), Type(domain, x.dims, x.kind, x.type.bound))


define(Op(
    name="spread", operands=(1, 1), rule=lambda n: spread(n.inputs[0], n.domain),
    value=lambda n, args, run: args[0].unsqueeze(0).expand(run.rows(n.domain), *n.type.shape),
    pull=lambda n, g, ties: [sum_to(g, n.inputs[0].type)], text=lambda n, args: (args[0], ATOM),
    look=True, exact=True, pointwise=True,
))  # fmt: skip

# ---------------------------------------------------------------------------- for pull-backs


def product(factors: list[Node], type: Type) -> Node:
    """The product of factors, reduced to a type: a product alone where nothing is summed, else a contraction."""
    domain, dims = broadcast(factors)
    names = {d.name for d in dims}
    surplus = [n for n in names if n not in type.names]
    everywhere = type.domain is Domain.GLOBAL and domain is not Domain.GLOBAL
    if not surplus and not everywhere:
        made = factors[0]
        for f in factors[1:]:
            made = made * f
        return spread_to(made, type)
    kept = [n for n in type.names if n in names]
    return spread_to(contract(factors, surplus, total=everywhere, order=kept), type)


def sum_to(g: Node, type: Type) -> Node:
    """A gradient, summed over what was broadcast from the type."""
    return product([g], type)


def spread_to(g: Node, type: Type) -> Node:
    """Repeat along dims that the gradient lacks, and put the dims in order."""
    missing = [d for d in type.dims if d.name not in g.type.names]
    if missing:
        g = g * const(1.0, missing)
    if g.domain is Domain.GLOBAL and type.domain is not Domain.GLOBAL:
        g = spread(g, type.domain)
    return transpose(g, type.names)
