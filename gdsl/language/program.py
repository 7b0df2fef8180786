"""The typed program: what a layer means for given arguments, as IR nodes and declarations."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gdsl import html
from gdsl.ir.node import Node
from gdsl.ir.ops.tables import MOST_NUMBERS
from gdsl.ir.program import Program
from gdsl.ir.spaces import NamedGraph, Spaces
from gdsl.ir.types import Dim, Type
from gdsl.language import ast
from gdsl.language.ast import Span

# Values of a layer's arguments that are compared and looked up at each call.
_NUMBERS = (int, float)


@dataclass(frozen=True, slots=True, eq=False)
class ConstantTable:
    """Numbers for each place of some dims, the last one fastest. It is looked up as quickly as a name."""

    shape: tuple[int, ...]
    numbers: tuple[float, ...]
    key: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", hash((self.shape, self.numbers)))

    def __hash__(self) -> int:
        return self.key

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConstantTable):
            return False
        return self is other or (self.key, self.shape, self.numbers) == (other.key, other.shape, other.numbers)

    def __repr__(self) -> str:
        return f"<{' x '.join(map(str, self.shape))} numbers>"

    def nested(self) -> list[Any]:
        """As lists of lists."""
        level: list[Any] = list(self.numbers)
        for d in range(len(self.shape) - 1, 0, -1):
            size = self.shape[d]
            level = [level[k * size : (k + 1) * size] for k in range(math.prod(self.shape[:d]))]
        return level


# A table whose numbers nobody gave, of whatever shape it is declared with: `gdsl check` has it.
NOT_GIVEN = ConstantTable((), ())

# A number, a flag, a word, a table or nothing: what a layer's arguments are, known when the layer is constructed.
Constant = int | float | bool | str | ConstantTable | None


def table_of(value: Any) -> ConstantTable | float | None:
    """A table from nested lists, an array or a tensor; a number alone as it is, and None for what is neither."""
    if isinstance(value, ConstantTable):
        return value
    found = _flat(value)
    if found is None or not all(map(_is_finite, found[1])):
        return None
    shape, numbers = found
    return ConstantTable(shape, tuple(map(float, numbers))) if shape else float(numbers[0])


def _flat(value: Any) -> tuple[tuple[int, ...], list[Any]] | None:
    """The shape and what stands at the places, the last dim fastest; None where there is no such order."""
    # Nothing is made of an array that no table is as large as.
    if math.prod(getattr(value, "shape", None) or (1,)) > MOST_NUMBERS:
        return None
    try:
        nested = value.tolist() if hasattr(value, "tolist") else value
    except (RuntimeError, NotImplementedError):  # what a tensor without such numbers raises
        return None
    shape: list[int] = []
    level = [nested]
    while level and all(isinstance(v, list | tuple) for v in level):
        if len({len(v) for v in level}) != 1:
            return None
        shape.append(len(level[0]))
        level = [inner for v in level for inner in v]
    return tuple(shape), level


def _is_finite(value: Any) -> bool:
    # An integer may be too large for a float, of which isfinite would raise.
    return isinstance(value, _NUMBERS) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def why_no_table(value: Any, name: str) -> str | None:
    """What is wrong with what was given for a table, and how to get the numbers of a tensor that has them elsewhere."""
    layout = str(getattr(value, "layout", "")).removeprefix("torch.")
    if layout.startswith("sparse"):
        return f"it is a {layout} tensor: pass {name}.to_dense()"
    if getattr(value, "is_meta", False):
        return "it is on the meta device, and has no numbers"
    if getattr(value, "is_quantized", False):
        return f"it is quantized: pass {name}.dequantize()"
    count = math.prod(getattr(value, "shape", None) or (1,))
    if count > MOST_NUMBERS:
        return f"it has {count} numbers, and a table at most {MOST_NUMBERS}: make it a buffer that Python fills"
    found = _flat(value)
    if found is None:
        return "its rows are not all as long" if isinstance(value, list | tuple) else None
    shape, numbers = found
    place = next((k for k, number in enumerate(numbers) if not _is_finite(number)), None)
    if not shape or place is None:
        return None
    at: list[int] = []
    for size in reversed(shape):
        at.insert(0, place % size)
        place //= size
    wrong = next(number for number in numbers if not _is_finite(number))
    huge = isinstance(wrong, int) and not isinstance(wrong, bool)  # Python may refuse to write out its digits
    return f"at {at} it is {'an integer that no float is as large as' if huge else wrong}"


@dataclass(frozen=True, slots=True)
class Init:
    """How a param starts: a name of :data:`INITS` and its arguments, or ``values`` and a number for each place."""

    name: str
    arguments: tuple[float, ...] = ()


# What holds several layers of a name.
LIST = "[]"


@dataclass(frozen=True, slots=True)
class Part:
    """Linear maps that a layer makes itself, as torch modules under one name.

    sizes:      of the input, of what is between two maps, and of the result
    mlp:        whether it is an mlp, and not one linear map
    activation: a function of :data:`ACTIVATIONS` and its arguments, between two maps
    norm:       "layer_norm" or "batch_norm", before each activation
    dropout:    the rate, after each activation
    weight:     how weights start; None is as torch draws them
    bias:       how biases start; None is as torch draws them, False that there are none
    count:      how many there are, in a list; None is one that is in no list
    layer:      of a layer that is called, its name, or LIST for several: what holds parameters, and has no sizes
    """

    sizes: tuple[Dim, ...]
    mlp: bool
    activation: Init | None = None
    norm: str | None = None
    dropout: float = 0.0
    weight: Init | None = None
    bias: Init | Literal[False] | None = None
    count: int | None = None
    layer: str = ""


# The functions that may stand between the maps of an mlp: the least and the greatest number of arguments after x.
ACTIVATIONS: dict[str, tuple[int, int]] = {
    "relu": (0, 0),
    "silu": (0, 0),
    "gelu": (0, 0),
    "tanh": (0, 0),
    "sigmoid": (0, 0),
    "elu": (0, 1),
    "leaky_relu": (0, 1),
    "softplus": (0, 0),
}

NORMS = ("layer_norm", "batch_norm")

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
    part:     for a module that the layer makes itself if none is passed, what it is
    within:   of an input of a layer on several graphs, the graph of its edges or the set of its nodes
    """

    name: str
    role: str
    type: Type | None
    init: Init | None = None
    default: float | None = None
    optional: bool = False
    present: bool = True
    module: str | None = None
    part: Part | None = None
    within: str = ""
    span: Span = field(default=ast.NOWHERE, compare=False)


# The transforms that make a graph, so that a call takes none.
MAKERS = ("knn", "complete")


@dataclass(frozen=True, slots=True)
class GraphTransform:
    """What the graph must be before the rules run. An argument is a constant or the IR node of a node value.

    For the self-loop transforms, ``keywords`` gives the value of each edge input on a new loop: a number, or
    the name of a reducer over the edges into the node. ``graph`` is the one that is meant where there are several.
    """

    name: str
    arguments: tuple[Constant | Node, ...] = ()
    keywords: tuple[tuple[str, Constant], ...] = ()
    span: Span = field(default=ast.NOWHERE, compare=False)
    graph: str = ""


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
    """What must hold of the graph: ``stack(m, K)`` needs exactly K edges into each node, and ``e[reverse]`` an edge the
    other way for each edge. ``graph`` is the one that is meant where there are several."""

    kind: str
    end: str
    value: int
    span: Span = field(default=ast.NOWHERE, compare=False)
    graph: str = ""


@dataclass(frozen=True, slots=True)
class Reduction:
    """A call that reduces a value of edges at an end of them, in the text or in a layer that it calls.

    message: the value of edges
    said:    whether a rule calls it a message
    inside:  where it is in a layer that is called, the first result of that
    """

    message: Node
    result: Node
    end: str
    said: bool
    inside: Node | None = None


@dataclass(frozen=True, slots=True)
class TypedProgram:
    """A layer, checked for given arguments.

    rules:    in the order of the text
    outputs:  the names and nodes of the results
    names:    the program's name of each node that has one; a name given twice is numbered, ``h``, ``h_2``
    requires: conditions on the graph that the runtime checks
    graphs:   those that the layer names; none where it runs on one
    reductions: over edges, in their order
    softmaxes: values of edges that are a softmax over those of a node
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
    graphs: tuple[NamedGraph, ...] = ()
    doc: str = ""
    reductions: tuple[Reduction, ...] = ()
    softmaxes: tuple[Node, ...] = ()

    def __repr__(self) -> str:
        results = ", ".join(f"{name}: {node.type}" for name, node in self.outputs[:4])
        return f"<TypedProgram {self.name}: {len(self.rules)} rules, returns {results}>"

    def _repr_html_(self) -> str:
        results = ", ".join(f"{name}: {node.type}" for name, node in self.outputs)
        return html.page(
            f"program {self.name}", html.line(f"{len(self.rules)} rules, returns {results}"), self.table_of_rules()
        )

    @property
    def spaces(self) -> Spaces:
        """Which graph or set the values are of; of a layer on one graph, of none."""
        return Spaces({g.name: g for g in self.graphs}, {d.name: d.within for d in self.declarations if d.within})

    def table_of_rules(self) -> str:
        """The rules with their types, as a table of a page."""
        spaces = self.spaces
        return html.table(("rule", "type"), ((r.text, spaces.shown(r.node)) for r in self.rules))

    def __str__(self) -> str:
        """The rules as they read after loops were unrolled, each with its type."""
        arguments = ", ".join(f"{name} = {value}" for name, value in self.arguments)
        width = min(max((len(rule.text) for rule in self.rules), default=0), 80)
        spaces = self.spaces
        lines = [f"    {rule.text.ljust(width)}  # {spaces.shown(rule.node)}" for rule in self.rules]
        results = ", ".join(name for name, _ in self.outputs)
        return "\n".join([f"layer {self.name}({arguments}) {{", *lines, f"    return {results}", "}"])

    @property
    def complete(self) -> bool | None:
        """Whether the complete graph that the program makes has loops; None where it makes none."""
        found = next((t for t in self.transforms if t.name == "complete"), None)
        return None if found is None else dict(found.keywords).get("loops") is not False

    @property
    def program(self) -> Program:
        """Its results as a program of the IR."""
        return Program(self.name, self.outputs, self.names)

    def of_role(self, *roles: str) -> tuple[Declaration, ...]:
        """The declarations with one of these roles, in the order of the text."""
        return tuple(d for d in self.declarations if d.role in roles)
