"""IR as text: a program as a list of equations that read like the language."""

from __future__ import annotations

from collections.abc import Mapping

from gdsl.ir.node import Node, users, walk
from gdsl.ir.program import Program

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==",
          "ne": "!=", "and": "and", "or": "or"}  # fmt: skip
_LEVEL = {"or": 1, "and": 2, "lt": 3, "le": 3, "gt": 3, "ge": 3, "eq": 3, "ne": 3, "add": 4, "sub": 4, "mul": 5,
          "div": 5, "neg": 6}  # fmt: skip
_ATOM = 9

# Operations in one line of text.
MAX_PARTS = 400


class Names:
    """Names for nodes: the user's where there are some, else ``t0``, ``t1``, ..."""

    def __init__(self, given: Mapping[Node, str]):
        self._names: dict[Node, str] = {}
        self._used: set[str] = set()
        self._counts: dict[str, int] = {}  # the last number that was tried, by name
        self._given = given

    def __getitem__(self, node: Node) -> str:
        if node not in self._names:
            name = self._given.get(node) or node.attr("name")
            self._names[node] = self._fresh(name)
        return self._names[node]

    def _fresh(self, name: str | None) -> str:
        base, first = name or "t", 0 if name is None else 1
        name = name or "t0"
        count = self._counts.get(base, first)
        while name in self._used:
            count += 1
            name = f"{base}{count}" if base == "t" else f"{base}_{count}"
        self._used.add(name)
        self._counts[base] = count
        return name


def describe(node: Node, names: Mapping[Node, str]) -> str:
    """A name for a node: the user's, else one that says what it holds, as ``max_score`` or ``sum_exp``."""
    given = names.get(node) or node.attr("name") or node.attr("what")
    if given:
        return str(given)
    if node.op == "segment":
        return f"{node.attr('reducer')}_{_short(node.inputs[0], names)}"
    if node.op in ("reshape", "transpose", "gather", "spread") and node.inputs[0] in names:
        return names[node.inputs[0]]
    return _WORDS.get(node.op, node.op)


def _short(node: Node, names: Mapping[Node, str]) -> str:
    return names.get(node) or _WORDS.get(node.op, node.op)


_WORDS = {
    "contract": "dot",
    "mul": "product",
    "where": "chosen",
    "add": "plus",
    "sub": "minus",
    "div": "ratio",
}


def expression(node: Node, names: Mapping[Node, str], *, root: bool = True) -> str:
    """The node as an expression over named nodes. What is more than ``MAX_PARTS`` operations away is left out as
    ``...``: without names a value that is used twice is written twice, and so is all below it."""
    return _Writer(names).write(node, root)[0]


class _Writer:
    def __init__(self, names: Mapping[Node, str]):
        self.names = names
        self.left = MAX_PARTS

    def write(self, node: Node, root: bool) -> tuple[str, int]:
        if not root and node in self.names:
            return self.names[node], _ATOM
        self.left -= 1
        if self.left < 0:
            return "...", _ATOM
        if node.op in _INFIX:
            level = _LEVEL[node.op]
            left = self.operand(node.inputs[0], level)
            right = self.operand(node.inputs[1], level + 1)
            return f"{left} {_INFIX[node.op]} {right}", level
        if node.op == "neg":
            return f"-{self.operand(node.inputs[0], 6)}", 6
        if node.op in _CALLS:
            level = _ATOM if node.op == "gather" else 0
            if node.op == "contract" and len(node.inputs) > 1:
                level = _LEVEL["mul"] + 1
            return _CALLS[node.op](node, [self.operand(i, level) for i in node.inputs])
        return f"{node.op}({', '.join(self.operand(i, 0) for i in node.inputs)})", _ATOM

    def operand(self, node: Node, level: int) -> str:
        text, own = self.write(node, False)
        return f"({text})" if own < level else text


def _const(node: Node, args: list[str]) -> tuple[str, int]:
    value = node.attr("value")
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, float) and float(text) != value:
        text = repr(value)
    return text, _ATOM if not text.startswith("-") else 6


def _contract(node: Node, args: list[str]) -> tuple[str, int]:
    over = ", ".join(node.attr("reduce"))
    dims = f"[{over}]" if over else ""
    head = f"total{dims}" if node.attr("total") else f"sum{dims}"
    return f"{head}({' * '.join(args)})", _ATOM


def _segment(node: Node, args: list[str]) -> tuple[str, int]:
    end = node.attr("end")
    by = f", by {args[1]}" if len(args) == 2 else ""
    return f"{node.attr('reducer')}@{end}({args[0]}{by})", _ATOM


def _scan(node: Node, args: list[str]) -> tuple[str, int]:
    """A fold: its step is a function of ``acc`` and of what it folds, which is called by its place."""
    leaves = {n: n.attr("name") for n in walk([node.attr("step")]) if n.op == "load"}
    names = {n: name if name == "acc" else args[int(name)] for n, name in leaves.items()}
    step, _ = _Writer(names).write(node.attr("step"), False)
    back = " backwards" if node.attr("reverse") else ""
    what = "fold" if node.attr("last") else "before"
    return f"{what}@{node.attr('end')}(acc = {step}{back}, from {node.attr('init'):g})", _ATOM


def _gather(node: Node, args: list[str]) -> tuple[str, int]:
    return f"{args[0]}[{node.attr('end')}]", _ATOM


def _reshape(node: Node, args: list[str]) -> tuple[str, int]:
    return f"reshape({args[0]}; {', '.join(node.type.names)})", _ATOM


_CALLS = {
    "const": _const,
    "contract": _contract,
    "segment": _segment,
    "scan": _scan,
    "gather": _gather,
    "reshape": _reshape,
    "load": lambda node, args: (node.attr("name"), _ATOM),
    "graph_value": lambda node, args: (node.attr("what"), _ATOM),
    "iota": lambda node, args: (f"iota({node.dims[0].name})", _ATOM),
    "transpose": lambda node, args: (f"transpose({args[0]}; {', '.join(node.type.names)})", _ATOM),
    "slice": lambda node, args: (
        f"slice({args[0]}; {node.attr('dim')} from {node.attr('start')} as "
        f"{node.dims[node.inputs[0].type.names.index(node.attr('dim'))].name})",
        _ATOM,
    ),
    "cat": lambda node, args: (f"cat({', '.join(args)}; {node.attr('new')})", _ATOM),
    "index": lambda node, args: (f"{args[0]}[{args[1]}]", _ATOM),
    "scatter": lambda node, args: (f"scatter({args[0]}, {args[1]}; {node.attr('dim')})", _ATOM),
    "reduce": lambda node, args: (f"{node.attr('reducer')}[{node.attr('dim')}]({args[0]})", _ATOM),
    "random": lambda node, args: (f"uniform({args[0]}, {node.attr('salt')})", _ATOM),
    "spread": lambda node, args: (args[0], _ATOM),
    "order_rank": lambda node, args: (f"rank@{node.attr('end')}({args[0]}, {node.attr('q'):g})", _ATOM),
    "call": lambda node, args: (f"{node.attr('module')}({', '.join(args)})", _ATOM),
}


def name_nodes(program: Program) -> dict[Node, str]:
    """Names for every node that deserves a line of its own: named by the user, an output, or used twice."""
    names = Names(program.names)
    found: dict[Node, str] = {}
    uses = users(program.nodes)
    outputs = set(program.nodes)
    parts: dict[Node, int] = {}  # of a node's line
    for node in walk(program.nodes):
        trivial = node.op in ("const", "iota", "graph_value")
        wanted = node.op == "load" or node in program.names or node in outputs or len(uses[node]) > 1
        parts[node] = 1 + sum(parts[i] for i in node.inputs)
        if (wanted or parts[node] > MAX_PARTS // 2) and not trivial:
            found[node] = names[node]
            parts[node] = 1
    return found


def print_program(program: Program) -> str:
    """One equation a line: ``alpha = exp(score - m[i]) / z[i]   # edge[heads]``."""
    names = name_nodes(program)
    lines = []
    for node, name in names.items():
        left = name
        right = f"{node.attr('role')}" if node.op == "load" else expression(node, names)
        lines.append((f"{left} = {right}", str(node.type)))
    width = min(max((len(text) for text, _ in lines), default=0), 88)
    body = [f"    {text.ljust(width)}  # {type}" for text, type in lines]
    written = [(name, names.get(node) or expression(node, names)) for name, node in program.outputs]
    results = ", ".join(name if name == text else f"{name} = {text}" for name, text in written)
    return "\n".join([f"program {program.name} {{", *body, f"    return {results}", "}"])
