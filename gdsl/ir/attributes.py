"""What an op needs to know besides its operands and its type, as typed records; and what each field may hold."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, dataclass_transform

from gdsl.errors import GdslError

if TYPE_CHECKING:
    from gdsl.ir.node import Node


class IRError(GdslError, TypeError):
    """A node cannot be made: domains, dims, kinds or attributes do not fit. ``hint`` says what would."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message if hint is None else f"{message} ({hint})")
        self.message, self.hint = message, hint


@dataclass_transform(frozen_default=True)
class Attrs:
    """The attributes of a node: an immutable record. An op that has some has a class of its own, whose fields are
    annotated with the :class:`Allowed` that they may be; an op without any has :data:`NONE`.

    A field's name means the same in all ops, and has one type: these. (A dataclass each would do, and make every start
    of the command line wait for 20 of them, a millisecond each.)
    """

    fields: ClassVar[tuple[str, ...]] = ()

    if TYPE_CHECKING:
        bound: int  # of an integer: it is below
        default: float  # where there is nothing to read
        degree: int  # of a spline
        dim: str
        dims: tuple[str, ...]
        end: str  # of an edge, or "g"
        ends: tuple[str | None, ...]
        graph: str  # that an edge is of
        init: float  # what a fold starts from
        kernel_size: int
        kind: str  # of a module's call
        last: bool  # whether a fold gives its end, not what it has come to at each edge
        module: str
        name: str
        new: str  # a dim that an op makes
        numbers: tuple[float, ...]  # of a table, those that are not 0
        order: int  # of a derivative
        places: tuple[int, ...]  # of these numbers, row-major
        q: float  # a quantile
        reduce: tuple[str, ...]  # dims that are summed over
        reducer: str
        reverse: bool
        role: str
        salt: int  # tells the random numbers of one seed apart
        shift: int  # places along a dim
        side: str  # of a quantile between two values
        start: int
        step: Node  # of a fold
        total: bool  # whether a sum is over all rows, too
        value: bool | int | float
        what: str  # a value that a graph has
        wire: str  # as what numbers go to other processes

    def __init_subclass__(cls) -> None:
        cls.fields = tuple(cls.__annotations__)

    def __init__(self, *args: Any, **more: Any):
        given = dict(zip(self.fields, args, strict=False), **more)
        for field in self.fields:
            self.__dict__[field] = given.pop(field) if field in given else getattr(type(self), field)
        if given or len(args) > len(self.fields):
            raise TypeError(f"{type(self).__name__} has the fields {self.fields}, not {args} and {more}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"attributes of a node are immutable: {name}")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.items())})"

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and values, in the order of the definition."""
        return self.__dict__.items()


NONE = Attrs()


# ------------------------------------------------------------------------------- what a field may be


@dataclass(frozen=True)
class Allowed:
    """What an attribute may be: ``is_one`` of a value, and the same in words."""

    words: str
    is_one: Callable[[Any], bool]


def whole(value: Any) -> bool:
    """Whether a value is an int, which a bool is to Python, too."""
    return type(value) is int


def number(least: int, most: int) -> Allowed:
    return Allowed(f"an int from {least} to {most}", lambda v: whole(v) and least <= v <= most)


def one_of(words: Iterable[str]) -> Allowed:
    words = tuple(words)
    return Allowed(f"one of {', '.join(words)}", lambda v: type(v) is str and v in words)


def _is_names(value: Any) -> bool:
    return type(value) is tuple and all(type(v) is str for v in value)


BOOL = Allowed("true or false", lambda v: type(v) is bool)
FLOAT = Allowed("a float", lambda v: type(v) is float)
SHARE = Allowed("a float from 0 to 1", lambda v: type(v) is float and 0.0 <= v <= 1.0)
NAME = Allowed("a name", lambda v: type(v) is str)
NAMES = Allowed("names", _is_names)

# Places of a dim. Kernels count those of all rows in 64 bits, and there is no memory for more than that many.
MOST = 2**31 - 1


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def shown(value: Any) -> str:
    """A value as a message shows it: cut short, since it may be anything."""
    return _SHORT.repr(value)


def need(holds: bool, rule: str) -> None:
    """Raise the rule where it does not hold."""
    if not holds:
        raise IRError(rule)
