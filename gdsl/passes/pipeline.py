"""The passes in order, one page: optimise, differentiate, fuse."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gdsl.ir import build
from gdsl.ir.node import Node, substitute, users, walk, walk_below
from gdsl.ir.ops import ELEMENTWISE, of
from gdsl.ir.ops.adjoint import gradients
from gdsl.ir.ops.edges import held_by_ties
from gdsl.ir.ops.exchange import is_of_graph
from gdsl.ir.printer import describe
from gdsl.ir.program import Program
from gdsl.ir.types import ELEMENTS, Domain, Kind
from gdsl.passes import algebra, dense, distribute, fuse, handed, hoist, layout, simplify, vendor
from gdsl.passes.options import Options
from gdsl.passes.plan import Plan
from gdsl.passes.reassociate import reassociate
from gdsl.passes.rewrite import Fired, rewrite
from gdsl.passes.slots import is_dear
from gdsl.passes.tiles import streamed
from gdsl.passes.turns import ProgramPiece, pieces_of, why_not

# For each operand of a product it is asked anew which values the backward reads: of so many, in all, at most.
MOST_ASKED = 100_000

# What always helps, and what a program that is differentiated no more needs not keep.
RULES = [*simplify.RULES, *algebra.RULES, *distribute.RULES, *hoist.RULES]
LAST_RULES = [simplify.drop_stop_gradient, *RULES]


def optimise(program: Program, options: Options = Options(), log: list[Fired] | None = None) -> Program:  # noqa: B008
    """Simplify and hoist to a fixed point, and reorder what is cheaper in another order on the graph at hand.

    The result may still be differentiated.
    """
    return reassociate(rewrite(algebra.one_order(program, log), RULES, log), RULES, options, log)


def finish(program: Program, log: list[Fired] | None = None) -> Program:
    """The last rewrites before fusion, after which nothing is differentiated."""
    return rewrite(algebra.one_order(program, log), LAST_RULES, log)


def lower(program: Program, options: Options, log: list[Fired] | None = None) -> Plan:
    """From a program to a plan of kernels and torch steps."""
    complete, listed = options.shape.complete, options.shape.processes > 0
    if not options.optimise:
        return fuse.fuse(rewrite(program, [simplify.drop_stop_gradient]), complete=complete, listed=listed)
    last = rewrite(finish(program, log), [*layout.rules(options), *vendor.rules(options)], log)
    return fuse.fuse(last, complete=True) if complete else handed.fuse_and_hand(last, options.shape)


def in_pieces(program: Program, options: Options) -> tuple[Program, tuple[ProgramPiece, ...]]:
    """A program after the last rewrites, and its pieces: none where it goes through the edges in no turns."""
    if not options.in_turns:
        return program, ()
    last = finish(program) if options.optimise else rewrite(program, [simplify.drop_stop_gradient])
    return last, () if why_not(last) else pieces_of(last)


@dataclass(frozen=True)
class Adjoint:
    """A program that computes gradients, and what it needs from the program that it belongs to.

    program: outputs are the gradients, named after the inputs; its loads are inputs of the forward program, loads
             of role "saved" and loads of role "grad"
    wrt:     the inputs that have a gradient; the others have none
    saved:   nodes of the forward program that it reads, by the name of the load
    grads:   the loads of the gradients of the outputs, by output number
    """

    program: Program
    wrt: tuple[Node, ...]
    saved: tuple[tuple[Node, Node], ...]
    grads: tuple[tuple[int, Node], ...]

    def __repr__(self) -> str:
        return f"<Adjoint {self.program!r}, reads {len(self.saved)} saved values>"


def differentiate(
    program: Program,
    wrt: Sequence[Node],
    outputs: Sequence[int],
    keep: frozenset[Node] | None,
    options: Options,
    log: list[Fired] | None = None,
) -> Adjoint:
    """The adjoint of a program by some inputs, for gradients of some outputs.

    ``keep`` names the nodes that may be read from the forward pass; None lets :func:`worth_saving` choose.
    """
    grads, pairs, swap, on_the_way = _gradients(program, wrt, outputs, keep, options)
    mapping = substitute([g for _, g in pairs], swap)
    names = {**program.names, **{mapping[n]: name for n, name in program.names.items() if n in mapping}}
    for node, gradient in on_the_way.items():
        name = program.names.get(node) or (node.attrs.name if node.op == "load" else None)
        if name and gradient in mapping and mapping[gradient].op != "load":
            names.setdefault(mapping[gradient], f"d_{name}")
    names |= {load: describe(node, program.names) for node, load in swap.items()}
    outs = tuple((f"d_{x.attrs.name}", mapping[g]) for x, g in pairs)
    adjoint = Program(f"{program.name}_backward", outs, names)
    if options.optimise:
        adjoint = optimise(adjoint, options, log)
    used = set(adjoint.inputs)
    saved = tuple((node, load) for node, load in swap.items() if load in used)
    return Adjoint(adjoint, tuple(x for x, _ in pairs), saved, tuple(g for g in grads if g[1] in used))


def may_read(program: Program, wrt: Sequence[Node], keep: frozenset[Node], options: Options) -> frozenset[Node]:
    """The inputs of a program that an adjoint of it may read: by any of ``wrt``, for gradients of any outputs.

    Before they are rewritten, the gradients by fewer inputs and of fewer outputs are parts of those by all and of all,
    and no rewrite reads what was not read before.
    """
    _, pairs, swap, _ = _gradients(program, wrt, range(len(program.outputs)), keep, options)
    mapping = substitute([g for _, g in pairs], swap)
    return frozenset(program.inputs).intersection(walk([mapping[g] for _, g in pairs]))


def _gradients(
    program: Program, wrt: Sequence[Node], outputs: Sequence[int], keep: frozenset[Node] | None, options: Options
) -> tuple[tuple[tuple[int, Node], ...], list[tuple[Node, Node]], dict[Node, Node], dict[Node, Node]]:
    """The loads of the gradients of outputs, the gradient by each input that has one, the load that stands for each
    value that is read from the forward pass, and the gradients of what lies between. Nothing is rewritten yet."""
    grads = tuple((k, _grad_load(program, k)) for k in outputs if program.nodes[k].kind is Kind.FLOAT)
    seeds: dict[Node, Node] = {}
    for k, load in grads:
        node = program.nodes[k]
        seeds[node] = load if node not in seeds else seeds[node] + load
    on_the_way: dict[Node, Node] = {}
    found = gradients(seeds, wrt, on_the_way, "first" if options.choice("ties") == "first" else "split")
    pairs = [(x, g) for x, g in zip(wrt, found, strict=True) if g is not None]
    candidates = _worth_reading(program, [g for _, g in pairs], keep, options) if options.save else []
    # A product of matrices may be stored half as wide, as the user's own values; a statistic is not.
    swap = {
        node: build.load(saved_name(program, k), node.type, "product" if node.op == "contract" else "saved")
        for k, node in enumerate(candidates)
    }
    return grads, pairs, swap, on_the_way


def saved_name(program: Program, k: int) -> str:
    """A name that no load of the program has: an adjoint of an adjoint saves values of its own."""
    order = program.name.count("_backward")
    return f"saved{order or ''}_{k}"


def _grad_load(program: Program, k: int) -> Node:
    """Outputs of one name have gradients of their own: no name starts with a digit."""
    name, node = program.outputs[k]
    taken = any(name == other for other, _ in program.outputs[:k])
    return build.load(f"d_{k}_{name}" if taken else f"d_{name}", node.type, "grad")


def _worth_reading(program: Program, raw: Sequence[Node], keep: frozenset[Node] | None, options: Options) -> list[Node]:
    """Nodes of the forward program that the backward should read.

    What is an operand of a dense product lies in memory anyway, so that reading it spares the forward pass another
    write; but where its derivative needs more than the operand, both would be held, which pays where it takes an exp or
    the like to compute it again. All are read, or else each that makes no more numbers to hold. Of a sum that the BLAS
    adds up only the whole is ever stored.
    """
    forward = frozenset(walk(program.nodes))
    if keep is not None:
        return _forward_values(forward, raw, keep, options, frozenset())
    read_by = users(program.nodes)
    if options.shape.device == "cpu" and options.choice("save") == "auto":
        # What need not be whole is computed again where the backward needs it.
        forward -= streamed(program.nodes, read_by)
    sums = frozenset(n for n in read_by if dense.absorbed(n, read_by, program.nodes))
    operands = _dense_operands(program) & forward
    sums |= frozenset(n for n in operands if _is_heavy(n))
    found = _forward_values(forward, raw, keep, options, sums)
    others = _forward_values(forward, raw, keep, options, sums | operands)
    if _numbers(others) <= _numbers(found):
        return others
    if len(operands) * len(forward) > MOST_ASKED:
        return found
    for operand in (n for n in walk(program.nodes) if n in operands):
        others = _forward_values(forward, raw, keep, options, sums | {operand})
        if operand in others and _numbers(others) <= _numbers(found):
            found, sums = others, sums | {operand}
    return found


def _numbers(nodes: Sequence[Node]) -> int:
    return sum(n.type.numel for n in nodes)


def _dense_operands(program: Program) -> frozenset[Node]:
    """Values of nodes that a product left to the BLAS reads: elementwise ones, and several joined to one."""
    products = [n for n in walk(program.nodes) if n.op == "contract" and dense.is_dense(n)]
    read = {_reshaped(i) for n in products if n.domain not in ELEMENTS for i in n.inputs}
    made = (i for i in read if i.op in ELEMENTWISE or i.op == "cat")
    return frozenset(i for i in made if i.domain not in (*ELEMENTS, Domain.GLOBAL))


def _reshaped(node: Node) -> Node:
    """What a value is under other dims."""
    while node.op == "reshape":
        (node,) = node.inputs
    return node


def _is_heavy(node: Node) -> bool:
    """Whether an elementwise value takes a heavy function of the values that it is made of."""
    return any(of(n).heavy for n in walk_below([node], lambda n: n.inputs if n.op in ELEMENTWISE else ()))


def _forward_values(
    forward: frozenset[Node],
    raw: Sequence[Node],
    keep: frozenset[Node] | None,
    options: Options,
    stored: frozenset[Node],
) -> list[Node]:
    """Nodes of the forward program, nearest to the gradients, that the backward should read rather than compute.

    ``stored`` lie in memory whether or not the backward reads them.
    """
    found: dict[Node, None] = {}
    tied = frozenset() if options.choice("ties") == "first" else held_by_ties(raw)
    pairs = any(n.domain is Domain.PAIR for n in forward)
    chunked = options.in_turns and options.shape.chunks
    complete = options.shape.complete
    seen: set[Node] = set()
    stack = list(reversed(raw))
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        # Rows that come in chunks are not there any more.
        gone = chunked and node.domain is Domain.SOURCE and node.kind is Kind.FLOAT and not is_of_graph(node)
        # What no edge may lie in memory for.
        gone = gone or (complete and node.domain is Domain.EDGE)
        choice = "nothing" if gone else options.choice("save")
        free = node in stored and choice != "nothing"
        if node in keep if keep is not None else free or node in tied or worth_saving(node, forward, choice, pairs):
            found.setdefault(node)
        else:
            stack.extend(reversed(node.inputs))
    return list(found)


def worth_saving(node: Node, forward: Collection[Node], choice: str = "auto", pairs: bool = False) -> bool:
    """Whether the forward pass should keep a value: per-node results of a walk over edges or of a dense product.

    Edge values are not kept, but for those of few numbers and many multiplications, and for what is summed up or
    multiplied once an edge where there are ``pairs``, to which edges are what nodes are to edges; elementwise node
    values are cheaper to compute again than to hold. The winners of a maximum are kept although the forward result does
    not need them: finding them takes the same walk. By choice "all" node values are kept, or "nothing" but the winners,
    which only the forward pass can tell. What has come from other processes is kept, since it is slower to send again
    than to read.
    """
    if of(node).travels:
        return choice != "nothing" and node in forward
    if node.domain in (Domain.PAIR, Domain.GLOBAL) or of(node).leaf:
        return False
    if node.domain is Domain.EDGE and not (pairs and (of(node).aggregates or node.op == "contract")):
        return choice != "nothing" and node in forward and is_dear(node)
    if node.op == "segment" and node.kind is Kind.INT:
        return True
    if choice == "nothing" or node not in forward:
        return False
    if choice == "all":
        return node.kind is Kind.FLOAT and not of(node).arranges
    return of(node).aggregates or (node.op == "contract" and dense.is_dense(node))
