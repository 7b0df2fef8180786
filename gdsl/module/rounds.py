"""What explainers look at in a text: its messages, and how many times they are passed on one after the other.

torch_geometric's tools count modules that pass messages for hops, and a text may pass them many times: a loop, layers
that it calls. So a text counts for its first round, and there is a module without anything in it for each later one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from torch import Tensor, nn

from gdsl.errors import InputError
from gdsl.ir.node import Node, walk
from gdsl.ir.types import Domain
from gdsl.language.program import MAKERS, Reduction, TypedProgram
from gdsl.module import host
from gdsl.module.hooks import Hooked

_ROWS = (Domain.NODE, Domain.SOURCE, Domain.TARGET)

# How far what a value depends on is away from its node: -1 is that it depends on none. Of an edge's value, from its
# target and from its source.
Reach = tuple[int, int]


class _Told:
    """What torch_geometric's tools ask of a layer, and a text says by what it is. No attribute of a text that has a
    parameter of this name.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, module: Any, owner: type) -> Any:
        parts = () if module is None else (module._parameters, module._buffers, module._modules)
        if parts and not any(self.name in held for held in parts):
            found = module._tell(self.name)
            if found is not None:
                return found
        raise AttributeError(f"'{owner.__name__}' object has no attribute '{self.name}'")


@host.stands_for("torch_geometric.nn.conv.message_passing", "MessagePassing")
class PassesMessages(nn.Module):
    """What torch_geometric's tools take for a layer of its own.

    flow:         "target_to_source" where all messages are reduced at their sources
    in_channels:  the last dim of what messages of the first round read at an end of their edges
    out_channels: the last dim of these messages
    """

    flow: Any = _Told()
    in_channels: Any = _Told()
    out_channels: Any = _Told()


class Masked(Hooked):
    """A text, or one of its rounds: an edge mask follows the edges through what the text asks of its graph."""

    _points = ("propagate", "message", "aggregate")

    # The mask on the edges that the rules see, while a call has one.
    _moved: Any = None

    def _mask_of(self, mask: Tensor, edges: int, dim_size: int | None) -> Tensor:
        return mask if self._moved is None else self._moved(mask)


class InRounds(Masked):
    """A text, as the first round of its messages; see the module."""

    # Those after the first, once somebody has asked, and the program that told of them.
    _rounds: tuple[Round, ...] | None = None
    _rounds_of: TypedProgram | None = None

    def _outline(self) -> TypedProgram:
        """The program with all optional inputs, as far as it is known."""
        raise NotImplementedError

    def _tell(self, name: str) -> Any:
        typed = self._outline()
        if any(d.name == name for d in typed.declarations):
            return None
        if name == "flow":
            return flow_of(typed)
        return next((channels_of(r).get(name) for r, k in rounds(typed).items() if k == 1), None)

    def _others(self) -> tuple[Round, ...]:
        if not isinstance(self, PassesMessages):
            return ()
        typed = self._outline()
        if typed is not self._rounds_of:
            found = {k: r for r, k in reversed(rounds(typed).items())}
            # What optional inputs are given decides it. While somebody looks, there are no rounds without their masks.
            if self._rounds is None or not self._is_looked_at():
                self._add_rounds(max(found, default=1))
            for k, part in enumerate(self._rounds or (), 2):
                part.__dict__.update(channels_of(found[k]) if k in found else {})
            self.__dict__["_rounds_of"] = typed
        return self._rounds or ()

    def _add_rounds(self, last: int) -> None:
        """Those that are missing, under names by which ``get_submodule`` finds them."""
        there = self._rounds or ()
        for k in range(len(there) + 2, last + 1):
            name = f"round{k}"
            while hasattr(self, name):
                name += "_"
            part = self.__dict__[name] = Round(self._get_name(), name).train(self.training)
            there = (*there, part)
        self.__dict__["_rounds"] = there

    def train(self, mode: bool = True) -> Self:
        """As torch's."""
        for part in self._rounds or ():
            part.train(mode)
        return super().train(mode)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """As torch's, and the rounds after the first one where torch_geometric is imported, which counts them."""
        memo = set() if memo is None else memo
        yield from super().named_modules(memo, prefix, remove_duplicate)
        if host.is_imported():
            for part in self._others():
                if part not in memo:
                    if remove_duplicate:
                        memo.add(part)
                    yield f"{prefix}{'.' if prefix else ''}{part.name}", part

    def _is_looked_at(self) -> bool:
        """Whether there are masks or hooks on messages now."""
        if self._watched and self._is_watched():
            return True
        for part in self._rounds or ():  # in each call of a text of several rounds
            if part._forward_hooks or part._forward_pre_hooks or (part._watched and part._is_watched()):
                return True
        return False

    def _watch(self, what: str, point: str = "message") -> None:
        typed = self._outline()
        if typed.graphs:
            raise InputError(
                f"{self._get_name()} is on several graphs, and {what} is of the edges of one. Set `explain = False` on "
                "the layer to leave it out"
            )
        if any(t.name in MAKERS for t in typed.transforms):
            raise InputError(
                f"{self._get_name()} makes its own edges, which {what} is not of. Set `explain = False` on the layer "
                "to leave it out"
            )
        if not masked(typed):
            raise InputError(
                f"{self._get_name()} sends no messages that {what} could be put on: it reduces nothing that is read "
                "of nodes. Set `explain = False` on the layer to leave it out"
            )
        super()._watch(what, point)


class Round(Masked, PassesMessages):
    """Messages of a text that depend on others before. Masks and hooks on them are put here, and hooks on its calls are
    told what the round before comes to: the last one's is what the layer gives.

    in_channels, out_channels: the last dims of what a message reads and of what it is, where both are known
    """

    flow = "source_to_target"

    def __init__(self, layer: str, name: str):
        super().__init__()
        self._start_watching()
        self.layer, self.name = layer, name

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Raises :class:`gdsl.InputError`."""
        raise InputError(f"this is a round of messages of {self.layer}: call that")

    def _get_name(self) -> str:
        return self.layer


def masked(typed: TypedProgram) -> list[Reduction]:
    """The reductions whose messages are masked: those of what a rule calls a message, and of what reads nodes; no
    degrees, and no sums of weights.
    """
    needed = set(walk(node for _, node in typed.outputs))
    found = [r for r in dict.fromkeys(typed.reductions) if r.result in needed]
    reads: dict[Node, bool] = {}
    for node in walk(r.message for r in found):
        input_ = node.op == "load" and node.domain in _ROWS
        reads[node] = input_ or any(reads[n] for n in node.inputs)
    return [r for r in found if r.said or reads[r.message]]


def rounds(typed: TypedProgram) -> dict[Reduction, int]:
    """Of each reduction whose messages are masked, from how many hops away its result may be changed: 1 and more."""
    found = masked(typed)
    sent = {r.message for r in found}
    reach: dict[Node, Reach] = {}
    for node in walk(node for _, node in typed.outputs):
        at_target, at_source = _reach(node, [reach[n] for n in node.inputs])
        reach[node] = (at_target, max(at_source, 0)) if node in sent else (at_target, at_source)
    return {r: max(reach[r.result]) for r in found}


def _reach(node: Node, below: list[Reach]) -> Reach:
    if not below:
        here = 0 if node.op == "load" and node.domain in _ROWS else -1
        return here, here
    at_target, at_source = (max(places) for places in zip(*below, strict=True))
    on_edges = any(n.domain is Domain.EDGE for n in node.inputs)
    if node.op == "gather" and node.domain is Domain.EDGE:
        return (at_target, -1) if node.attrs.end == "i" else (-1, at_target)
    if node.op == "gather" and node.domain is Domain.PAIR:  # the second edge of two, or the first, one further away
        return (at_target, at_source) if node.attrs.end == "i" else (-1, max(at_target, _further(at_source)))
    if node.op == "reverse":
        return at_source, at_target
    if on_edges and node.domain in _ROWS:
        if getattr(node.attrs, "end", "i") == "j":
            at_target, at_source = at_source, at_target
        at_target = at_source = max(at_target, _further(at_source))
    return at_target, at_source


def _further(hops: int) -> int:
    return hops + 1 if hops >= 0 else hops


def given_by(rounds_of: Mapping[Reduction, int]) -> dict[int, Node]:
    """What each round comes to: the result of the layer that is called, where that has no later ones."""
    deepest: dict[Node, int] = {}
    for r, k in rounds_of.items():
        if r.inside is not None:
            deepest[r.inside] = max(k, deepest.get(r.inside, 0))
    return {
        k: r.result if r.inside is None or deepest[r.inside] > k else r.inside for r, k in rounds_of.items()
    }


def flow_of(typed: TypedProgram) -> str:
    """The way of the messages: against the edges only if all are."""
    ends = {r.end for r in masked(typed)}
    return "target_to_source" if ends == {"j"} else "source_to_target"


def channels_of(reduction: Reduction) -> Mapping[str, int]:
    """The last dims of what a message reads at the source of its edge, or else at the target, and of itself."""
    gathers = [n for n in walk([reduction.message]) if n.op == "gather" and n.domain is Domain.EDGE and n.dims]
    gathers.sort(key=lambda n: n.attrs.end != "j")
    sizes = {"in_channels": gathers[0].dims[-1].size} if gathers else {}
    return {**sizes, **({"out_channels": reduction.message.dims[-1].size} if reduction.message.dims else {})}
