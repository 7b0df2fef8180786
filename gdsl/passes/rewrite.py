"""The rewrite engine: a pass is a list of small rules, applied until none fires.

A rule looks at one node (its operands are rewritten already) and gives a replacement or None. Its docstring's
first line is ``before --> after``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gdsl.ir.node import Node, substitute
from gdsl.ir.program import Program

Rule = Callable[[Node], Node | None]

# The ops of the rules that ask for some.
_ops: dict[Rule, frozenset[str]] = {}


def on(*ops: str) -> Callable[[Rule], Rule]:
    """Of a rule: it replaces nodes of these ops alone."""

    def known(rule: Rule) -> Rule:
        @functools.wraps(rule)
        def asked(node: Node) -> Node | None:
            return rule(node) if node.op in ops else None

        _ops[asked] = frozenset(ops)
        return asked

    return known


class _ByOp(dict[str, tuple[Rule, ...]]):
    """Those of some rules that may replace a node, by its op."""

    def __init__(self, rules: tuple[Rule, ...]):
        super().__init__()
        self.rules = rules

    def __missing__(self, op: str) -> tuple[Rule, ...]:
        found = self[op] = tuple([rule for rule in self.rules if op in _ops.get(rule, (op,))])
        return found


# Most rules are about a few ops, and most rewrites are by the same rules.
_by_op = functools.lru_cache(maxsize=64)(_ByOp)

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
    tried = _by_op(tuple(rules))
    for _ in range(MAX_ROUNDS):
        fired: list[Fired] = []

        def change(node: Node, fired: list[Fired] = fired) -> Node | None:
            if node in settled:
                return None
            after = _first(node, tried[node.op], fired)
            if after is None:
                settled.add(node)
            return after

        mapping = substitute(program.nodes, change)
        if not fired:
            return program
        if log is not None:
            log.extend(fired)
        program = program.mapped(mapping)
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
