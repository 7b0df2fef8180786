"""Modules as declarations: the body of a class names the arguments of its constructor, and what follows from them
follows. For layers with a program see :mod:`gdsl.nn.conv.programmed`.

    @declared(shows="K")
    class Powers(nn.Module):
        in_channels: int
        K: int = 3
        bias: InitVar[bool] = True

The constructor takes the arguments in this order and keeps them under their names, but for an ``InitVar``, which is an
attribute until ``_setup`` has run. In the end comes ``reset_parameters``. Neither has to be there. ``shows`` are the
words of the ``repr`` besides the sizes: "name=attribute", or a name alone for both.
"""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from inspect import get_annotations
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

from torch import nn

from gdsl.nn.inits import reset

__all__ = ["Fields", "InitVar", "Module", "declare", "declared", "field", "redraw", "words"]

Kind = TypeVar("Kind", bound=type)

if TYPE_CHECKING:

    class Module(nn.Module):
        """torch's, with attributes of any type: arguments that are not kept often give a part its name."""

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

else:
    Module = nn.Module

SIZES = ("in_channels", "out_channels", "channels")


@dataclass(frozen=True)
class Fields:
    """The arguments of a constructor.

    types:   as they are written, by name
    passing: those that are not kept
    shows:   words of the ``repr`` and the attributes behind them
    """

    types: dict[str, str]
    passing: tuple[str, ...]
    shows: tuple[tuple[str, str], ...]

    def words(self, made: Any) -> str:
        """The ``repr`` of an object."""
        parts = [str(getattr(made, name)) for name in SIZES if name in self.types and name not in self.passing]
        parts += [f"{word}={getattr(made, name)}" for word, name in self.shows]
        return f"{type(made).__name__}({', '.join(parts)})"


@dataclass_transform(eq_default=False, field_specifiers=(field,))
def declared(
    kind: Kind | None = None, *, shows: str = "", rest: str = "", base: str = "", drawn: bool = True, words: bool = True
) -> Any:
    """A class decorator; see the module.

    rest:  the name of further arguments by name, which are an attribute until ``_setup`` has run, too
    base:  the arguments of the constructor of the base class
    drawn: whether ``reset_parameters`` is called
    words: whether there is a ``repr`` of the arguments; otherwise it is torch's, of the parts
    """
    if kind is None:
        return functools.partial(declared, shows=shows, rest=rest, base=base, drawn=drawn, words=words)
    first = [f"super(kind, self).__init__({base})", *([f"self.__dict__['{rest}'] = {rest}"] if rest else [])]
    last = [f"self.__dict__.pop('{rest}', None)"] if rest else []
    return declare(kind, shows, rest, first, last, drawn=drawn, words=words)


def declare(
    kind: Kind,
    shows: str,
    rest: str,
    first: Sequence[str],
    last: Sequence[str] = (),
    keep: Callable[[Any], Any] | None = None,
    handed: str = "",
    drawn: bool = True,
    words: bool = True,
) -> Kind:
    """Write the constructor of a class.

    first:  its first statements
    last:   statements between ``_setup`` and ``reset_parameters``, which may say what attributes they have ``made``
    keep:   of a module or a function, what is kept
    handed: an argument that the base class keeps
    drawn:  whether ``reset_parameters`` is called in the end
    words:  whether the ``repr`` is of the arguments
    """
    types, defaults, passing = {}, {}, []
    for name, written in get_annotations(kind).items():
        if written.startswith("ClassVar["):
            continue
        types[name] = written
        if written.startswith("InitVar["):
            types[name] = written[len("InitVar[") : -1]
            passing.append(name)
        if name in kind.__dict__:
            defaults[name] = kind.__dict__[name]
            delattr(kind, name)  # it would hide a parameter of that name
    names: Any = kind
    names._declared = Fields(types, tuple(passing), tuple((w.split("=")[0], w.split("=")[-1]) for w in shows.split()))
    if words and "__repr__" not in kind.__dict__:
        names.__repr__ = _words

    taken = ["self", *(f"{name}=of_{name}" if name in defaults else name for name in types)]
    lines, parts = ["own = self.__dict__"], []
    for name, written in types.items():
        if name == handed:
            continue
        if name not in passing and any(word in written for word in ("Module", "Callable", "Tensor", "Any")):
            wrapped = keep is not None and ("Module" in written or "Callable" in written)
            parts.append(f"self.{name} = {f'keep({name})' if wrapped else name}")
        else:  # torch's way to set an attribute takes long
            lines.append(f"own['{name}'] = {name}")
    lines += [*first, *parts, *(["self._setup()"] if hasattr(kind, "_setup") else [])]
    lines += ["made = ()", *last] if passing or last else []
    written_to = {i.argval for i in dis.get_instructions(getattr(kind, "_setup", _words)) if i.opname == "STORE_ATTR"}
    for name in passing:
        if name not in written_to:
            lines.append(f"if own.get('{name}', own) is {name} and '{name}' not in made: del own['{name}']")
    if drawn and hasattr(kind, "reset_parameters"):
        lines.append("self.reset_parameters()")
    values = {"kind": kind, "keep": keep, **{f"of_{name}": value for name, value in defaults.items()}}
    head = f"def __init__({', '.join(taken + ([f'**{rest}'] if rest else []))}):"
    names.__init__ = made = _function(values, head, lines, vars(sys.modules[kind.__module__]))
    made.__qualname__ = f"{kind.__qualname__}.__init__"
    made.__annotations__ = {**types, **({rest: "Any"} if rest else {})}
    return kind


def _function(values: Mapping[str, Any], head: str, lines: Sequence[str], names: dict[str, Any]) -> Any:
    """A function from text, as :mod:`dataclasses` has it: its errors are Python's own, and it is as fast as by hand."""
    body = "".join(f"\n        {line}" for line in lines)
    space: dict[str, Any] = {}
    exec(f"def make({', '.join(values)}):\n    {head}{body}\n    return __init__", names, space)
    return space["make"](**values)


def words(shown: str) -> Callable[[Any], str]:
    """A ``repr`` that shows attributes, as in "{self.channels}, heads={self.heads}"."""
    return lambda self: f"{type(self).__name__}({shown.format(self=self)})"


def redraw(self: Any) -> None:
    """Draw the parameters anew."""
    for part in self.children():
        reset(part)


def _words(self: Any) -> str:
    return self._declared.words(self)
