"""Calls of torch modules and of linear maps, and the dims of their results."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from gdsl.ir import build
from gdsl.ir.node import Node
from gdsl.ir.types import Dim, Domain, Type
from gdsl.language import ast, dims, format, modules
from gdsl.language.errors import Mistake
from gdsl.language.program import Reduction
from gdsl.language.shapes import Shapes
from gdsl.language.values import Absent, ModuleValue, Scope, Value

# A dim that a text names: its name, its size where that is known, and the place in the text.
NamedDim: TypeAlias = tuple[str, int | None, ast.Span]


@dataclass
class Looks:
    """What is kept for those who look at messages: see :class:`gdsl.language.program.TypedProgram`.

    messages: the values of rules that say so
    """

    reductions: list[Reduction] = field(default_factory=list)
    softmaxes: list[Node] = field(default_factory=list)
    messages: set[Node] = field(default_factory=set)


class ModuleCalls(Shapes):
    """Expressions with calls of modules. ``forms.Forms`` adds the others."""

    # x, with each number 0 with a probability and scaled up otherwise.
    dropped: Callable[[Node, float], Node]
    # The end at which a call reduces its first arguments, and the domain of what it gives.
    over: Callable[[ast.Call, Sequence[Node]], tuple[str, Domain]]

    def __init__(self, scope: Scope):
        super().__init__(scope)
        self.bipartite = False
        self.aggregating = False  # inside an `aggregate` rule, where a module reduces edges to nodes
        self.module_params: dict[str, modules.ModuleParam] = {}
        self.looks = Looks()
        self.unseen: set[str] = set()  # modules that are called and are not at hand

    def rows(self, end: str) -> Domain:
        """Where an aggregate at this end lives."""
        if end == "g":
            return Domain.GRAPH
        if not self.bipartite:
            return Domain.NODE
        return Domain.TARGET if end == "i" else Domain.SOURCE

    def reduced(self, message: Node, end: str, result: Node) -> Node:
        """The result of a reduction, which is noted if it is over edges."""
        if message.domain is Domain.EDGE:
            self.looks.reductions.append(Reduction(message, result, end, message in self.looks.messages))
        return result

    def _member(self, found: ModuleValue, e: ast.Call) -> ModuleValue:
        """One of a list of modules: ``lins[k](x)``."""
        for index in e.over:
            key = self.value(index)
            if not isinstance(key, str):
                key = str(self.integer(index, "an index"))
            members = getattr(found.module, "_modules", {})
            known = tuple(members) if found.module is not None else tuple(map(str, range(found.count or 0)))
            if (found.module is not None or found.count is not None) and key not in known:
                message = f"module `{found.name}` has no part `{key}`"
                raise Mistake(message, index.span, hint=f"it has {', '.join(known) or 'none'}")
            found = replace(found, name=f"{found.name}.{key}", module=members.get(key), count=None)
        if found.count is not None:
            hint = f"as in {found.name}[0](...)"
            raise Mistake(f"`{found.name}` is a list of {found.count}: say which of them", e.span, hint=hint)
        return found

    def _module(self, found: ModuleValue | Absent, e: ast.Call, aggregating: bool) -> Value:
        if isinstance(found, Absent):
            raise self.unusable(found, ast.Name(found.name, span=e.name_span))
        if found.function is not None and found.module is None:
            return self._function_for(found, found.function, e)
        found = self._member(found, e)
        if found.module is None:
            self.unseen.add(found.name)
        named = [(self.dim_name(d), self._known_size(d), d.span) for d in e.dims]
        nodes = [self.node(a) for a in e.arguments]
        if not nodes:
            raise Mistake(f"module `{found.name}` needs an argument", e.span)
        self.aligned(nodes, e.arguments)
        domain = build.join_domains(nodes)
        if found.takes is not None and found.gives is not None:
            self._taken(found, found.takes, nodes, e)
            named = named or [(found.gives.name, found.gives.size if found.gives.size >= 0 else None, e.span)]
            if named[-1][0] in nodes[0].type.names[:-1]:
                message = f"`{found.name}` would give {nodes[0].type} a second dim `{named[-1][0]}`"
                raise Mistake(message, e.span, hint=f"{format.expression(e)[:-1]}; {named[-1][0]}') names it")
        elif aggregating and domain in (Domain.EDGE, Domain.PAIR):
            end, rows = self.over(e, nodes)
            result, params = modules.aggregate(found.name, found.module, nodes, (end, rows))
            self._can_run(found, domain, result, e)
            self.module_params.update(params)
            return self._named(found, nodes, self.reduced(nodes[0], end, result), named, rows)
        result, params = modules.apply(found.name, found.module, nodes, self.dropped)
        self._can_run(found, domain, result, e)
        self.module_params.update(params)
        return self._named(found, nodes, result, named, domain)

    def _can_run(self, found: ModuleValue, domain: Domain, result: Node, e: ast.Call) -> None:
        """A module that runs as it is takes rows that lie in memory."""
        if found.module is not None and result.op == "call" and domain is Domain.PAIR:
            message = f"module `{found.name}` runs as it is, on stored rows, and no value of pairs is stored"
            raise Mistake(message, e.span, hint="read at pairs what it makes of edges, or write it as rules")

    def _named(
        self, found: ModuleValue, nodes: Sequence[Node], result: Node, named: Sequence[NamedDim], domain: Domain
    ) -> Node:
        """The result of a module with the dims that the text names, which are all there is to know of one that is not
        at hand.
        """
        if not named:
            return result
        if found.module is None and found.function is None:
            kept = nodes[0].dims[: -len(named)]
            dims = (*kept, *(Dim(name, 1 if size is None else size) for name, size, _ in named))
            return build.call(found.name, [build.to_float(n) for n in nodes], Type(domain, dims), kind="map")
        if len(named) > len(result.dims):
            raise Mistake(f"module `{found.name}` gives {result.type}", named[0][2])
        old = result.type.names[len(result.dims) - len(named) :]
        for (name, size, span), d in zip(named, result.dims[-len(named) :], strict=True):
            if size not in (None, d.size):
                message = f"module `{found.name}` gives {d.size} places, and `{name}` has another size"
                raise Mistake(message, span, sizes=((name, d.size),))
        return build.rename(result, dict(zip(old, (name for name, *_ in named), strict=True)))

    def _function_for(self, found: ModuleValue, function: str, e: ast.Call) -> Value:
        """A function in the place of a module that was not passed."""
        if e.over:
            raise Mistake(f"`{found.name}` is the function `{function}` here, and no list of modules", e.span)
        result = self.value(replace(e, function=function, dims=()))
        named = [(self.dim_name(d), self._known_size(d), d.span) for d in e.dims]
        return self._named(found, (), result, named, result.domain) if isinstance(result, Node) else result

    def _taken(self, found: ModuleValue, takes: Dim, nodes: list[Node], e: ast.Call) -> None:
        """Whether the argument of a linear map is one that it takes: with its dim as the last one."""
        (x,) = nodes if len(nodes) == 1 else (None,)
        if x is None or not x.dims:
            what = f"{len(nodes)} arguments" if x is None else f"{x.type}"
            raise Mistake(f"`{found.name}` takes one value with the dim `{takes.name}`, not {what}", e.span)
        last = x.dims[-1]
        # Of a size that is computed, or that a module gave, nobody can say what it is called.
        named = all(re.fullmatch(r"[A-Za-z_]\w*'*", name) for name in (last.name, takes.name))
        if named and dims.base(last.name) != dims.base(takes.name):
            others = [name for name in x.type.names if dims.base(name) == dims.base(takes.name)]
            order = ", ".join([*(n for n in x.type.names if n not in others), *others])
            text = format.expression(e.arguments[0])
            hint = f"rename({text}, {last.name} -> {takes.name}), if they are one dim"
            hint = f"transpose({text}, {order})" if others else hint
            message = f"`{found.name}` takes the dim `{takes.name}`, and the last one of its argument is `{last.name}`"
            raise Mistake(message, e.span, detail=str(x.type), hint=hint)
        if takes.size >= 0 and takes.size != last.size:
            message = f"`{found.name}` takes {takes.size} numbers, and dim `{last.name}` has {last.size}"
            raise Mistake(message, e.span, sizes=((last.name, takes.size), (takes.name, last.size)))
