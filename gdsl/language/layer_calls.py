"""Calls of layers: the statements of the callee are gone through in their own scope, with what the call gives for their
inputs, so that one program comes of both, and passes see no border.

Inside, dims have the callee's names. At the border a value is renamed, and nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gdsl.ir import build
from gdsl.ir.node import Node
from gdsl.ir.types import Dim, Domain, Kind, Type
from gdsl.language import ast, dims, format
from gdsl.language.elaboration import Passed, Wish
from gdsl.language.errors import Excerpt, Mistake, did_you_mean
from gdsl.language.forms import MAX_CALL_DEPTH, MAX_CALLS
from gdsl.language.imports import library_hint, sites
from gdsl.language.layer_arguments import CallSite, LayerArguments, call_order
from gdsl.language.library_calls import class_reads
from gdsl.language.program import LIST, Constant, Declaration, Part
from gdsl.language.signature import Signature
from gdsl.language.sizes import Size
from gdsl.language.sizes_outside import SizesOutside
from gdsl.language.taken import inputs_of, outline, where_read
from gdsl.language.values import (
    UNKNOWN,
    Absent,
    LayerResults,
    LayerValue,
    ModuleValue,
    Value,
)

# Which inputs are passed may decide which there are: so often is looked again, each time with what was found.
_ROUNDS = 4

# A call of a layer counts as so many of a function: it takes longer.
_COST = 20


class LayerCalls(LayerArguments):
    """The statements that declare, with those of layers that are called, and the calls."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.forms.call_layer = self.call_layer
        self.calls.sites = sites(self.layer)
        # Of the layers that are called, also inside those.
        self.outlines: dict[int, ast.Layer | None] = {}

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

    def _inputs(self, site: CallSite) -> dict[str, Passed]:
        """The inputs of a call, by name: in the order of the layer's own call, but without a graph.

        Which inputs there are is known when the branches of the layer are, and these may ask which are passed.
        """
        written: list[tuple[str | None, Value, ast.Tree]] = []
        for tree in site.e.arguments:
            if isinstance(tree, ast.Arrow):
                raise Mistake(f"`->` belongs to rename, not to {site.e.function}", tree.span)
            key, text = (tree.name, tree.value) if isinstance(tree, ast.Named) else (None, tree)
            value = self.forms.value(text)
            there = not (value is None or isinstance(value, Absent))
            written.append((key, self.forms.operand(value, text) if there else value, text))
        taken = site.signature
        for _ in range(_ROUNDS):
            order = call_order(taken)
            passed = {
                said or order[k]: Passed(value, text)
                for k, (said, value, text) in enumerate(written)
                if isinstance(value, Node) and (said or k < len(order))
            }
            found = self._taken(site, passed)
            if found.inputs == taken.inputs:
                break
            taken = found
        return self._placed(site, taken, written)

    def _taken(self, site: CallSite, passed: Mapping[str, Passed]) -> Signature:
        """A layer's signature with the inputs that it declares with these arguments alone."""
        layer, signature = site.layer, site.signature
        if id(layer) not in self.outlines:
            self.outlines[id(layer)] = outline(layer)
        outlined = self.outlines[id(layer)]
        if outlined is None:
            return signature
        child, names = self._child(replace(site, layer=outlined), passed)
        child.given = None
        child.elaborate(_constants(site, names))
        self._take(child)
        return replace(signature, inputs=inputs_of(outlined, child.declared)) if child.declared else signature

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
        values = self._called(CallSite(layer, signature, name, given, e, bool(found.name)))
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

    def _called(self, site: CallSite) -> list[tuple[str, Node]]:
        layer, signature, e = site.layer, site.signature, site.e
        inputs = self._inputs(site)
        child, names = self._child(site, inputs)
        arguments = _constants(site, names)
        missing = [p.name for p in signature.arguments if p.required and p.name not in arguments]
        absent = [n for n, optional in signature.modules if not optional and n not in child.modules]
        if missing or absent:
            what = (missing or absent)[0]
            hint = f"where `{site.name}` is named" if site.named else f"`; {what} = ...` at the end of the call"
            if not missing:
                hint += ", with a module of this layer"
            raise Mistake(f"{layer.name} needs {'a value' if missing else 'a module'} for `{what}`", e.span, hint=hint)
        if self.depth >= MAX_CALL_DEPTH:
            raise Mistake(f"layers are nested more than {MAX_CALL_DEPTH} deep", e.span)
        already = len(child.forms.looks.reductions)
        child.elaborate(arguments)
        asked = () if child.mistakes else child.agreed()
        self._take(child)
        if child.mistakes:
            raise self._inside(child, names, e)
        for n, passed in inputs.items():
            if n in child.forms.optional and n not in child.forms.read:
                message = f"`{n}` is passed, and {layer.name} does not read it with these arguments"
                remedy = class_reads(layer, n) or where_read(layer, n, declared=False) or "leave it out"
                raise Mistake(message, passed.text.span, hint=remedy)
        self._declare_inside(child, names, site)
        assert child.results is not None
        values = [(n, self._outside(v, child, names)) for n, v in child.results]
        noted = self.forms.looks.reductions
        noted[already:] = [r if r.inside else replace(r, inside=values[0][1]) for r in noted[already:]]
        if child.calls.wishes or child.forms.reads_edges or asked:
            graph = self.forms.graph_of_call([p.value for p in inputs.values()])
            if asked and self.graphs and not graph:
                raise self._which_graph(asked[0], e)
            transforms = tuple(self._for_inputs(replace(t, graph=graph), layer, inputs, e.span) for t in asked)
            self.calls.wishes.append(Wish(transforms, layer.name, e.span, graph))
        return values

    depth = 0

    def elaborate(self, arguments: Mapping[str, object]) -> Mapping[str, Constant]:
        """Go through all statements."""
        raise NotImplementedError

    def _child(self, site: CallSite, inputs: Mapping[str, Passed]) -> tuple[LayerCalls, SizesOutside]:
        """The check of a layer that is called, before it has begun, and what its dims are called here."""
        layer, signature, name, given = site.layer, site.signature, site.name, site.given
        path = self.inside(name)
        holder: Any = self.modules
        for part in name.split("."):
            holder = holder.get(part) if isinstance(holder, Mapping) else getattr(holder, "_modules", {}).get(part)
            if holder is None or holder is UNKNOWN:
                break
        modules: dict[str, Any] = {}
        if holder is not None and holder is not UNKNOWN:
            self._refuse_hooks(holder, site)
            read = {*dict(signature.modules), *signature.inside}
            modules = {n: m for n, m in holder._modules.items() if m is not None and n in read}
        modules |= {n: _passed(a.value) for n, a in given.items() if isinstance(a.value, ModuleValue)}
        names = SizesOutside(self)
        for n, a in given.items():
            if a.size is not None:
                names.give(n, a.size, int(a.value))
        for n, place, dim in _places(layer):
            value = inputs[n].value if n in inputs else None
            if value is not None and place < len(value.dims) and dim not in names.sizes and _open(signature, dim):
                d = value.dims[place]
                names.give(dim, self.forms.size_named(d.name), d.size)
        for n, place, dim in signature.table_places:
            here = given[n].dims if n in given else ()
            if place < len(here) and dim not in names.sizes:
                names.give(dim, self.forms.size_named(here[place].name), here[place].size)
        for dim, number in signature.sizes_of_tables({n: a.value for n, a in given.items()}).items():
            if dim not in names.sizes:
                names.give(dim, Size.number(number), number)
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
        child.signatures, child.outlines = self.signatures, self.outlines
        child.names, child.used_names = self.names, self.used_names
        child.statements = self.statements
        child.forms.called = names.apart(layer)
        forms, own = child.forms, self.forms
        forms.bipartite = own.bipartite
        forms.steps, forms.salts, forms.calls = own.steps, own.salts, own.calls
        forms.looks = own.looks
        return child, names

    sized: SizesOutside

    def _refuse_hooks(self, holder: Any, site: CallSite) -> None:
        """What holds the parameters of a layer is never called, so that no hook on it would be."""
        from gdsl.language.parts import changed

        if changed(holder):
            hint = "hooks on the linear maps in it are called; or make it a module of its own"
            raise Mistake(f"`{site.name}` has a hook, and is computed as a part of this layer", site.e.span, hint=hint)

    def _take(self, child: LayerCalls) -> None:
        """What a layer that was called has used up of what all have together."""
        forms, own = child.forms, self.forms
        own.steps, own.salts, own.calls = forms.steps, forms.salts, forms.calls
        own.uses_seed = own.uses_seed or forms.uses_seed
        own.unseen |= forms.unseen
        self.statements = child.statements

    def _inside(self, child: LayerCalls, names: SizesOutside, e: ast.Call) -> Mistake:
        """The first mistake inside a layer that is called, placed at the call; the others are noted."""
        where = child.layer.name + (f" in {child.layer.file}" if child.layer.file else "")
        raised: Mistake | None = None
        for d in child.mistakes.values():
            place = Excerpt.of(d.span, child.layer.source, where)
            sizes = tuple((names.text(n), size) for n, size in d.sizes)
            message = f"in `{e.function}`: {d.message}" if not d.inside else d.message
            moved = Mistake(message, e.span, detail=d.detail, hint=d.hint, sizes=sizes, inside=(place, *d.inside))
            if raised is None:
                raised = moved
            else:
                self.note(moved.diagnostic)
        assert raised is not None
        return raised

    def _named_here(self, d: Declaration, child: LayerCalls, names: SizesOutside) -> Declaration:
        """A declaration of a layer that was called, its sizes as this layer has them."""
        if d.part is not None:
            sizes = (Dim(names.outside(child.forms.size_named(s.name), s.size, child), s.size) for s in d.part.sizes)
            return replace(d, part=replace(d.part, sizes=tuple(sizes)))
        if d.type is None or d.module is not None:
            return d
        return replace(d, type=replace(d.type, dims=_renamed(d.type, self._names_outside(d.type, child, names))))

    def _names_outside(self, type: Type, child: LayerCalls, names: SizesOutside) -> dict[str, str]:
        """What the dims of a value of a layer that was called are called in this one."""
        new: dict[str, str] = {}
        for d in type.dims:
            name = names.outside(child.forms.size_named(d.name), d.size, child) if "." not in d.name else d.name
            while name in new.values():
                name += "'"
            new[d.name] = name
        return new

    def _declare_inside(self, child: LayerCalls, names: SizesOutside, site: CallSite) -> None:
        """Take over what a layer that was called declares of its own, under its name."""
        name, e = site.name, site.e
        roles = ("param", "buffer", "module", "const")
        of_its_own = [self._named_here(d, child, names) for d in child.declarations if d.role in roles]
        state = any(
            d.role in ("param", "buffer") or d.part is not None or d.name.rpartition(".")[2] in child.modules
            for d in of_its_own
        )
        head, *index = name.split(".")
        if name in self.calls.made and not site.named:
            where = "before the loop" if self.loop_values else "in this layer"
            hint = (
                f"name it {where}: `use conv = {e.function}(...)` has one set of parameters for all calls, and "
                f"`use convs[K] = {e.function}(...)` one for each convs[k]"
            )
            raise Mistake(f"`{e.function}` is called several times here, and has no name", e.span, hint=hint)
        known = {d.name: d for d in self.declarations}
        if state:
            if not site.named:
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
        if child.forms.requires:
            graph = self.forms.graph_that_has([p.value for p in (child.given or {}).values()], e)
            self.forms.requires += [replace(r, span=e.span, graph=graph) for r in child.forms.requires]
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
        message = f"`{s.name}` is declared as {type}, and `{text}` is {x.type}"
        beyond = type.bound is not None and (x.type.bound or type.bound + 1) > type.bound
        if x.kind is not type.kind or beyond or len(x.dims) != len(type.dims):
            raise Mistake(message, s.name_span)
        for d, own in zip(x.dims, type.dims, strict=True):
            if d.size != own.size:
                raise Mistake(message, s.name_span, sizes=((own.name, d.size),))
            called = self.sized.text(own.name)
            if called.isidentifier() and d.name.rstrip("'").isidentifier() and dims.base(called) != dims.base(d.name):
                hint = f"rename({text}, {d.name} -> {called}), if they are one dim"
                raise Mistake(f"`{s.name}` takes the dim `{called}`, and `{text}` is {x.type}", s.name_span, hint=hint)
        return build.rename(x, dict(zip(x.type.names, type.names, strict=True)))

    def _outside(self, x: Node, child: LayerCalls, names: SizesOutside) -> Node:
        """A result of a layer that was called, its dims named as in this one."""
        return build.rename(x, self._names_outside(x.type, child, names))


def _constants(site: CallSite, names: SizesOutside) -> dict[str, Any]:
    """The arguments that a layer is called with, those among them that the dims of its inputs say."""
    known, given = {p.name for p in site.signature.arguments}, site.given
    found = {n: a.value for n, a in given.items() if n in known and not isinstance(a.value, ModuleValue)}
    return found | {n: v for n, v in names.numbers.items() if n in known and n not in given}


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


def _renamed(type: Type, new: Mapping[str, str]) -> tuple[Dim, ...]:
    return tuple(Dim(new[d.name], d.size) for d in type.dims)


def _an(domain: Domain) -> str:
    return f"an {domain.value}" if domain.value[0] in "aeiou" else f"a {domain.value}"
