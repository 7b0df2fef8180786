"""What stands in brackets after a value: an end of an edge, a place, a result; and the graph that it is over."""

from __future__ import annotations

from gdsl.ir import build
from gdsl.ir.node import Node
from gdsl.ir.types import EDGES_OF_PAIRS, ENDS, PAIR_ENDS, Domain, Kind
from gdsl.language import ast, format
from gdsl.language.errors import Mistake
from gdsl.language.size_expressions import SizeExpressions
from gdsl.language.values import LayerResults, Value, is_number


class Subscripts(SizeExpressions):
    """Expressions with subscripts."""

    def _subscript(self, e: ast.Subscript) -> Value:
        base = self.value(e.value)
        if isinstance(base, LayerResults):
            return self._result(base, e)
        if not isinstance(base, Node):
            if is_number(base) or isinstance(base, bool):
                base = build.const(base)  # type: ignore[arg-type]
            else:
                raise self.unusable(base, e.value)
        origins = {d.name: self.origins.get((base, d.name), 0) for d in base.dims}
        x = base
        for index in e.indices:
            if isinstance(index, ast.Name) and index.id in ENDS:
                x = self._read_at(x, index.id, e)
            elif isinstance(index, ast.Name) and index.id in EDGES_OF_PAIRS and index.id not in self.scope:
                x = self._read_at_pair(x, index.id, e)
            elif isinstance(index, ast.Name) and index.id == "reverse" and index.id not in self.scope:
                x = self.reversed(x, None, e)
            else:
                x = self._place(x, index, e, origins)
        return x

    def _over(self, e: ast.Over) -> Value:
        with self.walking(e.graph, e.name_span):
            value = self.value(e.value)
        if isinstance(e.value, ast.Number) or (isinstance(value, Node) and self.reads_no_edges(value)):
            hint = f"`over` is said of what stands right before it: (...) over {e.graph} takes more than that"
            message = f"`over {e.graph}` of `{format.expression(e.value)}`, which reads no edges"
            raise Mistake(message, e.span, hint=hint)
        return value

    def _result(self, base: LayerResults, e: ast.Subscript) -> Node:
        """One of the results of a layer, by its name or its place."""
        index = e.indices[0]
        names = [name for name, _ in base.values]
        if isinstance(index, ast.Name) and index.id in names:
            k = names.index(index.id)
        else:
            hint = f"by name, as in [{names[0]}], or by place, as in [0]"
            if isinstance(index, ast.Name) and index.id not in self.scope:
                raise Mistake(f"`{base.layer}` has no result `{index.id}`: it gives {', '.join(names)}", index.span)
            if len(e.indices) > 1 or not is_number(self.value(index)):
                raise Mistake(f"one of the results of `{base.layer}` has to be said first", e.span, hint=hint)
            k = self.integer(index, "a place")
            if not 0 <= k < len(names):
                raise Mistake(f"`{base.layer}` has {len(names)} results, {', '.join(names)}", index.span, hint=hint)
        if len(e.indices) > 1:
            hint = f"give it a name first, or write two brackets: r[{names[k]}][...]"
            raise Mistake(f"this says which result of `{base.layer}` is meant, and more", e.span, hint=hint)
        return base.values[k][1]

    def _read_at(self, x: Node, end: str, e: ast.Subscript) -> Node:
        if x.domain in (Domain.EDGE, Domain.PAIR):
            hint = f"leave out [{end}]"
            if x.domain is Domain.EDGE and end in PAIR_ENDS:
                hint += ", or read it at an edge of each pair: [kj] or [ji]"
            raise Mistake(f"{x.type} is already on {x.domain.value}s", e.span, hint=hint)
        return self.counted(build.gather(x, end), x)

    def _read_at_pair(self, x: Node, edge: str, e: ast.Subscript) -> Node:
        """An edge value at the first edge of each pair k -> j -> i, or at the second."""
        if x.domain is Domain.GLOBAL:
            return x
        if x.domain is not Domain.EDGE:
            at = {"kj": "[j][kj] for k, [i][kj] for j", "ji": "[j][ji] for j, [i][ji] for i"}[edge]
            hint = f"read it along the edges first: {at}" if x.domain is Domain.NODE else None
            raise Mistake(f"`[{edge}]` reads an edge value at a pair of edges, and this is {x.type}", e.span, hint=hint)
        self.one_set = self.one_set or e.span
        return self.counted(build.gather(x, EDGES_OF_PAIRS[edge]), x)

    def counted(self, result: Node, x: Node) -> Node:
        """A value read elsewhere, which counts along the same dim."""
        if x in self.counts:
            self.counts.setdefault(result, self.counts[x])
        return result

    def reversed(self, x: Node, default: float | None, e: ast.Subscript | ast.Call) -> Node:
        raise NotImplementedError

    def _place(self, x: Node, index: ast.Expression, e: ast.Subscript, origins: dict[str, int]) -> Node:
        value = self.value(index)
        if not x.dims:
            raise Mistake(f"`{format.expression(e.value)}` has no dim to pick a place of: it is {x.type}", e.span)
        if isinstance(value, Node):
            count = self.counts.get(value)
            dim = count if count in x.type.names else x.dims[0].name
            assert dim is not None
            if value.kind is Kind.INT:
                self.aligned([x, value], [e.value, index])
                bound, size = value.type.bound, x.type.dim(dim).size
                if bound is not None and bound > size:
                    message = f"an integer below {bound} cannot index dim `{dim}` of size {size}"
                    raise Mistake(message, e.span, sizes=((dim, bound),))
            return build.index(x, value, dim)
        k = self.integer(index, "an index")
        dim = self._counted_by(index, x) or x.dims[0].name
        size, start = x.type.dim(dim).size, origins.get(dim, 0)
        if not start <= k < start + size:
            raise Mistake(
                f"index {k} is outside dim `{dim}`, which runs from {start} to {start + size - 1}",
                index.span,
                detail=", ".join(f"here {name} = {value}" for name, value in self._loop_indices(index)),
                hint=self._index_hint(index, dim, start, size, k),
                sizes=((dim, k - start + 1),),
            )
        return build.select(x, dim, k - start)

    def _counted_by(self, index: ast.Expression, x: Node) -> str | None:
        """The dim that the running loop counts along, when the value has it."""
        for part in ast.walk(index):
            if isinstance(part, ast.Name) and part.id in self.loops:
                return next((d for d in self.loops[part.id] if d in x.type.names), None)
        return None

    def _loop_indices(self, index: ast.Expression) -> list[tuple[str, Value]]:
        names = [t.id for t in ast.walk(index) if isinstance(t, ast.Name) and t.id in self.loops]
        return [(name, self.scope.names[name]) for name in dict.fromkeys(names)]

    def _index_hint(self, index: ast.Expression, dim: str, start: int, size: int, k: int) -> str | None:
        text = format.expression(index)
        if start == 0 and k == size and isinstance(index, ast.Name):
            return f"places count from 0: write [{text} - 1], or declare the dim as `1..{dim}`"
        return None

    _READ = {**SizeExpressions._READ, ast.Subscript: _subscript, ast.Over: _over}
