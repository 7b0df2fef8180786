"""A call of a layer with an edge mask or hooks: its program value by value, in torch, stopped at its messages.

torch_geometric's names are used for what a hook sees of a message: ``x_j`` and ``x_i`` for the node values that it
reads, ``edge_weight`` for the weights, ``alpha`` for attention.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gdsl.errors import InputError
from gdsl.ir.node import Node, walk, walk_below
from gdsl.ir.ops.op import full, shape_of
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind
from gdsl.language import parts
from gdsl.language.program import TypedProgram
from gdsl.module import collected
from gdsl.module.call import checked
from gdsl.module.collected import Sending
from gdsl.module.rounds import flow_of, given_by, rounds
from gdsl.module.run import apply, as_rules_see, frame_of
from gdsl.module.ways import Text
from gdsl.passes.stages import Stage
from gdsl.runtime import reference
from gdsl.runtime.frame import Frame
from gdsl.runtime.rewire import rewirings
from gdsl.runtime.tracers import run_as_it_is

# The programs of layers that update edges before they send messages, and the name of what comes of it.
EDGE_UPDATES = {"gat": "alpha", "gatv2": "alpha"}

# The name of attention in programs.
ATTENTION = "alpha"


@dataclass(frozen=True, slots=True)
class Operand:
    """What a message is made of.

    name: what ``propagate`` would be given it as
    node: its value on edges
    of:   the node value that this is, read at ``end``; None for what edges have themselves
    """

    name: str
    node: Node
    of: Node | None = None
    end: str = ""

    @property
    def asked(self) -> str:
        """Its name as an argument of ``message``."""
        return f"{self.name}_{self.end}" if self.end else self.name


@dataclass(frozen=True, slots=True)
class Sent:
    """A message of a program, what it is made of, and the values that are aggregated from it."""

    message: Node
    operands: tuple[Operand, ...]
    results: tuple[Node, ...]


@run_as_it_is
def run_watched(owner: Any, text: Text, inside: Mapping[str, Tensor], args: tuple[Any, ...]) -> Any:
    """The results of a text on a layer, as :func:`gdsl.module.call.call` gives them, with its masks and hooks.

    Raises :class:`gdsl.InputError` for a program without messages, and for a hook that gives what it has no use for.
    """
    kind, graph, tensors, _, _ = checked(text, owner, inside, args, {})
    graph, tensors = as_rules_see(kind, graph, tensors)
    run = _Run(owner, kind.typed, frame_of(graph, kind.dtype, kind.device), tensors)
    try:
        results = run.results()
    finally:
        owner.__dict__.pop("_alpha", None)
    return results[0] if len(results) == 1 else tuple(results)


@run_as_it_is
def run_rounds(owner: Any, text: Text, parts: Sequence[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """As :func:`run_watched`, of a layer that is a text. parts: the rounds of its messages, itself the first one

    Raises :class:`gdsl.InputError` for a part of a distributed graph, and for a hook that gives what it has no use for.
    """
    kind, given, tensors, bound, num_graphs = checked(text, owner, {}, args, kwargs)
    if given.halo is not None:
        raise InputError("masks and hooks on messages have no place on a part of a distributed graph")
    changes = [rewired for rewired, _ in rewirings(kind.typed, given)]

    def moved(mask: Tensor) -> Tensor:
        # As in torch_geometric, no loop is masked where the layer adds some: also one that was there.
        if mask.size(0) == given.num_edges:
            for rewired in changes:
                mask = mask if rewired.kept is None else mask[rewired.kept]
                mask = mask if rewired.added is None else torch.cat([mask, mask.new_ones(rewired.added.numel())])
        return mask

    graph, tensors = as_rules_see(kind, given, tensors)
    frame = frame_of(graph, kind.dtype, kind.device, bound.batch, num_graphs)
    for part in parts:
        part.__dict__["_moved"] = moved
    try:
        results = _Rounds(owner, kind.typed, frame, tensors, parts).results()
    finally:
        for part in parts:
            part.__dict__.pop("_alpha", None)
            part.__dict__.pop("_moved", None)
    return results[0] if len(results) == 1 else tuple(results)


class _Run:
    """Values by their nodes, and of each message on its way what the hooks before it gave to those after it."""

    def __init__(self, owner: Any, typed: TypedProgram, frame: Frame, tensors: Mapping[str, Tensor]):
        self.owner, self.typed, self.frame, self.tensors = owner, typed, frame, tensors
        self.values: dict[Node, Tensor] = {}
        self.given: dict[tuple[str, Node], tuple[Any, ...]] = {}
        sent = self._sent()
        self.sent = {s.message: s for s in sent}
        self.aggregated = {node: s for s in sent for node in s.results}
        if not sent and any(node.domain is Domain.EDGE for node in walk(node for _, node in typed.outputs)):
            raise InputError(
                f"{owner._get_name()} sends no messages that a mask or a hook could be put on: its program adds "
                "them up in another way. Set `explain = False` on the layer to leave it out"
            )
        word = self._update_name()
        self.updated = next((node for node, name in typed.names.items() if word is not None and name == word), None)

    def _sent(self) -> list[Sent]:
        return list(sent_of(self.typed, self.owner.given_names))

    def _update_name(self) -> str | None:
        return EDGE_UPDATES.get(self.owner.program_name)

    def _backwards(self) -> bool:
        return bool(self.owner.flow == "target_to_source")

    def _part(self, message: Node) -> Any:
        """The module with the masks and hooks that a message meets."""
        return self.owner

    def results(self) -> list[Tensor]:
        outputs = [node for _, node in self.typed.outputs]
        for node in walk(outputs):
            self.values[node] = self._value(node, self.values)
            if node is self.updated:
                self.values[node] = self._update(node)
            if node in self.sent:
                self.values[node] = self._message(self.sent[node])
            if node in self.aggregated:
                self.values[node] = self._aggregate(self.aggregated[node].message, node)
        return [self._full(node) for node in outputs]

    def _value(self, node: Node, values: Mapping[Node, Tensor]) -> Tensor:
        if node.op == "load":
            return self.tensors[node.attrs.name]
        operands = [values[n] for n in node.inputs]
        if node.op != "call":
            return reference.evaluate(node, operands, self.frame)
        a = node.attrs
        stage = Stage(Program(self.typed.name, ()), a.module, "", a.kind, a.end, node.type)
        whole = [full(v, n.type, self.frame) for v, n in zip(operands, node.inputs, strict=True)]
        return apply(parts.module_of(self.owner, a.module), stage, whole, self.frame)

    def _full(self, node: Node) -> Tensor:
        return full(self.values[node], node.type, self.frame)

    # -- where others look ---------------------------------------------------------------------------

    def _update(self, node: Node) -> Tensor:
        """The value that ``edge_update`` gives, between its hooks."""
        about = self._sending({})
        given: tuple[Any, ...] = (about.edges, about.sizes, {})
        self._same("edge_update", given, self.owner._before("edge_update", *given))
        return self._after("edge_update", given, node, self.owner)

    def _message(self, sent: Sent) -> Tensor:
        """A message between its hooks, and masked."""
        owner, node = self._part(sent.message), sent.message
        if len(sent.results) != 1 and owner._has_hooks("propagate", "aggregate"):
            raise InputError(
                f"{owner._get_name()} aggregates a message {len(sent.results)} times, and a hook on `propagate` or "
                "`aggregate` looks at one result"
            )
        about = self._sending(self._arguments(sent))
        given = (about.edges, about.sizes, dict(about.kwargs))
        found = owner._before("propagate", *given)
        self._same("propagate", given[:2], found[:2])
        self.given["propagate", node] = found
        read = {o.asked: self._full(o.node) for o in sent.operands}
        for o in sent.operands:
            if found[2].get(o.name) is not about.kwargs.get(o.name):
                read[o.asked] = replace(about, kwargs=found[2]).collected(((o.asked, False),))[o.asked]
        before = owner._before("message", read)
        self.values[node] = self._from(sent, before[0])
        if ATTENTION in read:
            owner.__dict__["_alpha"] = read[ATTENTION]
        self.values[node] = self._after("message", before, node, owner)
        owner.__dict__.pop("_alpha", None)
        if owner._explaining:
            asked = collected.asked_by(owner.explain_message, 1)
            self.values[node] = self._fit(node, owner.explain_message(self._full(node), **about.collected(asked)))
        aggregating = ({"index": about.graph.edge_index[1], "ptr": None, "dim_size": about.graph.num_targets},)
        self._same("aggregate", aggregating, owner._before("aggregate", *aggregating))
        self.given["aggregate", node] = aggregating
        return self.values[node]

    def _aggregate(self, message: Node, node: Node) -> Tensor:
        for point in ("aggregate", "propagate"):
            self.values[node] = self._after(point, self.given[point, message], node, self._part(message))
        return self.values[node]

    # -- what they see, and give -----------------------------------------------------------------------

    def _arguments(self, sent: Sent) -> dict[str, Any]:
        """What ``propagate`` would be given: values of edges, and of nodes at both ends."""
        found: dict[str, Any] = {}
        for o in sent.operands:
            if o.of is None or not self.typed.bipartite:
                found[o.name] = self._full(o.node if o.of is None else o.of)
            else:
                source, target = found.get(o.name, (None, None))
                found[o.name] = (self._full(o.of), target) if o.end == "j" else (source, self._full(o.of))
        if self.typed.bipartite and "x" in found and found["x"][1] is None:
            # A message may read its source alone, and explainers ask for the features of both ends.
            found["x"] = (found["x"][0], self.tensors.get("z"))
        return found

    def _sending(self, arguments: Mapping[str, Any]) -> Sending:
        backwards = self._backwards()
        return Sending(None, self.frame.graph, arguments, self.typed.bipartite, None, 0, backwards)

    def _from(self, sent: Sent, given: Mapping[str, Any]) -> Tensor:
        """A message from its operands, of which hooks may have replaced some."""
        operands = {o.node for o in sent.operands}
        new = {o.node: self._fit(o.node, given[o.asked]) for o in sent.operands if self._is_new(o, given)}
        return self._again(sent.message, operands, new)

    def _is_new(self, o: Operand, given: Mapping[str, Any]) -> bool:
        return given[o.asked] is not self.values[o.node]

    def _again(self, result: Node, kept: Collection[Node], new: Mapping[Node, Tensor]) -> Tensor:
        """A value, where nodes on the way to it have other ones. kept: those that are not computed again"""
        values, changed = {**self.values, **new}, set(new)
        for node in walk_below([result], lambda node: () if node in kept else node.inputs):
            if node not in kept and not changed.isdisjoint(node.inputs):
                values[node] = self._value(node, values)
                changed.add(node)
        return values[result]

    def _after(self, point: str, given: tuple[Any, ...], node: Node, part: Any) -> Tensor:
        return self._fit(node, part._after(point, given, self._full(node)))

    def _same(self, point: str, given: tuple[Any, ...], found: tuple[Any, ...]) -> None:
        if not _is_same(given, found):
            raise InputError(f"a hook before `{point}` may look at what a program computes, and not replace it")

    def _fit(self, node: Node, value: Tensor) -> Tensor:
        shape = shape_of(node.type, self.frame)
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"a hook or a mask gave {got}, and the program expects shape {list(shape)}")
        return value


class _Rounds(_Run):
    """Of a text, in which each reduction over edges has messages of its own: what it reduces."""

    def __init__(
        self, owner: Any, typed: TypedProgram, frame: Frame, tensors: Mapping[str, Tensor], parts: Sequence[Any]
    ):
        self.parts, self.rounds = parts, rounds(typed)
        # The messages as they are reduced, by those that they were.
        self.masked: dict[Node, Tensor] = {}
        # Those whose hooks are told what a round comes to: the layer's own are told the last one.
        self.given_by = {node: parts[k] for k, node in given_by(self.rounds).items() if k < len(parts)}
        super().__init__(owner, typed, frame, tensors)

    def _of_round(self, k: int) -> Any:
        return self.parts[min(k, len(self.parts)) - 1]

    def _sent(self) -> list[Sent]:
        results: dict[Node, list[Node]] = {}
        for r in self.rounds:
            results.setdefault(r.message, []).append(r.result)
        attention = set(self.typed.softmaxes)
        return [
            Sent(message, _operands(message, self.typed, {}, attention), tuple(dict.fromkeys(nodes)))
            for message, nodes in results.items()
        ]

    def _update_name(self) -> str | None:
        return None

    def _backwards(self) -> bool:
        return flow_of(self.typed) == "target_to_source"

    def _part(self, message: Node) -> Any:
        return self._of_round(min(k for r, k in self.rounds.items() if r.message is message))

    def results(self) -> list[Tensor]:
        outputs = [node for _, node in self.typed.outputs]
        for node in walk(outputs):
            self.values[node] = self._value(node, self.values)
            if node in self.aggregated:
                sent = self.aggregated[node]
                self.values[node] = self._again(node, {sent.message}, {sent.message: self._reduced(sent)})
                self.values[node] = self._aggregate(sent.message, node)
            if node in self.given_by:
                self._seen_as_result(self.given_by[node], node)
        return [self._full(node) for node in outputs]

    def _reduced(self, sent: Sent) -> Tensor:
        """A message between its hooks and masked, which other values that read it do not see."""
        message = sent.message
        if message not in self.masked:
            before = self.values[message]
            self.masked[message] = self._message(sent)
            self.values[message] = before
        return self.masked[message]

    def _fit(self, node: Node, value: Tensor) -> Tensor:
        value = super()._fit(node, value)
        return value.to(self.frame.dtype) if node.kind is Kind.FLOAT else value

    def _seen_as_result(self, part: Any, node: Node) -> None:
        """Call the hooks that a round has as a module, with what it comes to."""
        for key, hook in list(part._forward_pre_hooks.items()):
            hook(part, (), *(({},) if key in part._forward_pre_hooks_with_kwargs else ()))
        for key, hook in list(part._forward_hooks.items()):
            given: tuple[Any, ...] = ((), {}) if key in part._forward_hooks_with_kwargs else ((),)
            found = hook(part, *given, self._full(node))
            if found is not None:
                self.values[node] = self._fit(node, found)


def _is_same(given: Any, found: Any) -> bool:
    """Whether a hook gave back what it was given, maybe in another container."""
    if isinstance(given, dict) and isinstance(found, dict):
        return given.keys() == found.keys() and all(_is_same(value, found[name]) for name, value in given.items())
    if isinstance(given, tuple | list) and isinstance(found, tuple | list):
        return len(given) == len(found) and all(map(_is_same, given, found))
    return given is found or (isinstance(given, int) and given == found)


# ------------------------------------------------------------------------------- the messages of a program


def sent_of(typed: TypedProgram, given_names: Mapping[str, str]) -> Iterator[Sent]:
    """The messages that are aggregated, each once: what a text calls a message may be a part of another one."""
    words = {rule.name for rule in typed.rules if rule.kind == "message"}
    messages = [r.node for r in typed.rules if r.name in words and r.node.domain is Domain.EDGE]
    results: dict[Node, list[Node]] = {}
    for rule in typed.rules:
        if rule.kind == "aggregate":
            below = set(walk([rule.node]))
            read = [node for node in messages if node in below]
            if read:
                results.setdefault(read[-1], []).append(rule.node)
    for message, nodes in results.items():
        yield Sent(message, _operands(message, typed, given_names), tuple(dict.fromkeys(nodes)))


def _operands(
    message: Node, typed: TypedProgram, given_names: Mapping[str, str], attention: Collection[Node] = ()
) -> tuple[Operand, ...]:
    """Node values read at ends, and what edges have themselves: features, weights, also normalised ones, attention."""
    known = {ATTENTION, *given_names}

    def name_of(node: Node) -> str:
        return ATTENTION if node in attention else _name(node, typed)

    def ends(node: Node) -> bool:
        named = node is not message and (node in attention or typed.names.get(node) in known)
        return node.op in ("gather", "load") or (named and node.domain is Domain.EDGE)

    below = walk_below([message], lambda node: () if ends(node) else node.inputs)
    found = [node for node in below if node.domain is Domain.EDGE and ends(node)]
    read = [node for node in found if node.op == "gather"]
    read.sort(key=lambda node: (node.attrs.end != "j", _name(node.inputs[0], typed) != "x", not node.dims))
    features = {node.inputs[0] for node in read[:1]}
    if typed.bipartite:
        features |= {n.inputs[0] for n in read if n.attrs.end == "i" and _name(n.inputs[0], typed) == "z"}
    names = dict.fromkeys(features, "x")
    for node in found:
        of = node.inputs[0] if node.op == "gather" else node
        if of not in names:
            name = given_names.get(name_of(of), name_of(of)) if of is node else name_of(of)
            taken = sum(other.rstrip("0123456789") == name for other in names.values())
            names[of] = f"{name}{taken + 1}" if taken else name
    return tuple(
        Operand(names[node.inputs[0]], node, node.inputs[0], node.attrs.end)
        if node.op == "gather"
        else Operand(names[node], node)
        for node in found
    )


def _name(node: Node, typed: TypedProgram) -> str:
    named = node.attrs.name if node.op == "load" else typed.names.get(node, "value")
    return str(named).rpartition(".")[2]
