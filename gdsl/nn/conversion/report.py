"""What became of the layers of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from gdsl.look.short import short


@dataclass(frozen=True)
class Left:
    """A module that stays as it is.

    kind:   its class
    reason: why
    """

    kind: str
    reason: str


@dataclass(frozen=True)
class Conversion:
    """What :func:`gdsl.nn.convert` does with the modules of a model.

    replaced: the classes of those that are replaced, by their places in the model; "" is the model itself
    left:     those of torch_geometric's, or derived from them, that stay
    """

    replaced: Mapping[str, str]
    left: Mapping[str, Left]

    def __repr__(self) -> str:
        return short(str(self))

    def __str__(self) -> str:
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(self.replaced.values()).items())
        lines = [f"replaced: {kinds or 'nothing'}"]
        lines += [f"  {name or '(the model)'}: {kind}" for name, kind in self.replaced.items()]
        if self.left:
            lines.append("left:")
            lines += [f"  {name or '(the model)'}: {left.kind}: {left.reason}" for name, left in self.left.items()]
        return "\n".join(lines)
