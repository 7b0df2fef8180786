"""Large programs a piece at a time, so that a pass that looks at a program as a whole takes time by its size.

A program is cut where few values pass from what is before to what is after: between the rounds of a loop. In a piece,
what others compute is a load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from gdsl.ir import build
from gdsl.ir.node import Node, substitute, users, walk_below
from gdsl.ir.ops import of
from gdsl.ir.program import Program

# Programs of up to this many operations are one piece. Others are cut into pieces of about so many.
MOST_WHOLE = 512
PIECE = 192


def by_pieces(program: Program, change: Callable[[Program], Program]) -> Program:
    """The program after a change that keeps what it computes, made piece by piece where there are many operations."""
    read_by = users(program.nodes)
    order = _by_depth(read_by)
    if len(order) <= MOST_WHOLE:
        return change(program)
    made: dict[Node, Node] = {}
    names = dict(program.names)
    pieces = [(piece, _read(piece)) for piece in _cut(order, read_by)]
    needed = {*program.nodes, *(n for _, read in pieces for n in read)}
    for piece, read in pieces:
        wanted = [n for n in piece if n in needed]
        loads = {n: build.load(f"{k}: {n.op}", n.type, "input") for k, n in enumerate(read)}
        mapping = substitute(wanted, loads)
        named = {mapping[n]: program.names[n] for n in piece if n in program.names and n in mapping}
        pairs = tuple((str(k), mapping[n]) for k, n in enumerate(wanted))
        changed = change(Program(program.name, pairs, named))
        whole = substitute(changed.nodes, {load: made[n] for n, load in loads.items()})
        made |= {n: whole[new] for n, new in zip(wanted, changed.nodes, strict=True)}
        names |= {whole[n]: name for n, name in changed.names.items() if n in whole and whole[n] not in names}
    return Program(program.name, tuple((name, made.get(n, n)) for name, n in program.outputs), names)


def _by_depth(read_by: dict[Node, list[Node]]) -> list[Node]:
    """The operations, each after its operands: as many steps behind the start as it needs, but for what is only read
    later, which comes right before that."""
    depth: dict[Node, int] = {}
    for node in read_by:
        depth[node] = 0 if of(node).leaf else 1 + max((depth[i] for i in node.inputs), default=0)
    for node in reversed(read_by):
        depth[node] = min((depth[u] for u in read_by[node]), default=depth[node] + 1) - 1
    return sorted((n for n in read_by if not of(n).leaf), key=lambda n: depth[n])


def _cut(order: Sequence[Node], read_by: dict[Node, list[Node]]) -> Iterable[Sequence[Node]]:
    """Pieces of about the same size, cut where the fewest values pass."""
    place = {n: k for k, n in enumerate(order)}
    change = [0] * (len(order) + 1)
    for node, k in place.items():
        last = max((place[u] for u in read_by[node]), default=k)
        change[k + 1] += 1
        change[last + 1] -= 1
    passing, count = [], 0
    for more in change:
        count += more
        passing.append(count)
    start = 0
    while len(order) - start > 2 * PIECE:
        places = range(start + PIECE // 2, start + 3 * PIECE // 2)
        stop = min(places, key=lambda k: (passing[k], abs(k - start - PIECE)))
        yield order[start:stop]
        start = stop
    yield order[start:]


def _read(piece: Sequence[Node]) -> list[Node]:
    """What other pieces compute for this one. It looks at values for itself, as rules ask where a value comes from."""
    inside = set(piece)

    def below(node: Node) -> tuple[Node, ...]:
        return node.inputs if node in inside or of(node).look else ()

    found = walk_below(piece, below)
    return [n for n in found if n not in inside and not (of(n).leaf or of(n).look)]
