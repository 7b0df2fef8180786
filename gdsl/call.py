"""From the arguments of a call to checked tensors: every mistake is found here, before any kernel runs."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gdsl import parts
from gdsl.codegen import reference
from gdsl.codegen.reference import Frame
from gdsl.errors import GraphError, InputError
from gdsl.ir import build
from gdsl.ir.node import Node, substitute, walk
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind, Type
from gdsl.language.program import Declaration, GraphTransform, TypedProgram
from gdsl.language.signature import Signature
from gdsl.runtime.graph import Graph
from gdsl.runtime.neighbors import knn_graph
from gdsl.runtime.transforms import concrete

AUTOCAST = ("cpu", "cuda")  # kinds of device that a layer obeys torch.autocast on

# The real numbers that kernels and torch's own functions compute with.
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Bound:
    """A call's arguments by name."""

    values: Mapping[str, Any]
    graph: Any
    batch: Tensor | None = None
    num_graphs: int | None = None


@dataclass(frozen=True)
class Stage:
    """A part of a program up to a module that runs as it is.

    program: its outputs are the operands of the module, or, in the last stage, the results of the layer
    module:  the module's name; None in the last stage
    result:  the name under which later stages load what the module gives
    kind:    how the module runs, and at which end: see :class:`gdsl.ir.ops.libraries.Call`
    """

    program: Program
    module: str | None = None
    result: str = ""
    kind: str = ""
    end: str = ""
    type: Type | None = None


# ------------------------------------------------------------------------------------- arguments


def parameters(signature: Signature, takes_batch: bool) -> list[tuple[str, bool]]:
    """The call's parameters in order, each with whether it may be left out."""
    before, after = signature.before_graph, signature.after_graph
    names = [(i.name, False) for i in before if not i.optional]
    if not signature.builds_graph:
        names.append(("graph", False))
    names += [(i.name, False) for i in after if not i.optional]
    names += [(i.name, True) for i in (*before, *after) if i.optional]
    if takes_batch or signature.builds_graph:
        names += [("batch", True), ("num_graphs", True)]
    return names


def bind(signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], takes_batch: bool) -> Bound:
    """Match positional and keyword arguments with the layer's inputs."""
    expected = parameters(signature, takes_batch)
    names = [name for name, _ in expected]
    flat = _spread_pair(signature, args)
    usage = f"{signature.name} is called as layer({', '.join(n + ('=None' if opt else '') for n, opt in expected)})"
    if len(flat) > len(names):
        raise InputError(f"{usage}, and got {len(flat)} arguments")
    values = dict(zip(names, flat, strict=False))
    for name, value in kwargs.items():
        name = "graph" if name == "edge_index" and not signature.builds_graph else name
        if name not in names:
            raise InputError(f"{usage}: there is no `{name}`")
        if name in values:
            raise InputError(f"{usage}, and `{name}` came twice")
        values[name] = value
    missing = [name for name, optional in expected if not optional and values.get(name) is None]
    if missing:
        raise InputError(f"{usage}: `{missing[0]}` is missing")
    for name in names:
        values.setdefault(name, None)
    graph, batch, count = values.pop("graph", None), values.pop("batch", None), values.pop("num_graphs", None)
    return Bound(values, graph, concrete(batch, "batch") if isinstance(batch, Tensor) else batch, count)


def _spread_pair(signature: Signature, args: Sequence[Any]) -> list[Any]:
    """``layer((x_source, x_target), edge_index)`` as torch_geometric writes it."""
    pair = [i for i in signature.before_graph if not i.optional and i.domain in ("source", "target")]
    if args and isinstance(args[0], tuple | list) and len(pair) == 2 and len(args[0]) == 2:
        by_domain = {"source": args[0][0], "target": args[0][1]}
        return [by_domain[i.domain] for i in pair] + list(args[1:])
    return list(args)


def count_graphs(bound: Bound, device: torch.device | None = None) -> int:
    """How many graphs the batch vector tells apart."""
    batch, count = bound.batch, bound.num_graphs
    if count is not None:
        if isinstance(count, bool) or not hasattr(count, "__index__") or operator.index(count) < 0:
            raise InputError(f"`num_graphs` must be a whole number from 0, not {count!r}")
        count = operator.index(count)
    if batch is None:
        return 1 if count is None else count
    if not isinstance(batch, Tensor) or batch.dtype not in (torch.int64, torch.int32):
        kind = short(batch.dtype) if isinstance(batch, Tensor) else type(batch).__name__
        raise InputError(f"`batch` must be an int64 or int32 tensor [N], the graph of each node, not {kind}")
    if device is not None and batch.device != device:
        raise InputError(f"`batch` is on {batch.device}, and the inputs are on {device}: move one with .to()")
    if not batch.numel():
        return count or 0
    low, high = (int(v) for v in batch.aminmax())
    count = high + 1 if count is None else count
    if low < 0 or high >= count:
        bad = int(((batch < 0) | (batch >= count)).flatten().nonzero()[0])
        given = int(batch.flatten()[bad])
        raise InputError(f"node {bad} is in graph {given}, and graphs are numbered 0 to {count - 1}")
    return count


def free_sizes(signature: Signature, values: Mapping[str, Any], given: Mapping[str, int]) -> dict[str, int]:
    """Sizes of dims that are no arguments, from the tensors of this call."""
    sizes: dict[str, int] = dict(given)
    domains = {i.name: i.domain for i in signature.inputs}
    for name, place, dim in signature.free_places:
        value = values.get(name)
        if not isinstance(value, Tensor):
            continue
        shape = value.shape[1:]
        if domains[name] == "graph" and value.dim() == place + 1:
            shape = value.shape
        if place < len(shape) and sizes.setdefault(dim, shape[place]) != shape[place]:
            raise InputError(f"dim `{dim}` has size {sizes[dim]} and, in `{name}`, size {shape[place]}")
    for name in signature.free_dims:
        sizes.setdefault(name, 1)
    return sizes


# ------------------------------------------------------------------------------------- tensors


def check_tensors(tensors: Mapping[str, Tensor], typed: TypedProgram) -> tuple[torch.dtype, torch.device]:
    """Dtypes, devices and shapes. Gives the dtype and the device that all of them share."""
    first: tuple[str, Tensor] | None = None
    some: tuple[str, Tensor] | None = None
    for d in typed.declarations:
        if d.name not in tensors or d.type is None:
            continue
        value = tensors[d.name]
        if not isinstance(value, Tensor):
            raise InputError(f"`{d.name}` must be a tensor, not {type(value).__name__}")
        if value.layout is not torch.strided:
            layout = str(value.layout).removeprefix("torch.")
            raise InputError(f"`{d.name}` is a {layout} tensor, and must be a dense one: pass {d.name}.to_dense()")
        _check_kind(d, value)
        _check_shape(d, value)
        if some is None:
            some = (d.name, value)
        elif value.device != some[1].device:
            raise InputError(
                f"`{d.name}` is on {value.device} and `{some[0]}` is on {some[1].device}: move one with .to()"
            )
        if d.type.kind is Kind.INT:
            check_bound(d.name, d.type, value)
        if d.type.kind is Kind.FLOAT:
            if first is None:
                first = (d.name, value)
            elif value.dtype != first[1].dtype:
                raise InputError(
                    f"`{d.name}` is {short(value.dtype)} and `{first[0]}` is {short(first[1].dtype)}: "
                    f"convert one with .to({first[1].dtype})"
                )
    dtype = first[1].dtype if first else torch.get_default_dtype()
    device = some[1].device if some else torch.device("cpu")
    return dtype, device


def autocast(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as an autocast region wants them: a layer counts as an operation of the lower precision.

    As for torch's own operations of that kind, float64 stays, and so does what lies on a device without autocast.
    """
    return {name: lower(value) if isinstance(value, Tensor) else value for name, value in tensors.items()}


def lower(value: Tensor) -> Tensor:
    """A tensor as an autocast region wants it."""
    kind = value.device.type
    if kind not in AUTOCAST or not torch.is_autocast_enabled(kind):
        return value
    if not value.is_floating_point() or value.dtype == torch.float64:
        return value
    return value.to(torch.get_autocast_dtype(kind))


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check_kind(d: Declaration, value: Tensor) -> None:
    assert d.type is not None
    fits = {
        Kind.FLOAT: value.dtype in FLOATS,
        Kind.INT: value.dtype in (torch.int64, torch.int32),
        Kind.BOOL: value.dtype == torch.bool,
    }[d.type.kind]
    if not fits:
        wanted, how = {
            Kind.FLOAT: ("floating-point numbers" + " of 16 to 64 bits" * value.is_floating_point(), "float"),
            Kind.INT: ("int64 or int32", "long"),
            Kind.BOOL: ("bool", "bool"),
        }[d.type.kind]
        given = f"`{d.name}` must hold {wanted}, and it is {short(value.dtype)}"
        if value.is_complex():
            # What converts it drops the imaginary part.
            raise InputError(
                f"{given}: pass its parts, as torch.view_as_real({d.name}) or {d.name}.real, {d.name}.imag"
            )
        raise InputError(f"{given}: convert it with {d.name}.{how}()")


def check_bound(name: str, type: Type, value: Tensor) -> None:
    """Every integer lies below the bound of its type.

    While a CUDA graph is captured no value can be read: the calls before, which the capture needs, have checked it.
    """
    bound = type.bound
    value = concrete(value, name)
    if bound is None or not value.numel() or (value.is_cuda and torch.cuda.is_current_stream_capturing()):
        return
    low, high = value.aminmax()
    if int(low) < 0 or int(high) >= bound:
        bad = int(((value < 0) | (value >= bound)).flatten().nonzero()[0])
        row = f"{type.domain.value} {bad // type.numel}"
        number = int(value.flatten()[bad])
        raise InputError(f"{row} has {name} = {number}, and {name} must be from 0 to {bound - 1}")


def _check_shape(d: Declaration, value: Tensor) -> None:
    assert d.type is not None
    rows = {Domain.NODE: "N", Domain.SOURCE: "N_src", Domain.TARGET: "N_dst", Domain.EDGE: "E", Domain.GRAPH: "B"}
    lead = [] if d.type.domain is Domain.GLOBAL else [rows[d.type.domain]]
    tail = tuple(value.shape[len(lead) :])
    if value.dim() < len(lead) or tail != d.type.shape:
        sizes = zip(d.type.names, d.type.shape, strict=True)
        dims = ", ".join(lead + [n if n == str(s) else f"{n} = {s}" for n, s in sizes])
        raise InputError(f"`{d.name}` must have shape [{dims}], and it has shape {list(value.shape)}")


def node_counts(typed: TypedProgram, tensors: Mapping[str, Tensor]) -> tuple[int | None, int | None]:
    """(sources, targets) as the node inputs tell, None where no input does."""
    sources: int | None = None
    targets: int | None = None
    for d in typed.of_role("input"):
        if d.type is None or d.name not in tensors:
            continue
        rows = tensors[d.name].shape[0] if tensors[d.name].dim() else 0
        if d.type.domain in (Domain.NODE, Domain.SOURCE):
            sources = rows if sources is None else sources
        if d.type.domain in (Domain.NODE, Domain.TARGET):
            targets = rows if targets is None else targets
    return sources, targets


def check_rows(
    tensors: Mapping[str, Tensor], typed: TypedProgram, graph: Graph, batch: Tensor | None, num_graphs: int
) -> None:
    """Every input has a row for each node or edge of the graph, or for each graph of the batch."""
    counts = {
        Domain.NODE: (graph.num_targets, "nodes"),
        Domain.SOURCE: (graph.num_sources, "source nodes"),
        Domain.TARGET: (graph.num_targets, "target nodes"),
        Domain.EDGE: (graph.num_edges, "edges"),
        Domain.GRAPH: (num_graphs, "graphs"),
    }
    if not typed.bipartite and graph.num_sources != graph.num_targets:
        raise GraphError(
            f"{typed.name} needs one set of nodes, and the graph has {graph.num_sources} sources and "
            f"{graph.num_targets} targets"
        )
    if batch is not None and (batch.dim() != 1 or len(batch) != graph.num_targets):
        raise InputError(f"`batch` must have shape [{graph.num_targets}], and it has shape {list(batch.shape)}")
    agree: set[Domain] = set()
    for d in typed.of_role("input"):
        if d.type is None or d.name not in tensors or d.type.domain not in counts:
            continue
        count, what = counts[d.type.domain]
        rows = tensors[d.name].shape[0]
        if rows != count:
            owner = "batch" if d.type.domain is Domain.GRAPH else "graph"
            forgotten = rows > count and d.type.domain is Domain.NODE and Domain.NODE not in agree
            hint = f"; nodes without edges count too: gdsl.Graph(edge_index, num_nodes={rows})" if forgotten else ""
            have = f"the {owner} has {_plural(count, what)}"
            raise InputError(f"`{d.name}` has {_plural(rows, 'rows')}, and {have}{hint}")
        agree.add(d.type.domain)


def _plural(count: int, what: str) -> str:
    return f"{count} {what.removesuffix('s') if count == 1 else what}"


def check_degrees(program: str, requires: Iterable[tuple[str, int]], graph: Graph) -> None:
    """What the rules of a program require of every node: an end of edges, and how many there are at it."""
    for end, count in requires:
        degree = graph.in_degree if end == "i" else graph.out_degree
        wrong = (degree != count).nonzero()
        if len(wrong):
            node = int(wrong[0])
            kind = "in-edges" if end == "i" else "out-edges"
            raise GraphError(
                f"{program} needs exactly {count} {kind} for each node, and node {node} has {int(degree[node])}"
            )


def nearest(
    knn: GraphTransform,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
    device: torch.device,
    sizes: tuple[int | None, int | None],
    batch: Tensor | None,
) -> Graph:
    """The graph of the nearest neighbours of a node value."""
    where, k = knn.arguments
    assert isinstance(where, Node) and isinstance(k, int)
    count = sizes[1] or 0
    empty = Graph(torch.zeros(2, 0, dtype=torch.long, device=device), count)
    with torch.no_grad():
        values = {n: tensors[n.attrs.name] for n in walk([where]) if n.op == "load"}
        (points,) = reference.run([where], values, Frame(empty, dtype, device))
    return Graph(knn_graph(points, k, batch, loop=bool(dict(knn.keywords).get("loop", False))), count)


# ------------------------------------------------------------------------------------- modules


def cut(program: Program) -> tuple[Stage, ...]:
    """Cut a program at the modules that run as they are: each stage computes the operands of the next one."""
    stages: list[Stage] = []
    mapping: dict[Node, Node] = {}
    for call in [n for n in walk(program.nodes) if n.op == "call"]:
        result = f"{call.attrs.module}.{len(stages)}"
        operands = substitute(call.inputs, mapping)
        outputs = tuple((f"{result}.{k}", operands[i]) for k, i in enumerate(call.inputs))
        stage = Program(f"{program.name}_{len(stages)}", outputs, _renamed(program, operands))
        stages.append(Stage(stage, call.attrs.module, result, call.attrs.kind, call.attrs.end, call.type))
        mapping[call] = build.load(result, call.type, "input")
    last = substitute(program.nodes, mapping)
    final = program.with_outputs([last[n] for n in program.nodes], last) if stages else program
    return (*stages, Stage(final))


def _renamed(program: Program, mapping: Mapping[Node, Node]) -> dict[Node, str]:
    return {mapping[n]: name for n, name in program.names.items() if n in mapping}


def describe_modules(names: Sequence[str], stages: Sequence[Stage]) -> str:
    """A line for each module: whether it is part of the program or runs as it is."""
    # Of a list of modules some may run: "lins.0".
    called = {s.module.split(".")[0]: s.kind for s in stages if s.module is not None}
    how = {
        None: "read into the program",
        "map": "runs as it is, between kernels, on whole tensors",
        "aggregate": "runs as it is, between kernels, on the edges sorted by node",
    }
    return "\n".join(f"    {name}: {how[called.get(name)]}" for name in names)


def apply_module(module: nn.Module, stage: Stage, inputs: Sequence[Tensor], frame: Frame) -> Tensor:
    """Run a module on whole tensors. An aggregating one gets the edges sorted by node, as PyG's aggregations do."""
    assert stage.type is not None
    inputs = [v if v.is_floating_point() else v.long() for v in inputs]
    if stage.kind == "aggregate":
        order = frame.graph.in_edges if stage.end == "i" else frame.graph.out_edges
        rows = frame.rows(stage.type.domain)
        sorted_values = [v.index_select(0, order.edge.long()) for v in inputs]
        index = frame.ends(stage.end).index_select(0, order.edge.long())
        result = parts.aggregate(module, sorted_values, index, rows)
    else:
        # The values of a program are no variables: an input, or what later rules read, is not written to.
        writes = any(getattr(part, "inplace", False) for part in module.modules())
        result = module(*([v.clone() for v in inputs] if writes else inputs))
    shape = (frame.rows(stage.type.domain), *stage.type.shape)
    if not isinstance(result, Tensor) or tuple(result.shape) != shape:
        got = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise InputError(f"module `{stage.module}` gave {got}, and the program expects shape {list(shape)}")
    return result
