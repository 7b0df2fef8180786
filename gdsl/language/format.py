"""The formatter: a program back as text, the same program when parsed again, comments kept.

One statement a line, four spaces a level, at most one blank line in a row. A block of one statement that stands on one
line in the source stays there.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gdsl.language import ast
from gdsl.language.parse import syntax
from gdsl.language.program import ConstantTable
from gdsl.language.tree import CONSTANTS

INDENT = "    "
WIDTH = 120

# Calls whose arguments after the first are dims.
_OF_DIMS = ("merge", "split", "transpose", "rename")

# How tightly an operator binds: an operand of a looser one gets parentheses.
_LEVEL = {"or": 1, "and": 2, "not": 3, "+": 5, "-": 5, "*": 6, "/": 6, "@": 6, "**": 8}
_COMPARISON, _SIGN, _POSTFIX, _ATOM = 4, 7, 9, 10


def format_text(text: str, filename: str | None = None) -> str:
    """The canonical form of a text. Raises LanguageError when it does not parse."""
    return format_program(syntax(text, filename))


def format_program(program: ast.Program) -> str:
    """The canonical form of a program; comments come from ``program.source``."""
    return _Formatter(program.source).program(program)


# ------------------------------------------------------------------------------------ expressions


def level(e: ast.Tree) -> int:
    if isinstance(e, ast.Binary):
        return _LEVEL.get(e.op, _COMPARISON)
    if isinstance(e, ast.Unary):
        return _LEVEL["not"] if e.op == "not" else _SIGN
    if isinstance(e, ast.Subscript | ast.Over) or (isinstance(e, ast.Call) and (e.at or e.by)):
        return _POSTFIX
    return _ATOM


def expression(e: ast.Tree, names: Mapping[str, object] | None = None) -> str:
    """An expression as text; ``names`` are replaced by their values, as for the index of an unrolled loop."""
    names = names or {}

    def at_least(child: ast.Tree, lowest: int, is_dim: bool = False) -> str:
        text = write(child, is_dim)
        return text if level(child) >= lowest else f"({text})"

    def several(items: Sequence[ast.Tree], are_dims: bool = False) -> str:
        return ", ".join(write(item, are_dims) for item in items)

    def write(e: ast.Tree, is_dim: bool = False) -> str:
        match e:
            case ast.Number():
                text = e.text or repr(e.value)
                return text + "0" if text.endswith(".") else text
            case ast.Text():
                return f'"{e.value}"'
            case ast.Boolean():
                return "true" if e.value else "false"
            case ast.Nothing():
                return "none"
            case ast.Name():
                return str(names.get(e.id, e.id))
            case ast.Unary(op="not"):
                return "not " + at_least(e.operand, _LEVEL["not"])
            case ast.Unary():
                return e.op + at_least(e.operand, _SIGN)
            case ast.Binary(op="**"):
                return at_least(e.left, _POSTFIX) + "**" + at_least(e.right, _SIGN)
            case ast.Binary():
                own = level(e)
                # Comparisons do not chain; and nobody remembers which of * and @ comes first.
                mixed = (
                    isinstance(e.left, ast.Binary)
                    and e.left.op != e.op
                    and level(e.left) == own
                    and "@" in e.op + e.left.op
                )
                left = at_least(e.left, own + 1 if own == _COMPARISON or mixed else own, is_dim)
                # A dim is written as its name is shown: heads*width.
                op = e.op if is_dim and e.op in "+-*/" else f" {e.op} "
                return f"{left}{op}{at_least(e.right, own + 1, is_dim)}"
            case ast.Subscript():
                base = write(e.value)
                plain = level(e.value) >= (_POSTFIX if isinstance(e.value, ast.Subscript) else _ATOM)
                return f"{base if plain else f'({base})'}[{several(e.indices)}]"
            case ast.Named():
                return f"{e.name} = {write(e.value)}"
            case ast.Arrow():
                return f"{write(e.old, True)} -> {write(e.new, True)}"
            case ast.Values():
                return f"[{several(e.items)}]"
            case ast.Dim():
                return write(e.size, True) if e.start is None else f"{write(e.start, True)}..{write(e.size, True)}"
            case ast.Call():
                over = f"[{several(e.over, True)}]" if e.over else ""
                dims = f"; {several(e.dims, True)}" if e.dims else ""
                first = 1 if e.function in _OF_DIMS else len(e.arguments)
                arguments = ", ".join(write(a, k >= first) for k, a in enumerate(e.arguments))
                by = f" by {write(e.by)}" if e.by is not None else ""
                at = f" at {e.at}" if e.at else ""
                return f"{e.function}{over}({arguments}{dims}){by}{at}"
            case ast.Over():
                return f"{at_least(e.value, _POSTFIX)} over {e.graph}"
        raise TypeError(f"not an expression: {type(e).__name__}")

    return write(e)


# ------------------------------------------------------------------------------------- statements


def statement(s: ast.Statement, names: Mapping[str, object] | None = None) -> str:
    """A statement without a block, on one line."""

    def write(e: ast.Tree) -> str:
        return expression(e, names)

    match s:
        case ast.Declaration():
            dims = f"[{', '.join(write(d) for d in s.dims)}]" if s.dims else ""
            bound = f"({write(s.kind.bound)})" if s.kind and s.kind.bound else ""
            kind = f": {s.kind.name}{bound}" if s.kind else ""
            init = f" ~ {write(s.init)}" if s.init else ""
            default = f" = {write(s.default)}" if s.default else ""
            within = f" in {s.within}" if s.within else ""
            if s.role == "graph" and not (dims or kind or init or default):
                dims = "[]"  # `graph u` alone would read as a transform
            return f"{s.role} {s.name}{dims}{kind}{within}{init}{default}"
        case ast.Sets():
            return f"nodes {', '.join(write(name) for name in s.names)}"
        case ast.Graphs():
            return f"graph {', '.join(link(one) for one in s.links)}"
        case ast.Transform():
            arguments = f"({', '.join(write(a) for a in s.arguments)})" if s.arguments else ""
            return f"graph {s.name}{arguments}" + (f" over {s.over}" if s.over else "")
        case ast.Constant():
            dims = f"[{', '.join(write(d) for d in s.dims)}]" if s.dims else ""
            return f"const {s.name}{dims}" + (f" = {write(s.value)}" if s.value else "")
        case ast.Module():
            stands = "none" if s.optional else s.function
            return f"module {s.name}" + (f" = {stands}" if stands else "")
        case ast.Owned():
            count = f"[{write(ast.Dim(s.count))}]" if s.count else ""
            sizes = " -> ".join(write(ast.Dim(size)) for size in s.sizes)
            more = "".join(f", {write(a)}" for a in s.arguments)
            ending = (f" ~ {write(s.init)}" if s.init else "") + " = none" * s.optional
            return f"{s.kind} {s.name}{count}({sizes}{more}){ending}"
        case ast.Instance():
            count = f"[{write(ast.Dim(s.count))}]" if s.count else ""
            return f"use {s.name}{count} = {s.layer}({', '.join(write(a) for a in s.arguments)})"
        case ast.Rule():
            over = f" over {s.over}" if s.over else ""
            return f"{s.kind} {s.name}{over} = {write(s.value)}".lstrip()
        case ast.Function():
            return f"def {s.name}({', '.join(s.parameters)}) = {write(s.body)}"
        case ast.Reducer():
            head = f"reduce {s.name}({', '.join(s.parameters)})"
            return f"{head} = {write(s.body)} init {write(s.initial)}"
        case ast.Return():
            return "return " + ", ".join(write(v) for v in s.values)
    raise TypeError(f"not a simple statement: {type(s).__name__}")


def link(s: ast.Link) -> str:
    """A graph, and the sets of nodes that it joins."""
    return s.name if s.source is None or s.target is None else f"{s.name}: {s.source.id} -> {s.target.id}"


def use(s: ast.Use) -> str:
    """What a text uses of another, on one line."""
    names = ", ".join(name if name == layer else f"{name} = {layer}" for name, layer in s.layers)
    return f"use {names}" + (f' from "{s.path}"' if s.path is not None else "")


def default_value(value: int | float | bool | str | ConstantTable | None) -> str:
    """A layer argument's default, or its value, as text."""
    if isinstance(value, ConstantTable):
        return repr(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, str):
        return f'"{value}"'
    for name, constant in CONSTANTS.items():
        if abs(value) == constant:
            return name if value > 0 else f"-{name}"
    return re.sub(r"e([+-])0+", r"e\1", repr(value))


def header(layer: ast.Layer) -> str:
    parameters = [p.name if p.required else f"{p.name} = {default_value(p.default)}" for p in layer.parameters]
    return f"layer {layer.name}({', '.join(parameters)})" if parameters else f"layer {layer.name}"


def _folded(text: str, indent: str) -> str:
    """A long statement on several lines, which begin with a plus or minus that is in no brackets."""
    places, open_brackets = [0], 0
    for m in re.finditer(r'"[^"\n]*"|[][(){}]| (?=[+-] )', text):
        open_brackets += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(m.group(), 0)
        if m.group() == " " and not open_brackets:
            places.append(m.start())
    lines = [""]
    for start, end in itertools.pairwise([*places, len(text)]):
        part = text[start:end]
        if lines[-1].strip() and len(lines[-1]) + len(part) > WIDTH:
            lines.append(indent + part[1:])
        else:
            lines[-1] += part
    return "\n".join(lines)


def _wrapped(head: str) -> str:
    """A layer's header on as many lines as it takes: the next ones begin under the first argument."""
    lines, indent = [], " " * (head.find("(") + 1)
    while len(head) + len(" {") > WIDTH:
        cut = head.rfind(", ", len(indent), WIDTH)
        if cut < 0:
            break
        lines.append(head[: cut + 1])
        head = indent + head[cut + 2 :]
    return "\n".join([*lines, head])


# --------------------------------------------------------------------------------------- comments

_COMMENT = re.compile(r'"[^"\n]*"|(#[^\n]*)')
_BRACES = re.compile(r'"[^"\n]*"|#[^\n]*|([{}])')


@dataclass
class _Formatter:
    """Writes lines while walking the tree and the source's comments side by side."""

    source: str

    def __post_init__(self) -> None:
        self.lines: list[str] = []
        self.comments = [(m.start(1), m.end(1)) for m in _COMMENT.finditer(self.source) if m.group(1)]
        self.next = 0  # the first comment that is not yet written
        self.done = 0  # the place in the source up to which everything is written
        self.partner: dict[int, int] = {}
        stack: list[int] = []
        for m in _BRACES.finditer(self.source):
            if m.group(1) == "{":
                stack.append(m.start())
            elif m.group(1) == "}" and stack:
                self.partner[stack.pop()] = m.start()
        self.opens = sorted(self.partner)

    def program(self, program: ast.Program) -> str:
        trees: list[ast.Layer | ast.Use] = sorted([*program.uses, *program.layers], key=lambda tree: tree.span.start)
        for k, tree in enumerate(trees):
            if isinstance(tree, ast.Use):
                self.gap(tree.span.start, 0)
                self.own_line_comments(tree.span.end, 0, inside=True)
                self.line(use(tree), tree.span.end, 0)
                continue
            if not self.source and k:
                self.lines.append("")
            self.block(tree.span, _wrapped(header(tree)), tree.body, tree.span.start, 0)
        self.own_line_comments(len(self.source), 0)
        return "\n".join(self.lines).rstrip("\n") + "\n"

    def statements(self, body: Sequence[ast.Statement], depth: int) -> None:
        for s in body:
            if isinstance(s, ast.Loop):
                head = f"for {s.name} in {expression(s.start)}..{expression(s.stop)}"
                self.block(s.span, head, s.body, s.stop.span.end, depth)
            elif isinstance(s, ast.Branch):
                if not self.on_one_line(s, depth):
                    self.branch(s, depth)
            else:
                self.gap(s.span.start, depth)
                # A comment inside the statement goes above it: the statement becomes one line.
                self.own_line_comments(s.span.end, depth, inside=True)
                self.line(statement(s), s.span.end, depth)

    def on_one_line(self, s: ast.Branch, depth: int) -> bool:
        """Write ``if a { b } else { c }`` as one line, if it was one, and say whether it was."""
        written = self.source[s.span.start : s.span.end]
        text = self.short(s)
        if not written or "\n" in written or text is None or len(INDENT * depth + text) > WIDTH:
            return False
        self.gap(s.span.start, depth)
        self.line(text, s.span.end, depth)
        return True

    def short(self, s: ast.Branch) -> str | None:
        """A branch of single statements without braces of their own, on one line."""
        parts = []
        for body in (s.then, s.otherwise):
            if len(body) > 1 or any(isinstance(inside, ast.Loop | ast.Branch) for inside in body):
                return None
            parts.append(f"{{ {statement(body[0])} }}" if body else "")
        then, otherwise = parts
        if not then:
            return None
        return f"if {expression(s.condition)} {then}" + f" else {otherwise}" * bool(otherwise)

    def branch(self, s: ast.Branch, depth: int) -> None:
        head, prefix = f"if {expression(s.condition)}", ""
        while True:
            after = self.block(s.span, prefix + head, s.then, s.condition.span.end, depth, last=not s.otherwise)
            if len(s.otherwise) == 1 and isinstance(s.otherwise[0], ast.Branch):
                s = s.otherwise[0]
                head, prefix = f"if {expression(s.condition)}", "} else "
                continue
            if s.otherwise:
                self.block(s.span, "} else", s.otherwise, after, depth)
            return

    def block(
        self,
        span: ast.Span,
        head: str,
        body: Sequence[ast.Statement],
        after: int,
        depth: int,
        last: bool = True,
    ) -> int:
        """A header, its body, and with ``last`` the closing brace. Gives that brace's place in the source."""
        opening, closing = self.braces(after)
        if head.startswith("}"):
            self.own_line_comments(opening, depth + 1)
        else:
            self.gap(span.start, depth)
            self.own_line_comments(opening, depth, inside=True)
        self.line(head + " {", opening + 1, depth)
        self.fresh = True
        self.statements(body, depth + 1)
        self.own_line_comments(closing, depth + 1)
        self.done = max(self.done, closing)
        if last:
            self.fresh = True
            self.line("}", closing + 1, depth)
        return closing

    def braces(self, after: int) -> tuple[int, int]:
        k = bisect.bisect_left(self.opens, after)
        if not self.source or k == len(self.opens):
            return 0, 0
        return self.opens[k], self.partner[self.opens[k]]

    # A blank line is kept between two things, and not at the start of a block.
    fresh: bool = True

    def gap(self, start: int, depth: int) -> None:
        self.own_line_comments(start, depth)
        if not self.fresh and re.search(r"\n[ \t\r]*\n", self.source[self.done : start]):
            self.lines.append("")
            self.done = start
        self.fresh = False

    def own_line_comments(self, before: int, depth: int, inside: bool = False) -> None:
        """Those before a place. From ``inside`` a statement they come to stand above it, without its blank lines."""
        while self.next < len(self.comments) and self.comments[self.next][0] < before:
            start, end = self.comments[self.next]
            self.next += 1
            if not (self.fresh or inside) and re.search(r"\n[ \t\r]*\n", self.source[self.done : start]):
                self.lines.append("")
            self.fresh = False
            self.lines.append(INDENT * depth + self.source[start:end].rstrip())
            self.done = max(self.done, end)

    def line(self, text: str, end: int, depth: int) -> None:
        """One line, with the comment that stands behind it in the source."""
        text = _folded(INDENT * depth + text, INDENT * (depth + 1))
        self.done = max(self.done, end)
        if self.next < len(self.comments):
            start, stop = self.comments[self.next]
            if start >= end and not self.source[end:start].strip(" \t;"):
                text += "  " + self.source[start:stop].rstrip()
                self.next += 1
                self.done = max(self.done, stop)
        self.lines.append(text)
        self.fresh = False
