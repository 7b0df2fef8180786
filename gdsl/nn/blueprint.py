"""What a program of the language declares, as parts of a module: parameters, buffers and linear maps, by the arguments
of the program alone, whose rules are not looked at. So a layer is made in no time, also where sizes are yet unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import Parameter, UninitializedParameter

from gdsl.language import ast
from gdsl.language.functions import FUNCTIONS, OPERATORS
from gdsl.nn.inits import reset
from gdsl.nn.linear import Linear
from gdsl.runtime import initialise

Values = Mapping[str, Any]
Expression = Callable[[Values], Any]
When = tuple[tuple[Expression, bool], ...]

# What a linear map of the library calls the language's initial values.
INITIALIZERS = {"glorot": "glorot", "linear": "uniform"}


@dataclass(frozen=True)
class Member:
    """A parameter, a buffer, linear maps or another module that a program declares.

    role:     "param", "buffer", "linear", or "module" for one that is not made from the program
    when:     under which conditions
    sizes:    of its dims, or of input and output
    of:       the name that is the first of them, if it is one
    optional: whether the argument of its name says if it is there
    """

    name: str
    role: str
    when: When
    sizes: tuple[Expression, ...]
    of: str
    init: str
    arguments: tuple[Expression, ...]
    count: Expression | None = None
    bias: Expression | None = None
    optional: bool = False

    def there(self, values: Values) -> bool:
        """Whether a layer with these arguments has it."""
        return all(bool(condition(values)) is way for condition, way in self.when)

    def make(self, values: Values) -> Any:
        """A parameter, a buffer or modules that are yet to be drawn. A size of -1 comes with the first call."""
        sizes: Any = self.shape(values)
        if self.role == "buffer":
            return torch.empty(sizes)
        if self.role == "param":
            return UninitializedParameter() if min(sizes, default=1) < 0 else Parameter(torch.empty(sizes))
        bias = self.bias is None or bool(self.bias(values))
        init = INITIALIZERS.get(self.init)
        count = 1 if self.count is None else int(self.count(values))
        maps = [Linear(sizes[0], sizes[1], bias, init) for _ in range(count)]
        return maps[0] if self.count is None else nn.ModuleList(maps)

    def shape(self, values: Values) -> tuple[int, ...]:
        """The sizes with these arguments."""
        return tuple([int(size(values)) for size in self.sizes])

    def draw(self, value: Any, values: Values) -> None:
        """Draw what was made, or what a user put in its place."""
        if isinstance(value, nn.Module):
            reset(value)
        elif value is not None and not isinstance(value, UninitializedParameter):
            arguments = [argument(values) for argument in self.arguments]
            initialise.fill(value.data, self.init, arguments, *(*value.shape, 1, 1)[max(value.dim() - 2, 0) :][:2])


class Blueprint:
    """The parts of a program, in the order of its text.

    arguments: with their defaults
    named:     a part of each name
    lazy:      linear maps, each with the input of the program whose size is theirs
    late:      parameters with a size of the input
    """

    def __init__(self, program: ast.Layer):
        self.arguments = {p.name: p.default for p in program.parameters}
        self.parts: list[Member] = []
        self._known: dict[str, list[tuple[When, Expression]]] = {}
        inputs: dict[str, str] = {}
        late = []
        for s, when in _statements(program.body, lambda e: _read(e, self._known)):
            if isinstance(s, ast.Owned | ast.Module) or _is_state(s):
                part = self._part(s, when)
                self.parts.append(part)
                names = {t.id for t in ast.walk(s) if isinstance(t, ast.Name)}
                late += [part.name] if part.role == "param" and "in_channels" in names else []
            elif isinstance(s, ast.Declaration):
                for dim in s.dims:
                    if isinstance(dim.size, ast.Name):
                        inputs.setdefault(dim.size.id, s.name)
            elif isinstance(s, ast.Constant | ast.Rule) and not isinstance(s.value, ast.Values | None):
                self._known.setdefault(s.name, []).append((when, _read(s.value, self._known)))
        self.named = {part.name: part for part in reversed(self.parts)}
        self.named = {part.name: self.named[part.name] for part in self.parts}
        # Whether a linear map is there is the class's to say; the program's default is that of texts that use it.
        for name in [name for name, part in self.named.items() if part.optional and part.role == "linear"]:
            self.arguments.pop(name, None)
        self.lazy = tuple((name, inputs[part.of]) for name, part in self.named.items() if part.of in inputs)
        self.late = tuple(dict.fromkeys(late))

    def _part(self, s: Any, when: When) -> Member:
        def read(e: Any) -> Expression:
            return _read(e, self._known)

        if isinstance(s, ast.Module) or (isinstance(s, ast.Owned) and s.kind == "mlp"):
            first = s.sizes[0] if isinstance(s, ast.Owned) else None
            return Member(s.name, "module", when, (), first.id if isinstance(first, ast.Name) else "", "", ())
        init: str = s.init.function if isinstance(s.init, ast.Call) else getattr(s.init, "id", "")
        arguments = tuple(map(read, getattr(s.init, "arguments", ())))
        if isinstance(s, ast.Declaration):
            sizes = tuple(read(dim.size) for dim in s.dims)
            return Member(s.name, s.role, when, sizes, "", init, arguments, optional=s.default is not None)
        given = {a.name: read(a.value) for a in s.arguments if isinstance(a, ast.Named)}
        of = s.sizes[0].id if isinstance(s.sizes[0], ast.Name) else ""
        count = None if s.count is None else read(s.count)
        sizes = tuple(map(read, s.sizes))
        return Member(s.name, "linear", when, sizes, of, init, arguments, count, given.get("bias"), s.optional)


def _is_state(s: ast.Statement) -> bool:
    return isinstance(s, ast.Declaration) and s.role in ("param", "buffer")


def _statements(
    body: Sequence[ast.Statement], read: Callable[[Any], Expression], when: When = ()
) -> Iterator[tuple[ast.Statement, When]]:
    for s in body:
        if isinstance(s, ast.Branch):
            condition = read(s.condition)
            yield from _statements(s.then, read, (*when, (condition, True)))
            yield from _statements(s.otherwise, read, (*when, (condition, False)))
        else:
            yield s, when


def _read(e: ast.Tree, known: Mapping[str, list[tuple[When, Expression]]]) -> Expression:
    """The value of an expression from those of the names in it. A name without any is an input: it may be there."""
    if isinstance(e, ast.Name):
        name = e.id.rstrip("'")

        def look_up(values: Values) -> Any:
            if name in values:
                return values[name]
            chosen = [f for when, f in known.get(name, ()) if all(bool(c(values)) is way for c, way in when)]
            return chosen[-1](values) if chosen else True

        return look_up
    if isinstance(e, ast.Number | ast.Text | ast.Boolean | ast.Nothing):
        value = getattr(e, "value", None)
        return lambda values: value
    if isinstance(e, ast.Unary):
        operand = _read(e.operand, known)
        return (lambda values: not operand(values)) if e.op == "not" else (lambda values: -operand(values))
    if isinstance(e, ast.Binary) and e.op in OPERATORS:
        left, right, apply = _read(e.left, known), _read(e.right, known), OPERATORS[e.op][1]
        return lambda values: apply(left(values), right(values))
    number = FUNCTIONS[e.function].number if isinstance(e, ast.Call) and e.function in FUNCTIONS else None
    if isinstance(e, ast.Call) and number is not None:
        arguments = [_read(a, known) for a in e.arguments]
        return lambda values: number(*[a(values) for a in arguments])
    return lambda values: NotImplemented  # of tensors
