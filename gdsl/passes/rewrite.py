"""The rewrite engine: a pass is a list of small rules, applied until none fires.

A rule looks at one node (its operands are rewritten already) and gives a replacement or None. Its docstring's
first line is ``before --> after``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gdsl.ir.node import Node, substitute
from gdsl.ir.program import Program

Rule = Callable[[Node], Node | None]

# Rules only ever simplify or move work to fewer rows, so a few rounds reach the fixed point; more mean a loop.
MAX_ROUNDS = 50


@dataclass(frozen=True)
class Fired:
    """One application of a rule, for the ledger of ``explain``."""

    rule: str
    before: Node
    after: Node


def rewrite(
    program: Program, rules: Sequence[Rule], log: list[Fired] | None = None, settled: set[Node] | None = None
) -> Program:
    """Apply the rules bottom up until nothing changes.

    ``settled`` are nodes on which none of these rules fires, and gets more of them: a rule asks nothing but the node.
    """
    settled = set() if settled is None else settled
    for _ in range(MAX_ROUNDS):
        fired: list[Fired] = []

        def change(node: Node, fired: list[Fired] = fired) -> Node | None:
            if node in settled:
                return None
            after = _first(node, rules, fired)
            if after is None:
                settled.add(node)
            return after

        mapping = substitute(program.nodes, change)
        if not fired:
            return program
        if log is not None:
            log.extend(fired)
        program = program.with_outputs([mapping[n] for n in program.nodes], mapping)
    raise AssertionError(f"rules do not reach a fixed point: {sorted({f.rule for f in fired})}")


def _first(node: Node, rules: Sequence[Rule], fired: list[Fired]) -> Node | None:
    for rule in rules:
        after = rule(node)
        if after is not None and after is not node:
            if after.type != node.type:
                raise AssertionError(f"{rule.__name__}: {node.type} --> {after.type}")
            fired.append(Fired(rule.__name__, node, after))
            return after
    return None
