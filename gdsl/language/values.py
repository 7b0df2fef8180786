"""What a name can stand for while a layer is checked, besides IR nodes and constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gdsl.ir.node import Node
from gdsl.ir.types import Dim
from gdsl.language import ast
from gdsl.language.program import Constant
from gdsl.language.sizes import Size


@dataclass(frozen=True)
class UserFunction:
    """``def``: its body is checked where it is called, with the arguments for its parameters."""

    definition: ast.Function


@dataclass(frozen=True)
class UserReducer:
    """``reduce``: a fold over the edges of each node."""

    definition: ast.Reducer
    initial: float


@dataclass(frozen=True)
class ModuleValue:
    """``module``: a torch module, or None when the program is checked without one.

    function: what is computed where there is no module
    takes, gives: of linear maps, the dims of argument and result
    count:    of a list of them, how many there are
    """

    name: str
    module: Any
    function: str | None = None
    takes: Dim | None = None
    gives: Dim | None = None
    count: int | None = None


@dataclass(frozen=True)
class Argument:
    """What a call gives an argument of a layer: a constant, a module of the caller's or a torch module, and where.

    size: of a whole number, the size expression
    dims: of a table of the caller's
    """

    value: Any
    size: Size | None
    span: ast.Span
    dims: tuple[Dim, ...] = ()


@dataclass(frozen=True)
class LayerValue:
    """A layer that can be called: one that the text has or uses, or an instance of it.

    name:  of the instance, "" of what makes one at each call
    given: the arguments of the instance
    count: of a list of instances, how many there are
    """

    definition: ast.Layer
    name: str = ""
    given: Mapping[str, Argument] = field(default_factory=dict)
    count: int | None = None


@dataclass(frozen=True)
class LayerResults:
    """What a layer with several results gives: a value by its place or its name."""

    layer: str
    values: tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class Absent:
    """An optional input that was not passed and has no default, or a part of the layer that was left out."""

    name: str
    part: bool = False


class Poison:
    """The value of a name whose definition has a mistake: says nothing more about it."""


class Poisoned(Exception):
    """An expression reads a poisoned name: the statement is skipped without a word."""


POISON = Poison()

# A torch module that is there, and is not looked at.
UNKNOWN = object()

Value: TypeAlias = (
    Node | Constant | UserFunction | UserReducer | ModuleValue | LayerValue | LayerResults | Absent | Poison
)


@dataclass
class Scope:
    """The names of a layer, and over them the parameters of the function being called."""

    names: dict[str, Value] = field(default_factory=dict)
    local: Mapping[str, Value] = field(default_factory=dict)

    def find(self, name: str) -> Value | type[KeyError]:
        """The value, or ``KeyError`` itself when there is none: None is a value."""
        if name in self.local:
            return self.local[name]
        return self.names.get(name, KeyError)

    def __contains__(self, name: str) -> bool:
        return name in self.local or name in self.names


def is_constant(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """A number without a fraction; not infinite and not NaN."""
    return is_number(value) and (isinstance(value, int) or float(value).is_integer())  # type: ignore[arg-type]
