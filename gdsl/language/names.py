"""Names that a text may not give to what a user passes to a layer or reads from it: Python or the layer needs them."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Sequence

from gdsl.language import ast
from gdsl.language.errors import Diagnostic

# Arguments of every call: `layer(x, graph, batch=..., num_graphs=...)`.
OF_CALLS = frozenset({"self", "graph", "edge_index", "batch", "num_graphs"})

# Arguments of gdsl.compile and of every layer's class.
OF_CONSTRUCTORS = frozenset({"self", "source", "layer", "folder", "definition", "backend"})

# What a layer is as a torch module. Written down, since texts are checked without torch; a test compares it with what
# modules and layers have, and a layer refuses what only another version of torch has.
OF_MODULES = frozenset(
    """
    T_destination add_module apply arguments backend bfloat16 buffers call_super_init check children choose compile cpu
    cuda definition double dump_patches eval explain explain_message extra_repr float forward free_sizes get_buffer
    get_extra_state get_parameter get_submodule half ipu kernels kernels_for load_state_dict modules mtia named_buffers
    named_children named_modules named_parameters options parameters program register_aggregate_forward_hook
    register_aggregate_forward_pre_hook register_backward_hook register_buffer register_edge_update_forward_hook
    register_edge_update_forward_pre_hook
    register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_message_and_aggregate_forward_hook
    register_message_and_aggregate_forward_pre_hook register_message_forward_hook register_message_forward_pre_hook
    register_module register_parameter register_propagate_forward_hook register_propagate_forward_pre_hook
    register_state_dict_post_hook register_state_dict_pre_hook reproduce requires_grad_ reset_parameters set_extra_state
    set_submodule share_memory signature source state_dict to to_empty train training type xpu zero_grad
    """.split()
)

# Those of them that are properties. A module may have such a name: it is looked up among the modules.
PROPERTIES = frozenset(
    {"arguments", "definition", "free_sizes", "kernels", "options", "program", "signature", "source"}
)

_OWNERS = {
    "calls": (OF_CALLS, "an argument of every call"),
    "constructors": (OF_CONSTRUCTORS, "an argument of every layer"),
    "modules": (OF_MODULES, "what every torch module or layer has"),
    "methods": (OF_MODULES - PROPERTIES, "what every torch module or layer has"),
    "dropout": (frozenset({"seed"}), "what dropout draws from"),
    "ends": (frozenset({"i", "j", "g"}), "where a value is read, as in x[{name}],"),
}

# Whose names each kind of declaration may not take.
_NEEDED = {
    "argument": ("constructors", "ends"),
    "param": ("modules", "dropout"),
    "buffer": ("modules", "dropout"),
    "module": ("constructors", "methods"),
    "input": ("calls", "dropout"),
}


def refused(layer: ast.Layer, text: str) -> list[Diagnostic]:
    """What is wrong with the names of a layer's arguments, inputs, params, buffers and modules, in all its branches."""
    found = []
    for name, kind, span in _declared(layer, text):
        owner = _owner(name, kind)
        if owner is not None:
            found.append(taken(name, kind, owner, span))
    return [*found, *_twice(layer), *_in_branches(layer.body)]


def _twice(layer: ast.Layer) -> Iterator[Diagnostic]:
    """Names of graphs and sets that something else of the call has: its arguments are told apart by name."""
    inputs = {s.name for s in ast.walk(layer) if isinstance(s, ast.Declaration) and s.role not in ("param", "buffer")}
    seen: set[str] = set()
    for s in ast.walk(layer):
        named = [(n.id, n.span) for n in s.names] if isinstance(s, ast.Sets) else []
        named += [(link.name, link.span) for link in s.links] if isinstance(s, ast.Graphs) else []
        for name, span in named:
            if name in seen:
                yield Diagnostic(f"`{name}` is named twice", span)
            elif name in inputs:
                message = f"`{name}` is an argument of the call, and so is the graph or the set: rename it"
                yield Diagnostic(message, span)
            seen.add(name)


def _in_branches(body: Sequence[ast.Statement]) -> Iterator[Diagnostic]:
    """Graphs and sets that only some arguments ask for: a call could not say which of them it takes."""
    for branch in (s for s in body if isinstance(s, ast.Branch)):
        for s in ast.walk(branch):
            if isinstance(s, ast.Sets | ast.Graphs):
                what = "sets of nodes" if isinstance(s, ast.Sets) else "graphs"
                hint = "name all, and pass one without edges for what a branch does not read"
                yield Diagnostic(f"{what} stand outside branches", s.span, hint=hint)


def taken(name: str, kind: str, owner: str, span: ast.Span) -> Diagnostic:
    """A name that is something else's already."""
    article = "an" if kind in ("argument", "input") else "a"
    message = f"`{name}` is {owner} and cannot be the name of {article} {kind}"
    return Diagnostic(message, span, hint=f"call it `{name}_` or another name")


def _owner(name: str, kind: str) -> str | None:
    if keyword.iskeyword(name):
        return "a word of Python"
    owners = map(_OWNERS.__getitem__, _NEEDED[kind])
    return next((what.format(name=name) for names, what in owners if name in names), None)


def _declared(layer: ast.Layer, text: str) -> Iterator[tuple[str, str, ast.Span]]:
    """Name, kind and place of each."""
    for p in layer.parameters:
        yield p.name, "argument", _name_in(p, p.name, text)
    for s in ast.walk(layer):
        if isinstance(s, ast.Declaration):
            yield s.name, s.role if s.role in ("param", "buffer") else "input", s.name_span
        elif isinstance(s, ast.Module):
            yield s.name, "module", _name_in(s, s.name, text)
        elif isinstance(s, ast.Owned | ast.Instance):
            yield s.name, "module", s.name_span
        elif isinstance(s, ast.Link):
            yield s.name, "input", s.span


def _name_in(tree: ast.Tree, name: str, text: str) -> ast.Span:
    """The name in the text of an argument, ``K = 2``, or of ``module nn = none``."""
    span = tree.span
    skipped = len("module") if isinstance(tree, ast.Module) else 0
    start = text.index(name, span.start + skipped)
    if "\n" in text[span.start : start]:
        return span
    return ast.Span(start, start + len(name), span.line, span.column + start - span.start)
