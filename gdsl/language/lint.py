"""What a text says to no effect: names that nothing reads, and rules whose values are dropped.

From the text alone, over both branches of every ``if``: what some arguments leave unused is no mistake. A name that
begins with ``_`` is meant to be unused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gdsl.language import ast
from gdsl.language.errors import Diagnostic

_WHAT = {"param": "param", "buffer": "buffer"}  # the other roles are inputs


def lint(layer: ast.Layer) -> tuple[Diagnostic, ...]:
    """The warnings of a layer, in the order of the text."""
    found = [*_unread_names(layer), *_Liveness(layer).warnings()]
    return tuple(sorted(found, key=lambda d: (d.span.start, d.message)))


def _warning(message: str, span: ast.Span, hint: str | None = None) -> Diagnostic:
    return Diagnostic(message, span, hint=hint, severity="warning")


def _reads(*trees: ast.Tree | None) -> set[str]:
    """The names in expressions: of values, of dims and of what is called."""
    found: set[str] = set()
    for tree in trees:
        for part in ast.walk(tree) if tree is not None else ():
            if isinstance(part, ast.Name):
                found.add(part.id.rstrip("'"))
            elif isinstance(part, ast.Call | ast.Module) and part.function:
                found.add(part.function)
    return found


# ---------------------------------------------------------------------------------- declarations


def _unread_names(layer: ast.Layer) -> Iterable[Diagnostic]:
    """Arguments and declarations that nothing in the layer reads."""
    # A function's own parameters are counted too: a name too many is a warning too few.
    read = _reads(*layer.body) | _counting(layer)
    for p in layer.parameters:
        if p.name not in read and not p.name.startswith("_"):
            yield _warning(f"the argument `{p.name}` is never read", p.span)
    walked = read | _walked(layer)
    for s in ast.walk(layer):
        if isinstance(s, ast.Link):
            kind, span = "graph", s.span
        elif isinstance(s, ast.Declaration):
            kind, span = _WHAT.get(s.role, "input"), s.name_span
        elif isinstance(s, ast.Owned | ast.Instance):
            kind, span = s.kind if isinstance(s, ast.Owned) else "layer", s.name_span
        elif isinstance(s, ast.Module | ast.Constant | ast.Function | ast.Reducer):
            kind, span = _KINDS[type(s)], s.span
        else:
            continue
        if s.name not in (walked if kind == "graph" else read) and not s.name.startswith("_"):
            yield _warning(f"the {kind} `{s.name}` is never read", span)


def _walked(layer: ast.Layer) -> set[str]:
    """The graphs that inputs and rules name. Where there is one, nobody has to."""
    links = [s.name for s in ast.walk(layer) if isinstance(s, ast.Link)]
    found = set(links) if len(links) == 1 else set()
    for s in ast.walk(layer):
        if isinstance(s, ast.Over):
            found.add(s.graph)
        elif isinstance(s, ast.Rule):
            found.add(s.over)
        elif isinstance(s, ast.Declaration):
            found.add(s.within)
    return found


def _counting(layer: ast.Layer) -> set[str]:
    """Inputs that say how many nodes there are, since no other one does."""
    declared = [s for s in ast.walk(layer) if isinstance(s, ast.Declaration)]
    roles = [(s.role, s.within) for s in declared]
    return {
        s.name
        for s, role in zip(declared, roles, strict=True)
        if s.role in ("node", "source", "target") and roles.count(role) == 1
    }


_KINDS = {ast.Module: "module", ast.Constant: "const", ast.Function: "function", ast.Reducer: "reduction"}


# ----------------------------------------------------------------------------------------- rules


class _Liveness:
    """Goes through the statements from the last to the first, with the names that are still to be read."""

    def __init__(self, layer: ast.Layer):
        self.layer = layer
        # Functions read the layer's names when they are called: wherever that is.
        bodies = [s.body for s in ast.walk(layer) if isinstance(s, ast.Function | ast.Reducer)]
        self.always = _reads(*bodies)
        results = [s.name for s in layer.body if isinstance(s, ast.Rule) and s.kind in ("update", "pool")]
        self.result = results[-1] if results else None
        self.found: dict[int, Diagnostic] = {}

    def warnings(self) -> Iterable[Diagnostic]:
        returns = any(isinstance(s, ast.Return) for s in self.layer.body)
        self.block(self.layer.body, frozenset(), not returns, quiet=False)
        return self.found.values()

    def block(
        self, body: Sequence[ast.Statement], live: frozenset[str], last: bool, quiet: bool
    ) -> tuple[frozenset[str], bool]:
        """The names that are read from the start of a block on, given those that are read after it.

        last: whether an ``update`` or ``pool`` at this place may be the layer's last, which is its result
        """
        for s in reversed(body):
            if isinstance(s, ast.Rule):
                live, last = self.rule(s, live, last, quiet)
            elif isinstance(s, ast.Transform):
                live = self.transform(s, live, quiet)
            elif isinstance(s, ast.Branch):
                then, one = self.block(s.then, live, last, quiet)
                otherwise, other = self.block(s.otherwise, live, last, quiet)
                live, last = then | otherwise | _reads(s.condition), one or other
            elif isinstance(s, ast.Loop):
                again, _ = self.block(s.body, live, last, quiet=True)
                inside, _ = self.block(s.body, live | again, last, quiet)
                live = live | inside | _reads(s.start, s.stop)
            else:
                live = live | _reads(s)
        return live, last

    def rule(self, s: ast.Rule, live: frozenset[str], last: bool, quiet: bool) -> tuple[frozenset[str], bool]:
        result = last and s.kind in ("update", "pool")
        if not (result or quiet or s.name in live or s.name in self.always or s.name.startswith("_")):
            self.found[s.span.start] = self.dropped(s)
        return live - {s.name} | _reads(s.value), last and not result

    def dropped(self, s: ast.Rule) -> Diagnostic:
        kind = f"{s.kind} " if s.kind else ""
        message = f"the value of `{kind}{s.name}` is never read"
        if s.kind not in ("update", "pool") or self.result is None:
            return _warning(message, s.name_span)
        if s.name == self.result:
            return _warning(
                message, s.name_span, f"a later rule gives `{s.name}` another value: call one of them otherwise"
            )
        hint = f"the last rule is the result: `return {s.name}, {self.result}` gives both"
        return _warning(message, s.name_span, hint)

    def transform(self, s: ast.Transform, live: frozenset[str], quiet: bool) -> frozenset[str]:
        """``symmetric_norm`` makes a name, or gives an edge weight its next value; the others read theirs."""
        if s.name == "symmetric_norm":
            target = s.arguments[0] if s.arguments else ast.Name("norm")
            name = target.id if isinstance(target, ast.Name) else ""
            if not (quiet or name in live or name in self.always):
                self.found[s.span.start] = _warning(f"the value that `{s.name}` gives `{name}` is never read", s.span)
            live = live - {name}
        return live | _reads(*s.arguments)
