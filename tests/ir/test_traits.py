"""Each trait of an op against its meaning, on a small program of every op."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from gdsl.ir import build as b
from gdsl.ir.node import Node, walk
from gdsl.ir.ops import ELEMENTWISE, OPS, Op, of
from gdsl.ir.ops.adjoint import gradients
from gdsl.ir.ops.op import full
from gdsl.ir.types import Dim, Domain, Kind
from gdsl.passes.options import Options
from gdsl.passes.pipeline import lower
from gdsl.passes.plan import Kernel
from gdsl.runtime import reference
from tests.ir import every_op
from tests.ir.drive import GRAPHS, PLAIN, frame, program, runner

FRAME = frame(GRAPHS["mixed"], batch=torch.tensor([0, 0, 1, 1, 1, 2]), num_graphs=3)

NODES: dict[str, Node] = {
    f"{name}: {k}": node
    for name, p in every_op.programs().items()
    for k, node in enumerate(n for n in walk(p.nodes) if n.op == name.split()[0])
}


def with_trait(holds: Callable[[Op], object]) -> pytest.MarkDecorator:
    """The nodes of ops that have a trait."""
    found = [name for name, node in NODES.items() if holds(of(node))]
    assert found
    return pytest.mark.parametrize("name", found)


def rows_of(node: Node) -> int:
    return 0 if node.domain is Domain.GLOBAL else 1


def numbers(node: Node, seed: int) -> Tensor:
    """A tensor for a value: floats from 0.4 to 1.6, all different, or integers below its bound."""
    shape = (*((FRAME.rows(node.domain),) if rows_of(node) else ()), *node.type.shape)
    generator = torch.Generator().manual_seed(seed)
    if node.kind is Kind.FLOAT:
        return 0.4 + 1.2 * torch.rand(shape, generator=generator, dtype=torch.float64)
    if node.kind is Kind.BOOL:
        return torch.rand(shape, generator=generator) < 0.5
    return torch.randint(0, node.type.bound or 5, shape, generator=generator)


def operands(node: Node, seed: int = 0) -> list[Tensor]:
    return [numbers(i, seed + k) for k, i in enumerate(node.inputs)]


def value(node: Node, args: Sequence[Tensor]) -> Tensor:
    form = of(node).value
    assert form is not None
    return full(form(node, args, FRAME), node.type, FRAME)


def other(given: Tensor, at: tuple[int, ...], node: Node) -> Tensor:
    """The tensor with another number at a place."""
    new = given.clone()
    if node.kind is Kind.FLOAT:
        new[at] += 0.25
    elif node.kind is Kind.BOOL:
        new[at] = ~new[at]
    else:
        new[at] = (new[at] + 1) % (node.type.bound or 5)
    return new


def one_changed(node: Node) -> Iterator[tuple[Node, tuple[int, ...], Tensor]]:
    """For each number of each operand: the operand, the place, and where the result differs once it is another."""
    args = operands(node)
    before = value(node, args)
    for k, operand in enumerate(node.inputs):
        for flat in range(args[k].numel()):
            at = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), args[k].shape))
            changed = [*args[:k], other(args[k], at, operand), *args[k + 1 :]]
            after = value(node, changed)
            yield operand, at, (after != before) & ~((after != after) & (before != before))


@with_trait(lambda op: op.leaf)
def test_a_leaf_has_no_operands_and_no_step(name: str) -> None:
    node = NODES[name]
    assert not node.inputs
    plan = lower(program(b.to_float(node) * 2.0 if node.kind is not Kind.BOOL else node), PLAIN)
    assert all(node not in step.outputs for step in plan.steps)


def test_all_without_operands_are_leaves() -> None:
    assert {op.name for op in OPS.values() if op.operands == (0, 0)} == {op.name for op in OPS.values() if op.leaf}


@with_trait(lambda op: op.view)
def test_a_view_is_the_memory_of_its_operand(name: str) -> None:
    node = NODES[name]
    args = [a.contiguous() for a in operands(node)]
    form = of(node).value
    assert form is not None and of(node).arranges and of(node).look
    assert form(node, args, FRAME).untyped_storage().data_ptr() == args[0].untyped_storage().data_ptr()


@with_trait(lambda op: op.arranges or op.look)
def test_what_computes_nothing_has_the_numbers_of_its_operands(name: str) -> None:
    node = NODES[name]
    args = operands(node)
    have = {float(v) for a in args for v in a.flatten()}
    assert {float(v) for v in value(node, args).flatten()} <= have
    assert not of(node).computes


@with_trait(lambda op: op.arranges)
def test_what_arranges_reads_each_number_at_most_once(name: str) -> None:
    for _, _, differs in one_changed(NODES[name]):
        assert differs.sum() <= 1 or len(NODES[name].inputs) > 1  # a part of a cat may be repeated along the others


@with_trait(lambda op: op.exact)
def test_exact_ops_round_nothing(name: str) -> None:
    """In float32, a kernel gives bit for bit what torch gives, whatever is computed with it."""
    node = NODES[name]
    if node.domain is Domain.PAIR:
        return  # no program gives one
    shown = b.to_float(node)
    p = program(shown, shown * 3.0 + 1.0, b.elementwise("tanh", shown))
    given = [numbers(n, zlib.crc32(n.attrs.name.encode())) for n in p.inputs]
    values = [g.float() if g.is_floating_point() else g for g in given]
    single = FRAME._replace(dtype=torch.float32)
    found, wanted = (runner(p, backend, Options(), torch.float32)(values, single) for backend in ("cpp", "torch"))
    assert torch.equal(found[0], wanted[0])


@with_trait(lambda op: op.rowwise)
def test_a_row_reads_its_own_row(name: str) -> None:
    node = NODES[name]
    if node.op == "contract" and node.attrs.total:
        return  # a sum over the rows has none: it is rowwise where it has
    for operand, at, differs in one_changed(node):
        if rows_of(operand):
            assert not differs[[r for r in range(len(differs)) if r != at[0]]].any()


@with_trait(lambda op: op.pointwise)
def test_a_place_reads_its_own_place(name: str) -> None:
    node = NODES[name]
    for operand, at, differs in one_changed(node):
        for dim, place in zip(operand.type.names, at[rows_of(operand) :], strict=True):
            axis = node.type.names.index(dim) + rows_of(node)
            others = torch.arange(differs.shape[axis]) != place
            assert not differs.movedim(axis, 0)[others].any()


@with_trait(lambda op: op.reduces)
def test_what_reduces_keeps_the_places_of_the_other_dims(name: str) -> None:
    node = NODES[name]
    for operand, at, differs in one_changed(node):
        for dim, place in zip(operand.type.names, at[rows_of(operand) :], strict=True):
            if dim in node.type.names:
                axis = node.type.names.index(dim) + rows_of(node)
                others = torch.arange(differs.shape[axis]) != place
                assert not differs.movedim(axis, 0)[others].any()
    gone = {d for i in node.inputs for d in i.type.names} - set(node.type.names)
    assert gone or node.attrs.total


@with_trait(lambda op: op.aggregates)
def test_what_aggregates_stays_with_one_node(name: str) -> None:
    node, changed = NODES[name], 0
    ends = FRAME.ends(node.attrs.end, node.inputs[0].domain)
    for operand, at, differs in one_changed(node):
        if rows_of(operand):
            rows = differs.reshape(len(differs), -1).any(1).nonzero().flatten()
            owners = ends[rows] if node.domain is operand.domain else rows
            assert (owners == ends[at[0]]).all()
            changed += len(rows)
    assert changed


@with_trait(lambda op: op.maps)
def test_what_maps_takes_one_dim_more(name: str) -> None:
    node, more = NODES[name], Dim("more", 2)
    one, two = operands(node), operands(node, 50)
    for k, operand in enumerate(node.inputs):
        x = [b.load(f"x{j}", i.type, "input") for j, i in enumerate(node.inputs)]
        x[k] = b.load(f"x{k}", operand.type.with_dims((more, *operand.dims)), "input")
        wide = node.type.with_dims((more, *node.dims))
        again = b.transpose(of(node).rule(Node(node.op, tuple(x), wide, node.attrs)), wide.names)
        both = [*one[:k], torch.stack([one[k], two[k]], rows_of(operand)), *one[k + 1 :]]
        (found,) = reference.run([again], dict(zip(x, both, strict=True)), FRAME)
        for place, arg in enumerate((one[k], two[k])):
            wanted = value(node, [*one[:k], arg, *one[k + 1 :]])
            torch.testing.assert_close(found.select(rows_of(node), place), wanted, equal_nan=True)


@with_trait(lambda op: op.commutes)
def test_operands_that_commute_may_be_swapped(name: str) -> None:
    node, args = NODES[name], operands(NODES[name])
    x = [b.load(f"x{k}", i.type, "input") for k, i in enumerate(node.inputs)]
    again = b.transpose(of(node).rule(Node(node.op, tuple(x[::-1]), node.type, node.attrs)), node.type.names)
    (found,) = reference.run([again], dict(zip(x, args, strict=True)), FRAME)
    torch.testing.assert_close(found, value(node, args))


@with_trait(lambda op: op.linear)
def test_linear_ops_are_linear(name: str) -> None:
    node = NODES[name]
    one, two = operands(node), operands(node, 50)
    both = [2.0 * p - 3.0 * q for p, q in zip(one, two, strict=True)]
    torch.testing.assert_close(value(node, both), 2.0 * value(node, one) - 3.0 * value(node, two))
    infinite = [torch.full_like(one[0], torch.inf), *one[1:]]
    assert value(node, infinite).isinf().any()
    x = [b.load(f"x{k}", i.type, "input") for k, i in enumerate(node.inputs)]
    again = of(node).rule(Node(node.op, tuple(x), node.type, node.attrs))
    grads = gradients({again: b.load("g", node.type, "grad")}, x)
    reads = {n.attrs.name for g in grads if g is not None for n in walk([g]) if n.op == "load"}
    assert reads == {"g"}


@with_trait(lambda op: not op.leaf and op.pull is not None and op.singular == "" and op.name not in ELEMENTWISE)
def test_what_is_nowhere_singular_has_finite_derivatives(name: str) -> None:
    """At zeros, equal numbers and numbers of both signs. ``test_corners.py`` has the elementwise ops."""
    node = NODES[name]
    x = [b.load(f"x{k}", i.type, "input") for k, i in enumerate(node.inputs)]
    y = of(node).rule(Node(node.op, tuple(x), node.type, node.attrs))
    real = [n for n in x if n.kind is Kind.FLOAT]
    slopes = [g for g in gradients({y: b.load("g", y.type, "grad")}, real) if g is not None]
    curves = [c for g in slopes for c in gradients({g: b.load("g2", g.type, "grad")}, real) if c is not None]
    p = program(y, *slopes, *curves)
    corners = torch.tensor([0.0, 0.0, 1.0, -1.0, 0.5, 1.0, -0.0], dtype=torch.float64)
    values = [
        corners[torch.arange(v.numel()) % len(corners)].reshape(v.shape) if v.is_floating_point() else v
        for v in (numbers(n, 3) for n in p.inputs)
    ]
    for found in runner(p, "torch", PLAIN)(values, FRAME):
        assert found.isfinite().all() if found.is_floating_point() else True


@with_trait(lambda op: op.whole and op.name != "call")
def test_no_kernel_has_what_runs_as_a_whole(name: str) -> None:
    node = NODES[name]
    plan = lower(program(node), PLAIN)
    assert any(node in step.outputs and not isinstance(step, Kernel) for step in plan.steps)


def test_kernels_compute_no_leaf_and_no_whole() -> None:
    for op in OPS.values():
        assert not (op.computes and (op.leaf or op.whole or op.look or op.arranges)), op.name


@pytest.mark.parametrize("name", NODES)
def test_work_is_counted_in_numbers_and_in_formulas(name: str) -> None:
    """The same function of sizes, whatever these are: twice the rows are twice the work of what has rows."""

    class Sizes:
        def __init__(self, rows: int):
            self.count = rows

        def rows(self, domain: Domain) -> int:
            return 1 if domain is Domain.GLOBAL else self.count

        def numel(self, dims: Sequence[object]) -> int:
            found = 1
            for d in dims:
                found *= d.size  # type: ignore[attr-defined]
            return found

    node = NODES[name]
    one, two = of(node).work(node, Sizes(100)), of(node).work(node, Sizes(200))
    assert one >= 0
    assert two in (one, 2 * one)
    assert (one == 0) == (of(node).leaf or of(node).look or of(node).arranges or node.op in NOTHING)


# What only reads, and what torch computes as a whole and nobody compares.
NOTHING = {
    "stop_gradient", "index", "reverse", "order_rank", "bspline", "bspline_index", "exchange", "collect", "all_reduce",
    "support", "exchange_reverse", "exchange_pairs", "collect_pairs",
}  # fmt: skip


@with_trait(lambda op: op.travels)
def test_what_travels_is_the_value_itself_where_there_is_one_process(name: str) -> None:
    """And nothing else asks for other processes: `tests/distributed` has what it is where there are several."""
    node = NODES[name]
    args = operands(node)
    alone = {
        "exchange_reverse": lambda x: b.reverse(x, node.attrs.default),
        "exchange_pairs": lambda x: b.gather(x, "j"),
        "collect_pairs": lambda x: b.segment(x, "j", "sum", Domain.EDGE),
    }.get(node.op)
    assert torch.equal(value(node, args), args[0] if alone is None else value(alone(*node.inputs), args))


def test_nothing_else_travels() -> None:
    class Alone:
        """A run without other processes."""

        graph, dtype, device, rows, ends = FRAME.graph, FRAME.dtype, FRAME.device, FRAME.rows, FRAME.ends

    for node in NODES.values():
        form = of(node).value
        if form is not None and node.domain is not Domain.PAIR:
            if of(node).travels:
                with pytest.raises(AttributeError):
                    form(node, operands(node), Alone())
            elif node.op not in ("load", "random"):
                form(node, operands(node), Alone())
