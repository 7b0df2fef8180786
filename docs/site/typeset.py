r"""The rules of a program as an equation that is typeset: ``message m = w * h[j]`` as ``m_{ji} = w_{ji}\,h_j``.

What is read is the typed program as it is printed, so that branches are taken and loops unrolled as in the call that
made it. A value of nodes has the index i, one of edges j -> i the index ji.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gdsl.ir.types import Domain
from gdsl.language import ast
from gdsl.language.functions import SEGMENT_REDUCERS
from gdsl.language.parse import parse
from gdsl.language.program import TypedProgram

GREEK = "alpha beta gamma delta epsilon eps theta lambda mu nu phi psi rho sigma tau omega kappa eta".split()
BIG = {"sum": r"\sum", "mul": r"\prod", "max": r"\max", "min": r"\min"}
NAMED = {
    "exp": r"\exp",
    "log": r"\log",
    "tanh": r"\tanh",
    "sin": r"\sin",
    "cos": r"\cos",
    "max": r"\max",
    "min": r"\min",
}
WRITTEN = {"relu": "ReLU", "leaky_relu": "LeakyReLU", "elu": "ELU", "silu": "SiLU", "gelu": "GELU"}
# They say how dims are called or laid out, and compute nothing.
SILENT = {"rename", "merge", "split", "outer"}
SIGNS = {
    "==": "=", "!=": r"\neq", "<=": r"\leq", ">=": r"\geq", "and": r"\wedge", "or": r"\vee", "<": "<", ">": ">",
    "+": "+", "-": "-",
}  # fmt: skip
# How strongly an operator binds.
LEVELS = {"or": 1, "and": 2, "+": 4, "-": 4, "*": 5, "@": 5, "/": 6, "**": 7}
BIG_LEVEL, ATOM = 4, 9
LONGEST = 24  # rules of a program that is still read as an equation


def equation(program: TypedProgram, aggregations: Mapping[str, str]) -> str | None:
    """LaTeX of a program's rules, one a line; None where they are too many to be read as one.

    aggregations: what the modules that aggregate are called, such as ``{"aggr_module": "sum"}``
    """
    if not program.rules or len(program.rules) > LONGEST:
        return None
    source = "\n".join(rule.text for rule in program.rules)
    writer = _Writer({d.name: d.type.domain for d in program.declarations if d.type}, aggregations)
    lines = []
    for rule, typed in zip(parse(f"layer Shown {{ {source} }}").layer().body, program.rules, strict=True):
        assert isinstance(rule, ast.Rule)
        index = "j" if typed.type.domain is Domain.SOURCE else "i"
        right, _ = writer.write(rule.value, index)
        sign = r"\leftarrow" if rule.name in writer.domains else "="
        writer.domains[rule.name] = typed.type.domain
        left = writer.write(ast.Name(rule.name), index)[0]
        lines.append(rf"{left} &{sign} {right}")
    return r"\begin{aligned}" + "\\\\\n".join(lines) + r"\end{aligned}"


class _Writer:
    """Expressions to LaTeX, each with how strongly it binds."""

    def __init__(self, domains: dict[str, Domain], chosen: Mapping[str, str]):
        self.domains, self.chosen = domains, chosen

    def write(self, node: ast.Argument, index: str) -> tuple[str, int]:
        match node:
            case ast.Number():
                return f"{node.value:g}", ATOM
            case ast.Name():
                return _symbol(node.id) + self._place(node.id, index), ATOM
            case ast.Unary():
                sign = "-" if node.op == "-" else r"\neg "
                return sign + self._inside(node.operand, index, 6), 6
            case ast.Binary():
                return self._binary(node, index)
            case ast.Subscript():
                return self._subscript(node, index)
            case ast.Call():
                return self._call(node, index)
        return rf"\mathtt{{{_plain(str(getattr(node, 'value', '')))}}}", ATOM

    def _inside(self, node: ast.Argument, index: str, level: int) -> str:
        text, own = self.write(node, index)
        return rf"\left({text}\right)" if own < level else text

    def _place(self, name: str, index: str) -> str:
        domain = self.domains.get(name, Domain.GLOBAL)
        if domain in (Domain.NODE, Domain.SOURCE, Domain.TARGET):
            return f"_{{{index}}}"
        return {Domain.EDGE: "_{ji}", Domain.PAIR: "_{kji}", Domain.GRAPH: "_{g}"}.get(domain, "")

    def _binary(self, node: ast.Binary, index: str) -> tuple[str, int]:
        if node.op == "/":
            return rf"\frac{{{self.write(node.left, index)[0]}}}{{{self.write(node.right, index)[0]}}}", 6
        if node.op == "**":
            return f"{self._inside(node.left, index, ATOM)}^{{{self.write(node.right, index)[0]}}}", 7
        level = LEVELS.get(node.op, 3)
        left = self._inside(node.left, index, level)
        right = self._inside(node.right, index, level + (node.op in "-*@"))
        return (rf"{left}\,{right}" if node.op in "*@" else f"{left} {SIGNS[node.op]} {right}"), level

    def _subscript(self, node: ast.Subscript, index: str) -> tuple[str, int]:
        ends = [i.id for i in node.indices if isinstance(i, ast.Name) and i.id in ("i", "j")]
        if ends:
            return self.write(node.value, ends[0])
        places = ", ".join(self.write(i, index)[0] for i in node.indices)
        return f"{self._inside(node.value, index, ATOM)}[{places}]", ATOM

    def _call(self, node: ast.Call, index: str) -> tuple[str, int]:
        name = self.chosen.get(node.function, node.function)
        values = [a for a in node.arguments if not isinstance(a, ast.Named | ast.Arrow)]
        if name in SILENT and values:
            return self.write(values[0], index)
        if name == "cat":
            return r"\left[" + r" \,\Vert\, ".join(self.write(v, index)[0] for v in values) + r"\right]", ATOM
        inside = ", ".join(self.write(v, index)[0] for v in values)
        if name == "sqrt":
            return rf"\sqrt{{{inside}}}", ATOM
        if name == "abs":
            return rf"\left|{inside}\right|", ATOM
        if name == "norm" and not node.over:
            return rf"\left\Vert{{{inside}}}\right\Vert", ATOM
        below = ", ".join(self.write(d, index)[0] for d in node.over)
        reduces = name in SEGMENT_REDUCERS and len(values) == 1
        if not below and (reduces or "softmax" in name or node.function in self.chosen):
            below = r"i : j \to i" if node.at == "j" else r"j \to i"
        sign = (BIG if below else NAMED).get(name) or rf"\operatorname{{{WRITTEN.get(name, name)}}}"
        if below and name in BIG:
            return rf"{sign}_{{{below}}} {self._inside(values[0], index, BIG_LEVEL + 1)}", BIG_LEVEL
        return rf"{sign}{f'_{{{below}}}' if below else ''}\left({inside}\right)", ATOM


def _plain(name: str) -> str:
    return name.replace("_", r"\_")


def _symbol(name: str) -> str:
    """A letter as it is, a Greek one by its name, and a word upright; a number at its end, and primes, as such."""
    stem, number, primes = re.fullmatch(r"(.*?)(\d*)('*)", name).groups()
    if stem in GREEK:
        base = "\\" + {"eps": "varepsilon"}.get(stem, stem)
    else:
        base = stem if len(stem) == 1 else rf"\mathrm{{{_plain(stem)}}}"
    return (rf"{base}^{{({number})}}" if number else base) + primes
