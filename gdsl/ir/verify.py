"""Whether a program is well formed: every node is held against the definition of its op.

A definition says how many operands an op has, which attributes of which type and range, and makes the node once more.
What comes out must be the node itself, so that domain, dims, kind and bound are never taken on trust. Readers of files
rely on it: kernels are generated from what passes here, and from nothing else.
"""

from __future__ import annotations

from gdsl.errors import ProgramError
from gdsl.ir.attributes import MOST, IRError, need, shown, whole
from gdsl.ir.node import Node, walk
from gdsl.ir.ops import OPS, Op
from gdsl.ir.ops.products import MOST_DIMS
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind, Type

# Numbers of a row: there is no memory for more.
MOST_NUMBERS = 2**40


def verify(program: Program) -> Program:
    """The program itself, whose nodes are all well formed.

    Raises :class:`gdsl.errors.ProgramError` with the op, the field and the rule of the first node that is not.
    """
    for node in walk(program.nodes):
        verify_node(node)
    for node in (*program.inputs, *program.nodes):
        if node.domain is Domain.PAIR:
            raise ProgramError(f"no value of pairs is stored, and an input or output is {node.type}")
    return program


def verify_node(node: Node) -> None:
    """The same for one node, whose operands are well formed."""
    op = OPS.get(node.op)
    if op is None:
        raise ProgramError(f"there is no op {shown(node.op)}")
    try:
        _check_type(node.type)
        _check_attributes(node, op)
        made = op.rule(node)
        if made is not node:
            raise IRError(_difference(node, made))
    except IRError as error:
        raise ProgramError(f"`{node.op}`: {error}") from error


def _check_type(type: Type) -> None:
    need(isinstance(type.domain, Domain) and isinstance(type.kind, Kind), f"there is no type {type!r}")
    need(len(type.dims) <= MOST_DIMS, f"a value has at most {MOST_DIMS} dims, not {len(type.dims)}")
    for d in type.dims:
        need(isinstance(d.name, str), f"a dim has a name, not {shown(d.name)}")
        need(whole(d.size) and 0 <= d.size <= MOST, f"the size of a dim is from 0 to {MOST}, not {shown(d.size)}")
    need(type.numel <= MOST_NUMBERS, f"a row has at most {MOST_NUMBERS} numbers, not {type.numel}")
    need(len(set(type.names)) == len(type.dims), f"a dim occurs twice in {type}")
    bounded = type.bound is None or (type.kind is Kind.INT and whole(type.bound) and 0 <= type.bound < 2**63)
    need(bounded, f"only an int has a bound, from 0 to 2^63 - 1, and {type} has {shown(type.bound)}")


def _check_attributes(node: Node, op: Op) -> None:
    fewest, most = op.operands
    wanted = f"{fewest} operands" if fewest == most else f"{fewest} to {most} operands"
    need(fewest <= len(node.inputs) <= most, f"it has {wanted}, not {len(node.inputs)}")
    need(type(node.attrs) is op.attrs, f"its attributes are {op.attrs.__name__}, not {shown(node.attrs)}")
    for name, allowed in op.fields.items():
        value = getattr(node.attrs, name)
        need(allowed.is_one(value), f"its attribute `{name}` is {allowed.words}, not {shown(value)}")
        for inner in walk([value] if isinstance(value, Node) else []):
            verify_node(inner)


def _difference(node: Node, made: Node) -> str:
    """The field in which a node is not what its constructor makes."""
    if made.op != node.op or made.inputs != node.inputs:
        have, want = (f"{n.op}({', '.join(str(i.type) for i in n.inputs)})" for n in (node, made))
        return f"its operands do not fit: {have}, where {want} is made of them"
    if made.type != node.type:
        return f"its type is {made.type!r}, not {node.type!r}"
    return f"its attributes are {made.attrs}, not {node.attrs}"
