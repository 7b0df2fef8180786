"""A message and what becomes of it, as typed programs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from gdsl.errors import GdslError, InternalWarning, ProgramError
from gdsl.ir import build
from gdsl.ir.node import Node, substitute
from gdsl.ir.printer import expression, name_nodes
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind, Type
from gdsl.language.modules import Reader, Unreadable, no_dropout, read_aggregation
from gdsl.language.program import Declaration, Rule, TypedProgram
from gdsl.module.ways import CallKind
from gdsl.nn.lazy import GIVEN
from gdsl.nn.symbolic import TensorValue, Untraceable, loaded


@dataclass(frozen=True, slots=True)
class MessagePrograms:
    """What is computed of a message.

    kinds:  the values that the method keeps, each from those before it, and the result from all of them
    params: the parameters of the aggregation
    """

    kinds: tuple[CallKind, ...]
    params: tuple[str, ...]


def aggregated(path: str, module: nn.Module, message: TensorValue, rows: Domain) -> tuple[Node, tuple[str, ...]]:
    """The aggregate of the messages by a module at a place of a layer, and the names of the parameters that it reads.

    Raises Untraceable or Unreadable where the aggregation is not a function of the IR.
    """
    if not message.on_rows or message.node.kind is not Kind.FLOAT:
        raise Untraceable("the messages are no real numbers of each edge")
    reader = Reader(path, no_dropout)
    out = read_aggregation(reader, path, module, message.ordered(), "i", rows)
    return out, tuple(reader.params)


def programs(
    name: str, held: Sequence[TensorValue], message: TensorValue, out: Node, rows: Domain, draws: bool
) -> Iterator[TypedProgram]:
    """What computes each value that a method keeps, from those before it, and the result from all of them.

    rows:  where the targets live
    draws: whether there are random numbers in them
    """
    loads = dict[Node, Node]()
    facts = (rows is Domain.TARGET, draws)
    for k, value in enumerate(held):
        yield _typed(name, _with(build.to_float(value.ordered()), loads), {}, *facts)
        loads[value.node] = _loaded_as(f"kept.{k}", value)
    yield _typed(name, _with(out, loads), {_with(message.ordered(), loads): "message"}, *facts)


def _typed(name: str, node: Node, named: Mapping[Node, str], bipartite: bool, draws: bool) -> TypedProgram:
    """An expression as a program. Its parameters are the layer's, by their names."""
    outputs = (("out", node),)
    names = name_nodes(Program(name, outputs, named))
    declared, rules = [], []
    for load in Program(name, outputs).inputs:
        own = load.attrs.role == "param" and not load.attrs.name.startswith(GIVEN)
        if load.attrs.role != "seed":
            declared.append(Declaration(load.attrs.name, "param" if own else "input", load.type))
    for value, word in {**names, node: "out"}.items():
        if value.op != "load":
            rules.append(Rule("update", word, f"{word} = {expression(value, names)}", value.type, value))
    return TypedProgram(name, (), tuple(declared), (), tuple(rules), outputs, names, bipartite, draws)


def _with(node: Node, kept: Mapping[Node, Node]) -> Node:
    """An expression that reads what is kept."""
    return substitute([node], kept)[node] if kept else node


def _loaded_as(name: str, value: TensorValue) -> Node:
    """An input in the place of a value."""
    inside = loaded(name, Domain.EDGE, value.sizes, value.node.kind)
    dims = tuple(value.node.type.dim(a) for a in value.axes if a is not None)
    shaped = build.reshape_like(inside.node, Type(Domain.EDGE, dims, value.node.kind))
    return build.transpose(shaped, value.node.type.names)


def reason(error: Exception) -> str:
    """Why a message is not compiled. It runs on tensors then, right but slower, so a warning tells a bug of gdsl."""
    if isinstance(error, Untraceable | Unreadable | GdslError) and not isinstance(error, ProgramError):
        return str(error) or "it is not read"
    told = f"gdsl could not compile it: {type(error).__name__}: {error}"
    warnings.warn(f"{told}. This is a bug of gdsl; the layer runs unfused", InternalWarning, stacklevel=2)
    return told
