"""The typed program: what a layer means for given arguments, as IR nodes and declarations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gdsl.ir.node import Node
from gdsl.ir.types import Type
from gdsl.language import ast
from gdsl.language.ast import Span

# A number, a flag, a word or nothing: what a layer's arguments are, known when the layer is constructed.
Constant = int | float | bool | str | None


@dataclass(frozen=True, slots=True)
class Init:
    """How a param starts: a name of :data:`INITS` and its arguments, or ``values`` and a number for each place."""

    name: str
    arguments: tuple[float, ...] = ()


# Initialisers: the least and the greatest number of arguments. What each does is in gdsl.runtime.initialise.
INITS: dict[str, tuple[int, int]] = {
    "zeros": (0, 0),
    "ones": (0, 0),
    "constant": (1, 1),
    "glorot": (0, 1),
    "glorot_normal": (0, 1),
    "kaiming_uniform": (0, 2),
    "kaiming_normal": (0, 2),
    "linear": (0, 1),
    "uniform": (0, 2),
    "normal": (0, 2),
    "orthogonal": (0, 1),
    "eye": (0, 0),
    "linspace": (2, 2),
    "arange": (0, 2),
}


@dataclass(frozen=True, slots=True)
class Declaration:
    """A value that comes from outside the program's rules.

    role:     "param", "buffer", "const", "input" or "module"
    default:  of an optional input, the number that stands for it when it is not passed
    optional: an input or module that may be left out
    present:  whether an optional one is there in this program
    module:   for a param that was read out of a torch module, that module's name
    """

    name: str
    role: str
    type: Type | None
    init: Init | None = None
    default: float | None = None
    optional: bool = False
    present: bool = True
    module: str | None = None
    span: Span = field(default=ast.NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class GraphTransform:
    """What the graph must be before the rules run. An argument is a constant or the IR node of a node value.

    For the self-loop transforms, ``keywords`` gives the value of each edge input on a new loop: a number, or
    the name of a reducer over the edges into the node.
    """

    name: str
    arguments: tuple[Constant | Node, ...] = ()
    keywords: tuple[tuple[str, Constant], ...] = ()
    span: Span = field(default=ast.NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule after loops were unrolled and branches taken. ``text`` is how it reads then."""

    kind: str
    name: str
    text: str
    type: Type
    node: Node
    span: Span = field(default=ast.NOWHERE, compare=False)

    def __repr__(self) -> str:
        return f"<Rule {self.text if len(self.text) < 100 else self.name}: {self.type}>"


@dataclass(frozen=True, slots=True)
class Requirement:
    """What must hold of the graph: ``stack(m, K)`` needs exactly K edges into each node."""

    kind: str
    end: str
    value: int
    span: Span = field(default=ast.NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class TypedProgram:
    """A layer, checked for given arguments.

    rules:    in the order of the text
    outputs:  the names and nodes of the results
    names:    the program's name of each node that has one; a name given twice is numbered, ``h``, ``h_2``
    requires: conditions on the graph that the runtime checks
    """

    name: str
    arguments: tuple[tuple[str, Constant], ...]
    declarations: tuple[Declaration, ...]
    transforms: tuple[GraphTransform, ...]
    rules: tuple[Rule, ...]
    outputs: tuple[tuple[str, Node], ...]
    names: Mapping[Node, str]
    bipartite: bool = False
    uses_seed: bool = False
    training: bool = False
    requires: tuple[Requirement, ...] = ()
    doc: str = ""

    def __repr__(self) -> str:
        results = ", ".join(f"{name}: {node.type}" for name, node in self.outputs[:4])
        return f"<TypedProgram {self.name}: {len(self.rules)} rules, returns {results}>"

    def __str__(self) -> str:
        """The rules as they read after loops were unrolled, each with its type."""
        arguments = ", ".join(f"{name} = {value}" for name, value in self.arguments)
        width = min(max((len(rule.text) for rule in self.rules), default=0), 80)
        lines = [f"    {rule.text.ljust(width)}  # {rule.type}" for rule in self.rules]
        results = ", ".join(name for name, _ in self.outputs)
        return "\n".join([f"layer {self.name}({arguments}) {{", *lines, f"    return {results}", "}"])

    def of_role(self, *roles: str) -> tuple[Declaration, ...]:
        """The declarations with one of these roles, in the order of the text."""
        return tuple(d for d in self.declarations if d.role in roles)
