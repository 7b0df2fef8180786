"""``layer.reproduce()``: a call as a Python file that runs it anywhere, against the reference.

What is written is what a compiler needs to know: the program, its options, and of tensors the sizes, dtypes, strides
and flags. Their numbers are those of the user, and are only written where they are asked for. The file reads
:mod:`gdsl.module.rerun`.
"""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from gdsl.ir.program import Program
from gdsl.ir.serialise import to_data
from gdsl.ir.types import Domain, Kind, Type
from gdsl.language.program import Constant, ConstantTable, TypedProgram
from gdsl.passes.options import GraphShape, Options
from gdsl.runtime.complete import CompleteGraph
from gdsl.runtime.dtypes import short
from gdsl.runtime.graph import Graph

# A graph of up to so many edges is written as it is.
FEW_EDGES = 256
# Where a tensor begins matters up to such a multiple of bytes.
_ALIGNED = 64


@dataclass(frozen=True)
class Written:
    """The text of a layer, with all that makes a program of it."""

    text: str
    arguments: Mapping[str, Constant]
    sizes: Mapping[str, int]
    present: Sequence[str]
    training: bool


@dataclass(frozen=True)
class Recorded:
    """A call of a program.

    source:  the text that it comes from, if the text and its arguments say all of it
    text:    the text that it comes from in any case, for readers
    parts:   of a program that is not all said by a text: up to each module that runs as it is
    tensors: inputs, parameters and buffers by name; a type where only the kind of call is known
    graph:   its shape where only the kind of call is known
    dropped: modules that run as they are; of what they give, only sizes are known
    """

    typed: TypedProgram
    source: Written | None
    text: str | None
    parts: Sequence[Program]
    tensors: Mapping[str, Tensor | Type]
    graph: Graph | GraphShape
    options: Options
    dtype: torch.dtype
    device: torch.device
    backend: str
    batch: Tensor | None = None
    num_graphs: int = 1
    dropped: Sequence[str] = ()


def written(calls: Sequence[Recorded], title: str, about: Sequence[str], values: bool) -> str:
    """The calls as a file.

    about:  what is known of the machine and the versions, in lines
    values: whether to write the numbers of tensors
    """
    texts: dict[str, str] = {}
    body = [_call(call, values, texts) for call in calls]
    named = [f"{name} = {_literal(text)}" for text, name in texts.items()]
    read = dict.fromkeys(call.text for call in calls if call.text is not None and call.source is None)
    comments = [f"# What the program below is of:\n#\n{_commented(text)}" for text in read]
    notes = dict.fromkeys(note for call in calls for note in _notes(call, values))
    numbers = "the numbers of the call" if values else "random numbers from a seed"
    head = f"A call of {title} in gdsl, against the reference: results and gradients, with {numbers}."
    doc = "\n\n".join([head, *notes, "Written on\n" + "\n".join(f"    {line}" for line in about)])
    used = [name for name in _IMPORTED if any(re.search(rf"\b{name}\(", text) for text in body)]
    return "\n\n".join(
        [
            _literal(doc + "\n"),
            f"import sys\n\nfrom gdsl.module.rerun import {', '.join(sorted(['main', *used], key=_as_sorted))}",
            *comments,
            *named,
            "CALLS = [\n" + "\n".join(body) + "\n]",
            'if __name__ == "__main__":\n    sys.exit(main(CALLS))\n',
        ]
    )


_IMPORTED = ("Replay", "all_pairs", "edges", "from_data", "from_text", "numbers", "random_edges", "stored")


def _as_sorted(name: str) -> tuple[bool, str]:
    return not name[0].isupper(), name


def _notes(call: Recorded, values: bool) -> Iterator[str]:
    if not values:
        yield (
            "No number of a tensor is in this file: of real numbers there are the scale, the sign where all have the\n"
            "same, and how many are not finite; of whole numbers the least and the greatest."
        )
    if isinstance(call.graph, GraphShape):
        yield (
            "What is known of the call is its kind: sizes are rounded, strides and the graph are made up. With the\n"
            "arguments of the call, as in layer.reproduce(x, edge_index), they are those of the call."
        )
    elif call.graph.num_edges > FEW_EDGES:
        yield "The graph is a random one with as many nodes and edges, and as many edges at the busiest target."
    if call.dropped:
        yield f"Modules that run as they are, between kernels, are left out: {', '.join(call.dropped)}."


def _commented(text: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in text.splitlines())


def _literal(text: str) -> str:
    """A text as Python writes it, over several lines where that can be read."""
    plain = '"""' not in text and "\\" not in text and not text.endswith('"')
    plain = plain and all(c.isprintable() or c == "\n" for c in text)
    return f'"""{text}"""' if plain else repr(text)


# ------------------------------------------------------------------------------------------- calls


def _call(call: Recorded, values: bool, texts: dict[str, str]) -> str:
    if call.source is None:
        programs = [(f"from_data({_data(part, texts)})", part.input_names) for part in call.parts]
        return "\n".join(_part(call, program, names, values) for program, names in programs)
    source = call.source
    name = texts.setdefault(source.text, f"TEXT_{len(texts)}" if texts else "TEXT")
    arguments = {key: _constant(value) for key, value in source.arguments.items()}
    more = {"sizes": dict(source.sizes), "present": list(source.present), "training": source.training}
    told = "".join(f", {key}={value!r}" for key, value in more.items() if value)
    return _part(call, f"from_text({name}, {arguments!r}{told})", tuple(call.tensors), values)


def _constant(value: Constant) -> Any:
    """As Python writes it."""
    return value.nested() if isinstance(value, ConstantTable) else value


def _data(part: Program, texts: dict[str, str]) -> str:
    data = to_data(part)
    nodes = ",\n".join(json.dumps(row) for row in data.pop("nodes"))
    text = json.dumps(data)[:-1] + ', "nodes": [\n' + nodes + "\n]}"
    return texts.setdefault(text, f"PROGRAM_{len(texts)}" if texts else "PROGRAM")


def _part(call: Recorded, program: str, names: Sequence[str], values: bool) -> str:
    types = {d.name: d.type for d in call.typed.declarations if d.type is not None}
    loads = {load.attrs.name: load.type for part in call.parts for load in part.inputs}
    lines = []
    for name in names:
        found = call.tensors.get(name, types.get(name, loads.get(name)))
        if name != "seed" and found is not None:
            lines.append(f"            {name!r}: {_tensor(found, call, values)},")
    options = {f.name: getattr(call.options, f.name) for f in fields(Options) if f.name != "shape"}
    usual = Options()
    chosen = {name: value for name, value in options.items() if value != getattr(usual, name)}
    rows = [
        f"program={program}",
        f"graph={_graph(call)}",
        f'dtype="{short(call.dtype)}"',
        f'backend="{call.backend}"',
        *([f'device="{call.device.type}"'] if call.device.type != "cpu" else []),
        *([f"options={chosen!r}"] if chosen else []),
        *([f"batch={_tensor(call.batch, call, values)}"] if call.batch is not None else []),
        *([f"graphs={call.num_graphs}"] if call.num_graphs != 1 else []),
    ]
    tensors = "        tensors={\n" + "\n".join(lines) + "\n        }," if lines else "        tensors={},"
    return "\n".join(["    Replay(", *(f"        {row}," for row in rows), tensors, "    ),"])


def _graph(call: Recorded) -> str:
    graph = call.graph
    needs = {need.kind: need for need in call.typed.requires}
    each = next((n.value for kind, n in needs.items() if kind != "reverse" and n.end == "i"), 0)
    more = (f", each={each}" if each else "") + (", both_ways=True" if "reverse" in needs else "")
    sources, targets, edges = _sizes(graph)
    if isinstance(graph, CompleteGraph):
        return f"all_pairs({graph.groups.tolist()}, loops={graph.loops})"
    if call.typed.complete is not None:
        return f"all_pairs([0] * {targets}, loops={call.typed.complete})"
    if isinstance(graph, Graph):
        if edges <= FEW_EDGES:
            return f"edges({graph.edge_index.tolist()}, {sources}, {targets})"
        more = f", busiest={int(graph.in_degree.max())}{more}"
    return f"random_edges({sources}, {targets}, {edges}{more})"


def _sizes(graph: Graph | GraphShape) -> tuple[int, int, int]:
    """How many sources, targets and edges."""
    if isinstance(graph, GraphShape):
        return graph.sources, graph.targets, graph.edges
    return graph.num_sources, graph.num_targets, graph.num_edges


# ----------------------------------------------------------------------------------------- tensors


def _tensor(found: Tensor | Type, call: Recorded, values: bool) -> str:
    if isinstance(found, Type):
        return _of_type(found, call)
    shape, told = list(found.shape), _layout(found)
    if values:
        return f'stored("{packed(found)}", {shape}, "{short(found.dtype)}"{_named(told)})'
    return f'numbers({shape}, "{short(found.dtype)}"{_named({**told, **_statistics(found)})})'


def packed(tensor: Tensor) -> str:
    """The numbers of a tensor as text."""
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return base64.b64encode(zlib.compress(raw, 9)).decode()


def _named(told: Mapping[str, Any]) -> str:
    return "".join(f", {name}={value!r}" for name, value in told.items())


def _layout(tensor: Tensor) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if not tensor.is_contiguous():
        told["stride"] = list(tensor.stride())
    offset = tensor.data_ptr() % _ALIGNED // tensor.element_size()
    if offset and tensor.numel():
        told["offset"] = offset
    if tensor.requires_grad:
        told["requires_grad"] = True
    return told


def _statistics(tensor: Tensor) -> dict[str, Any]:
    """What random numbers in its place must have."""
    value = tensor.detach()
    if not value.numel():
        return {}
    if not value.is_floating_point():
        low, high = int(value.min()), int(value.max())
        told: dict[str, Any] = {"low": low, "high": high}
        if value.dim() == 1 and value.dtype is not torch.bool and bool((value[1:] >= value[:-1]).all()):
            told["is_sorted"] = True
        return told
    finite = value[value.isfinite()].double()
    rms = math.sqrt(float(finite.square().mean())) if finite.numel() else 1.0
    told = {} if 0.5 <= rms <= 2 else {"rms": float(f"{rms:.1e}")}
    if rms and finite.numel() > 1 and bool((finite >= 0).all()):
        told["sign"] = "positive" if bool((finite > 0).all()) else "not negative"
    counts = {"nan": value.isnan(), "inf": value.isposinf(), "minus_inf": value.isneginf()}
    return told | {name: int(where.sum()) for name, where in counts.items() if bool(where.any())}


def _of_type(type: Type, call: Recorded) -> str:
    """A tensor of which only its type is known, or the rows of what a module gives."""
    sources, targets, edges = _sizes(call.graph)
    rows = {Domain.EDGE: edges, Domain.SOURCE: sources, Domain.GRAPH: call.num_graphs}.get(type.domain, targets)
    shape = [*([] if type.domain is Domain.GLOBAL else [rows]), *type.shape]
    if type.kind is Kind.FLOAT:
        return f'numbers({shape}, "{short(call.dtype)}", requires_grad=True)'
    if type.kind is Kind.BOOL:
        return f'numbers({shape}, "bool")'
    return f'numbers({shape}, "int64", high={(type.bound or 2) - 1})'
