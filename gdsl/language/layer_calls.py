"""Calls of layers: the statements of the callee are gone through in their own scope, with what the call gives for their
inputs, so that one program comes of both, and passes see no border.

Inside, dims have the callee's names. At the border a value is renamed, and nothing is computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gdsl.ir import build
from gdsl.ir.node import Node
from gdsl.ir.ops.leaves import is_const
from gdsl.ir.types import Dim, Domain, Kind, Type
from gdsl.language import ast, dims, format
from gdsl.language.elaboration import Passed, Wish
from gdsl.language.errors import Diagnostic, Excerpt, Mistake, did_you_mean
from gdsl.language.forms import MAX_CALL_DEPTH, MAX_CALLS
from gdsl.language.imports import library_hint, sites
from gdsl.language.owned import Owns
from gdsl.language.program import LIST, Constant, Declaration, GraphTransform, Part
from gdsl.language.signature import Signature, signature_of
from gdsl.language.sizes import Size
from gdsl.language.values import (
    UNKNOWN,
    Absent,
    Argument,
    LayerResults,
    LayerValue,
    ModuleValue,
    Value,
    is_constant,
    is_number,
    is_whole,
)

# A call of a layer counts as so many of a function: it takes longer.
_COST = 20

# Both make the same edges, with one loop at each node; they differ in what an edge input is on a loop.
_LOOPS = ("add_self_loops", "add_remaining_self_loops")


class LayerCalls(Owns):
    """The statements that declare, with those of layers that are called, and the calls."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.forms.call_layer = self.call_layer
        self.calls.sites = sites(self.layer)
        # Of the layers that are called, also inside those.
        self.signatures: dict[int, Signature] = {}

    def _instance(self, s: ast.Instance) -> None:
        """``use conv = GATConv(8)``: a layer under a name."""
        self.declare(s.name, s.name_span)
        found = dict(self.layer.uses).get(s.layer)
        if found is None:
            hint = library_hint(s.layer) or did_you_mean(s.layer, dict(self.layer.uses), f"`use {s.layer}` brings one")
            raise Mistake(f"there is no layer `{s.layer}`", s.layer_span, hint=hint)
        count = None if s.count is None else self.forms.size(s.count)[1]
        given = self._arguments_given(found, s.arguments, s.layer, s.span)
        self.bring(s.name, LayerValue(found, s.name, given, count), s.name_span)

    def _signature(self, layer: ast.Layer) -> Signature:
        """That of a layer, which may be called many times."""
        found = self.signatures.get(id(layer))
        if found is None:
            found = self.signatures[id(layer)] = signature_of(layer)
        return found

    # ------------------------------------------------------------------------------- arguments

    def _arguments_given(
        self, layer: ast.Layer, written: Sequence[ast.Tree], name: str, span: ast.Span
    ) -> dict[str, Argument]:
        """What is given of the arguments that the layer's class would take, by name."""
        signature = self._signature(layer)
        order = signature.order
        known = [*order, *signature.free_dims]
        given: dict[str, Argument] = {}
        for k, tree in enumerate(written):
            e: ast.Tree = tree.value if isinstance(tree, ast.Named) else tree
            if isinstance(tree, ast.Named):
                key = tree.name
            elif k < len(order):
                key = order[k]
            else:
                raise Mistake(f"{name} takes {len(order)} arguments, not {len(written)}", tree.span)
            if key not in known:
                listed = f"its arguments are {', '.join(known)}" if known else "it has none"
                inputs = [i.name for i in signature.inputs]
                where = f"`{key}` is an input: it stands before the `;` of a call" if key in inputs else None
                raise Mistake(
                    f"{name} has no argument `{key}`", tree.span, hint=where or did_you_mean(key, known, listed)
                )
            if key in given:
                raise Mistake(f"argument `{key}` is given twice", tree.span)
            given[key] = self._argument(signature, key, e)
        return given

    def _argument(self, signature: Signature, name: str, e: ast.Tree) -> Argument:
        if name in signature.free_dims:
            expression, number = self.forms.size(e)
            return Argument(number, expression, e.span)
        modules = dict(signature.modules)
        if name in modules and isinstance(e, ast.Name):
            found = self.scope.find(e.id)
            if isinstance(found, ModuleValue | Absent):
                return Argument(None if isinstance(found, Absent) else found, None, e.span)
            if found is KeyError and self.forms.is_function(e.id):
                return Argument(e.id, None, e.span)
        if name in signature.tables and isinstance(e, ast.Name) and e.id in self.bound:
            return Argument(self.bound[e.id], None, e.span)
        value = self.forms.value(e)
        if isinstance(value, Absent):
            value = None
        if not is_constant(value):
            what = value.type if isinstance(value, Node) else "no constant"
            hint = "values of the call stand before a `;`: layer(x; name = 2)"
            raise Mistake(f"`{name}` is known when the layer is made, and this is {what}", e.span, hint=hint)
        size = self.forms._size(e)[0] if is_whole(value) else None
        return Argument(value, size, e.span)

    def _inputs(self, layer: ast.Layer, signature: Signature, name: str, e: ast.Call) -> dict[str, Passed]:
        """The inputs of a call, by name: in the order of the layer's own call, but without a graph."""
        before, after = signature.before_graph, signature.after_graph
        required = [i.name for i in (*before, *after) if not i.optional]
        order = [*required, *(i.name for i in (*before, *after) if i.optional)]
        usage = ", ".join([*required, *(f"{n} = none" for n in order[len(required) :])])
        found: dict[str, Passed] = {}
        for k, tree in enumerate(e.arguments):
            if isinstance(tree, ast.Arrow):
                raise Mistake(f"`->` belongs to rename, not to {name}", tree.span)
            if isinstance(tree, ast.Named):
                key, text = tree.name, tree.value
            elif k < len(order):
                key, text = order[k], tree
            else:
                raise Mistake(f"{name} takes {len(order)} inputs, ({usage}), not {len(e.arguments)}", tree.span)
            if key not in order:
                is_argument = key in (*signature.order, *signature.free_dims)
                hint = f"`{key}` is an argument: it stands behind a `;`, or where the layer is named"
                other = did_you_mean(key, order, f"its inputs are {', '.join(order)}")
                raise Mistake(f"{name} has no input `{key}`", tree.span, hint=hint if is_argument else other)
            if key in found:
                raise Mistake(f"`{key}` is given twice", tree.span)
            value = self.forms.value(text)
            if value is None or isinstance(value, Absent):
                if key in required:
                    raise self.forms.unusable(value, text)
                continue
            found[key] = Passed(self.forms.operand(value, text), text)
        return found

    # ------------------------------------------------------------------------------------ calls

    def call_layer(self, found: LayerValue, e: ast.Call) -> Value:
        """The results of a layer for what a call gives."""
        if e.at or e.by is not None:
            raise Mistake(f"`{e.function}` is a layer, so it takes no `{'by' if e.by else 'at'}`", e.span)
        layer, signature = found.definition, self._signature(found.definition)
        self.forms.calls += _COST
        if self.forms.calls > MAX_CALLS:
            message = f"the program has more than {MAX_CALLS // _COST} calls of layers, those inside layers counted too"
            raise Mistake(message, e.span)
        name = found.name or self.calls.sites.get(e.span.start, e.function)
        named: tuple[ast.Tree, ...] = ()
        if found.name:
            name, named = self._member(found, e), e.dims
            given = found.given
            if any(isinstance(d, ast.Named) for d in named):
                hint = f"give them where `{found.name}` is named: use {found.name} = {layer.name}(...)"
                raise Mistake(f"`{found.name}` has its arguments already", e.span, hint=hint)
        else:
            if e.over:
                raise Mistake(f"`{e.function}` is a layer, and no list of them", e.span)
            given = self._arguments_given(layer, e.dims, e.function, e.span)
        if signature.builds_graph:
            raise Mistake(f"{layer.name} makes its own edges, and a layer that is called has its caller's", e.span)
        inputs = self._inputs(layer, signature, e.function, e)
        values = self._called(layer, signature, name, given, inputs, e, bool(found.name))
        if named:
            if len(values) > 1 or len(named) > len(values[0][1].dims):
                raise Mistake(f"`{e.function}` gives {', '.join(str(v.type) for _, v in values)}", named[0].span)
            values = [(values[0][0], self._with_dims(values[0][1], named))]
        return values[0][1] if len(values) == 1 else LayerResults(e.function, tuple(values))

    def _member(self, found: LayerValue, e: ast.Call) -> str:
        """The name of an instance, one of a list if it is one."""
        if found.count is None:
            if e.over:
                raise Mistake(f"`{found.name}` is one layer, and no list", e.span)
            return found.name
        if len(e.over) != 1:
            hint = f"as in {found.name}[0](...)"
            raise Mistake(f"`{found.name}` is a list of {found.count}: say which of them", e.span, hint=hint)
        k = self.forms.integer(e.over[0], "an index")
        if not 0 <= k < found.count:
            message = f"`{found.name}` has no layer {k}: they are numbered 0 to {found.count - 1}"
            raise Mistake(message, e.over[0].span)
        return f"{found.name}.{k}"

    def _with_dims(self, x: Node, named: Sequence[ast.Tree]) -> Node:
        """A result with the dims that the text names, which are its last ones."""
        old = x.type.names[len(x.dims) - len(named) :]
        new = []
        for d, tree in zip(x.dims[-len(named) :], named, strict=True):
            new.append(self.forms.dim_name(tree))
            known = self.forms._known_size(tree)
            if known not in (None, d.size):
                raise Mistake(f"the result has {d.size} places here, and `{new[-1]}` another size", tree.span)
        return build.rename(x, dict(zip(old, new, strict=True)))

    def _called(
        self,
        layer: ast.Layer,
        signature: Signature,
        name: str,
        given: Mapping[str, Argument],
        inputs: Mapping[str, Passed],
        e: ast.Call,
        has_name: bool,
    ) -> list[tuple[str, Node]]:
        child, names = self._child(layer, signature, name, given, inputs, e)
        constants = {p.name for p in signature.arguments}
        arguments = {n: a.value for n, a in given.items() if n in constants and not isinstance(a.value, ModuleValue)}
        arguments |= {n: v for n, v in names.numbers.items() if n in constants and n not in given}
        missing = [p.name for p in signature.arguments if p.required and p.name not in arguments]
        absent = [n for n, optional in signature.modules if not optional and n not in child.modules]
        if missing or absent:
            what = (missing or absent)[0]
            hint = f"`; {what} = ...` at the end of the call" if not has_name else f"where `{name}` is named"
            if not missing:
                hint += ", with a module of this layer"
            raise Mistake(f"{layer.name} needs {'a value' if missing else 'a module'} for `{what}`", e.span, hint=hint)
        if self.depth >= MAX_CALL_DEPTH:
            raise Mistake(f"layers are nested more than {MAX_CALL_DEPTH} deep", e.span)
        child.elaborate(arguments)
        asked = () if child.mistakes else child.agreed()
        self._take(child)
        if child.mistakes:
            raise self._inside(child, names, e)
        self._declare_inside(child, names, name, has_name, e)
        assert child.results is not None
        values = [(n, self._outside(v, child, names)) for n, v in child.results]
        if child.calls.wishes or child.forms.reads_edges or asked:
            transforms = tuple(self._for_inputs(t, layer, inputs, e.span) for t in asked)
            self.calls.wishes.append(Wish(transforms, layer.name, e.span))
        return values

    depth = 0

    def elaborate(self, arguments: Mapping[str, object]) -> Mapping[str, Constant]:
        """Go through all statements."""
        raise NotImplementedError

    def _child(
        self,
        layer: ast.Layer,
        signature: Signature,
        name: str,
        given: Mapping[str, Argument],
        inputs: Mapping[str, Passed],
        e: ast.Call,
    ) -> tuple[LayerCalls, _Names]:
        """The check of a layer that is called, before it has begun, and what its dims are called here."""
        path = self.inside(name)
        holder: Any = self.modules
        for part in name.split("."):
            holder = holder.get(part) if isinstance(holder, Mapping) else getattr(holder, "_modules", {}).get(part)
            if holder is None or holder is UNKNOWN:
                break
        modules: dict[str, Any] = {}
        if holder is not None and holder is not UNKNOWN:
            self._refuse_hooks(holder, name, e)
            read = {*dict(signature.modules), *signature.inside}
            modules = {n: m for n, m in holder._modules.items() if m is not None and n in read}
        modules |= {n: _passed(a.value) for n, a in given.items() if isinstance(a.value, ModuleValue)}
        names = _Names(self)
        for n, a in given.items():
            if a.size is not None:
                names.give(n, a.size, int(a.value))
        for n, place, dim in _places(layer):
            value = inputs[n].value if n in inputs else None
            if value is not None and place < len(value.dims) and dim not in names.sizes and _open(signature, dim):
                d = value.dims[place]
                names.give(dim, self.forms.size_named(d.name), d.size)
        free = {n: v for n, v in names.numbers.items() if n in signature.free_dims}
        passed = {n for n, _, _ in signature.free_places if n in inputs}
        for n, _, dim in signature.free_places:
            if n not in passed:
                free.setdefault(dim, 1)
        present = frozenset(n for n in inputs)
        kind: Any = type(self)
        child: LayerCalls = kind(layer, modules, self.forms.training, present, free, signature)
        child.path, child.depth = path, self.depth + 1
        child.given = inputs
        child.sized = names
        child.signatures = self.signatures
        child.names, child.used_names = self.names, self.used_names
        child.statements = self.statements
        child.forms.called = names.apart(layer)
        forms, own = child.forms, self.forms
        forms.bipartite = own.bipartite
        forms.steps, forms.salts, forms.calls = own.steps, own.salts, own.calls
        return child, names

    sized: _Names

    def _refuse_hooks(self, holder: Any, name: str, e: ast.Call) -> None:
        """What holds the parameters of a layer is never called, so that no hook on it would be."""
        from gdsl.language.parts import changed

        if changed(holder):
            hint = "hooks on the linear maps in it are called; or make it a module of its own"
            raise Mistake(f"`{name}` has a hook, and is computed as a part of this layer", e.span, hint=hint)

    def _take(self, child: LayerCalls) -> None:
        """What a layer that was called has used up of what all have together."""
        forms, own = child.forms, self.forms
        own.steps, own.salts, own.calls = forms.steps, forms.salts, forms.calls
        own.uses_seed = own.uses_seed or forms.uses_seed
        self.statements = child.statements

    def _inside(self, child: LayerCalls, names: _Names, e: ast.Call) -> Mistake:
        """The first mistake inside a layer that is called, placed at the call; the others are noted."""
        where = child.layer.name + (f" in {child.layer.file}" if child.layer.file else "")
        raised: Mistake | None = None
        for d in child.mistakes.values():
            place = Excerpt.of(d.span, child.layer.source, where)
            sizes = tuple((names.text(n), size) for n, size in d.sizes)
            message = f"in `{e.function}`: {d.message}" if not d.inside else d.message
            moved = Mistake(
                message, e.span, detail=d.detail, hint=d.hint, sizes=sizes, inside=(place, *d.inside)
            )
            if raised is None:
                raised = moved
            else:
                self.note(moved.diagnostic)
        assert raised is not None
        return raised

    def _named_here(self, d: Declaration, child: LayerCalls, names: _Names) -> Declaration:
        """A declaration of a layer that was called, its sizes as this layer has them."""
        if d.part is not None:
            sizes = (Dim(names.outside(child.forms.size_named(s.name), s.size, child), s.size) for s in d.part.sizes)
            return replace(d, part=replace(d.part, sizes=tuple(sizes)))
        if d.type is None or d.module is not None:
            return d
        return replace(d, type=replace(d.type, dims=_renamed(d.type, self._names_outside(d.type, child, names))))

    def _names_outside(self, type: Type, child: LayerCalls, names: _Names) -> dict[str, str]:
        """What the dims of a value of a layer that was called are called in this one."""
        new: dict[str, str] = {}
        for d in type.dims:
            name = names.outside(child.forms.size_named(d.name), d.size, child) if "." not in d.name else d.name
            while name in new.values():
                name += "'"
            new[d.name] = name
        return new

    def _declare_inside(
        self, child: LayerCalls, names: _Names, name: str, has_name: bool, e: ast.Call
    ) -> None:
        """Take over what a layer that was called declares of its own, under its name."""
        roles = ("param", "buffer", "module", "const")
        of_its_own = [self._named_here(d, child, names) for d in child.declarations if d.role in roles]
        state = any(
            d.role in ("param", "buffer") or d.part is not None or d.name.rpartition(".")[2] in child.modules
            for d in of_its_own
        )
        head, *index = name.split(".")
        if name in self.calls.made and not has_name:
            where = "before the loop" if self.loop_values else "in this layer"
            hint = (
                f"name it {where}: `use conv = {e.function}(...)` has one set of parameters for all calls, and "
                f"`use convs[K] = {e.function}(...)` one for each convs[k]"
            )
            raise Mistake(f"`{e.function}` is called several times here, and has no name", e.span, hint=hint)
        known = {d.name: d for d in self.declarations}
        if state:
            if not has_name:
                self.declare(name, e.span)
            self.calls.made.add(name)
            for holder in (head, *([name] if index else [])):
                path = self.inside(holder)
                if path not in known:
                    part = Part((), False, layer=child.layer.name if holder == name else LIST)
                    self.declarations.append(Declaration(path, "module", None, part=part, span=e.span))
        for d in of_its_own:
            old = known.get(d.name)
            if old is None:
                self.declarations.append(replace(d, span=e.span))
            elif (old.type, old.part and old.part.sizes) != (d.type, d.part and d.part.sizes):
                sizes = "has another size here than where it was called before"
                raise Mistake(f"`{d.name}` {sizes}", e.span, hint="a named layer has one set of parameters")
        self.forms.requires += [replace(r, span=e.span) for r in child.forms.requires]
        if child.forms.one_set is not None:
            self.forms.one_set = self.forms.one_set or e.span

    # ------------------------------------------------------------------------------- the border

    def _given(self, s: ast.Declaration, type: Type, default: float | None) -> Value:
        """An input of this layer, as the layer that calls it gives it."""
        assert self.given is not None
        if s.default is not None:
            self.forms.optional.add(s.name)
        if s.name not in self.given:
            if s.default is None:
                raise Mistake(f"the input `{s.name}` is missing", s.name_span)
            return self._not_there(s.name, type, default)
        self.forms.passed.add(s.name)
        x, text = self.given[s.name].value, format.expression(self.given[s.name].text)
        if x.domain is Domain.GLOBAL and type.domain is not Domain.GLOBAL:
            x = build.spread(build.to_float(x) if type.kind is Kind.FLOAT else x, type.domain)
        if x.domain is not type.domain:
            raise Mistake(f"`{s.name}` is {_an(type.domain)} input, and `{text}` is {x.type}", s.name_span)
        if type.kind is Kind.FLOAT:
            x = build.to_float(x)
        elif x.kind is not type.kind or (type.bound is not None and (x.type.bound or type.bound + 1) > type.bound):
            raise Mistake(f"`{s.name}` is declared as {type}, and `{text}` is {x.type}", s.name_span)
        if len(x.dims) != len(type.dims):
            raise Mistake(f"`{s.name}` is declared as {type}, and `{text}` is {x.type}", s.name_span)
        for d, own in zip(x.dims, type.dims, strict=True):
            if d.size != own.size:
                message = f"`{s.name}` is declared as {type}, and `{text}` is {x.type}"
                raise Mistake(message, s.name_span, sizes=((own.name, d.size),))
            called = self.sized.text(own.name)
            if called.isidentifier() and d.name.rstrip("'").isidentifier() and dims.base(called) != dims.base(d.name):
                hint = f"rename({text}, {d.name} -> {called}), if they are one dim"
                raise Mistake(f"`{s.name}` takes the dim `{called}`, and `{text}` is {x.type}", s.name_span, hint=hint)
        return build.rename(x, dict(zip(x.type.names, type.names, strict=True)))

    def _outside(self, x: Node, child: LayerCalls, names: _Names) -> Node:
        """A result of a layer that was called, its dims named as in this one."""
        return build.rename(x, self._names_outside(x.type, child, names))

    # -------------------------------------------------------------------------------- the graph

    def _for_inputs(
        self, t: GraphTransform, layer: ast.Layer, inputs: Mapping[str, Passed], span: ast.Span
    ) -> GraphTransform:
        """A transform that a layer asks for, with the names that the inputs of edges have in this one."""
        own = any(t.name in _LOOPS for t in self.transforms)
        remaining = t.name == "add_remaining_self_loops"
        if t.name not in _LOOPS or (own and remaining):  # all loops are there, with their values
            return replace(t, keywords=(), span=span)
        said, keywords = dict(t.keywords), []
        for name, given in inputs.items():
            value = _laid_out(given.value)
            declared = next((i for i in self._signature(layer).inputs if i.name == name and i.domain == "edge"), None)
            if declared is None:
                continue
            fill = said.get(name, declared.default)
            if _is_number(value, fill):
                continue
            if value.op == "load" and value.attrs.role == "input":
                keywords += [] if fill is None else [(value.attrs.name, fill)]
                continue
            text = format.expression(given.text)
            hint = f"pass an input of edges as `{name}`"
            hint += ", or have this layer add the loops itself: `graph add_self_loops`" if remaining else ""
            message = f"{layer.name} adds self-loops, and `{text}` says nothing of `{name}` on them"
            raise Mistake(message, span, hint=hint)
        return replace(t, keywords=tuple(keywords), span=span)

    def agreed(self) -> tuple[GraphTransform, ...]:
        """What the program asks of its graph: what the layer says, or what all layers that it calls say alike."""
        asked = [w for w in self.calls.wishes if w.transforms]
        if not asked:
            return tuple(self.transforms)
        own = [t for t in self.transforms if t.name in _LOOPS or t.name == "non_backtracking"]
        first = asked[0]
        if self.transforms and not own:
            self._disagree(first, f"a `graph {self.transforms[0].name}` of this layer")
            return ()
        if not own:
            other = next((w for w in self.calls.wishes if _edges_of(w.transforms) != _edges_of(first.transforms)), None)
            if other is not None:
                self._disagree(first, f"{other.layer} in line {other.span.line}", other)
                return ()
            if self.forms.reads_edges:
                self._disagree(first, "what this layer computes from the edges itself")
                return ()
        elif any(_edges_of(w.transforms) != _edges_of(self.transforms) for w in asked):
            other = next(w for w in asked if _edges_of(w.transforms) != _edges_of(self.transforms))
            self._disagree(other, f"`graph {own[0].name}` of this layer")
            return ()
        return self._with_fills(asked)

    def _with_fills(self, asked: Sequence[Wish]) -> tuple[GraphTransform, ...]:
        """The transforms that all ask for, with what each says of the edge inputs on new loops."""
        said = [t for w in asked for t in w.transforms]
        base = tuple(self.transforms) or asked[0].transforms
        fills: dict[str, tuple[str, Constant]] = {}
        for t in (*self.transforms, *said):
            for name, fill in t.keywords:
                if fills.setdefault(name, (t.name, fill)) != (t.name, fill):
                    message = f"`{name}` gets {format.default_value(fills[name][1])} by {fills[name][0]} on new loops"
                    message += f", and {format.default_value(fill)} by {t.name}"
                    self.note(Diagnostic(message, t.span, hint="give the layers inputs of edges of their own"))
        kinds = {kind for kind, _ in fills.values()}
        if len(kinds) > 1:
            (one, _), (two, _) = list(fills.values())[:2]
            message = f"some layers ask for `{one}` and some for `{two}`, which say different things of edge inputs"
            self.note(Diagnostic(message, said[0].span, hint="pass edge inputs to layers of one of the two kinds"))
        keywords = tuple((name, fill) for name, (_, fill) in fills.items())
        loops = next(iter(kinds), None)
        return tuple(
            replace(t, name=loops or t.name, keywords=keywords) if t.name in _LOOPS else t for t in base
        )

    def _disagree(self, one: Wish, other: str, second: Wish | None = None) -> None:
        names = " and ".join(f"`graph {t.name}`" for t in one.transforms)
        message = f"{one.layer} runs on the graph after {names}, and {other} on another one: a program has one graph"
        if second is not None and second.transforms:
            message = f"{one.layer} runs on the graph after {names}, and {other} after "
            message += " and ".join(f"`graph {t.name}`" for t in second.transforms) + ": a program has one graph"
        ask = one.transforms[0].name
        hint = f"`graph {ask}` in this layer has all run with loops" if ask in _LOOPS else "compile them apart"
        if ask in _LOOPS:
            own = "" if self.transforms else f"{hint}; "
            hint = f"{own}an argument of {one.layer} may leave its loops out"
        self.note(Diagnostic(message, one.span, hint=hint))


class _Names:
    """The names of a callee's sizes as its caller has them."""

    def __init__(self, caller: LayerCalls):
        self.caller = caller
        self.sizes: dict[str, Size] = {}
        self.numbers: dict[str, int] = {}
        self.same: set[str] = set()

    def give(self, name: str, size: Size, number: int) -> None:
        self.sizes[name], self.numbers[name] = size, number

    def apart(self, layer: ast.Layer) -> dict[str, Size]:
        """The sizes whose names outside can stand inside, too, so that nothing has to be renamed at the border: no name
        in them is one of the callee's, and no two are called alike."""
        own = {p.name for p in layer.parameters}
        for tree in ast.walk(layer):
            own |= {tree.id} if isinstance(tree, ast.Name) else set()
            own |= {tree.name} if isinstance(tree, ast.Rule | ast.Declaration | ast.Constant | ast.Loop) else set()
        found: dict[str, Size] = {}
        for name, size in self.sizes.items():
            words = set(re.findall(r"[A-Za-z_]\w*", str(size)))
            twice = any(other == size for other in found.values())
            if words and not twice and not (words - {name}) & own and (name not in words or str(size) == name):
                found[name] = size
        self.same = {str(size) for size in found.values()} | {
            word for size in found.values() for _, factors in size.terms for word in factors
        }
        return found

    def outside(self, size: Size, number: int, child: LayerCalls | None = None) -> str:
        """What a size of the callee is called outside; its number where it has no name there."""
        total = Size.number(0)
        for count, factors in size.terms:
            term = Size.number(count)
            for factor in factors:
                base = factor
                while base.endswith("'") and base not in self.same and base not in self.sizes:
                    base = base[:-1]
                found = Size.symbol(base) if base in self.same else self.sizes.get(base)
                value = None if child is None else child.scope.find(base)
                if found is None and is_whole(value):
                    found = Size.number(int(value))  # type: ignore[arg-type]
                if found is None:
                    return str(number)
                if factor != base:
                    found = Size.symbol(str(found) + factor[len(base) :])
                term = term * found
            total += term
        self.caller.forms.sizes.setdefault(str(total), total)
        return str(total)

    def text(self, name: str) -> str:
        """A dim of the callee, as it is called outside where that can be told from its name."""
        base = name.rstrip("'")
        if base in self.same:
            return name
        return f"{self.sizes[base]}{name[len(base) :]}" if base in self.sizes else name


def _open(signature: Signature, dim: str) -> bool:
    """Whether an input may say how large a dim is: it is no argument, or one that has no value yet."""
    return dim in signature.free_dims or any(p.name == dim and p.required for p in signature.arguments)


def _places(layer: ast.Layer) -> Iterator[tuple[str, int, str]]:
    """The dims of inputs that are a name: input, place and name."""
    for s in ast.walk(layer):
        if isinstance(s, ast.Declaration) and s.role not in ("param", "buffer"):
            for place, d in enumerate(s.dims):
                if d.start is None and isinstance(d.size, ast.Name):
                    yield s.name, place, d.size.id.rstrip("'")


def _passed(module: ModuleValue) -> ModuleValue:
    """A module of the caller's, of whose dims the callee has no names."""
    takes, gives = module.takes, module.gives
    return replace(
        module,
        takes=None if takes is None else replace(takes, name=f"{module.name}.in"),
        gives=None if gives is None else replace(gives, name=f"{module.name}.out"),
    )


def _laid_out(x: Node) -> Node:
    """The value whose numbers these are, under whatever dims."""
    while x.op in ("reshape", "spread"):
        (x,) = x.inputs
    return x


def _is_number(x: Node, number: Constant) -> bool:
    """Whether a value is this number everywhere."""
    return is_number(number) and is_const(x, number)  # type: ignore[arg-type]


def _renamed(type: Type, new: Mapping[str, str]) -> tuple[Dim, ...]:
    return tuple(Dim(new[d.name], d.size) for d in type.dims)


def _edges_of(transforms: Iterable[GraphTransform]) -> frozenset[str]:
    """What decides which edges a graph has after transforms."""
    return frozenset("add_self_loops" if t.name in _LOOPS else t.name for t in transforms)


def _an(domain: Domain) -> str:
    return f"an {domain.value}" if domain.value[0] in "aeiou" else f"a {domain.value}"
