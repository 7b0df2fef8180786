"""Random calls: small smooth programs, and everything that a caller may do with what goes in and what comes out.

A :class:`Call` says it all, so that it can be printed and run again: how each tensor is made, which inputs are one
tensor, what is asked for, and what is written to in place between the forward and the backward pass. :func:`outcome`
runs it on any function of the tensors: a layer, or plain torch (:func:`plain`), where results and what a program reads
are copies, so that no write can reach a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

import gdsl
from gdsl.ir.node import walk
from gdsl.language import parts
from gdsl.runtime import reference
from gdsl.runtime.frame import Frame
from tests.typed import typed_of

NODES, WIDTH = 5, 2
EDGES = torch.tensor([[0, 1, 2, 3, 0, 0, 3, 2], [1, 2, 0, 3, 2, 2, 1, 1]])
INPUTS = {"x": (NODES, WIDTH), "z": (NODES, WIDTH), "u": (NODES,), "w": (EDGES.shape[1],)}
HEAD = "param p[d] ~ normal param m[d, o] ~ normal node x[d] node z[d] node u edge w"

# How the tensor of an input is made from a leaf. "hidden" alone may be written to.
KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "leaf": lambda t: t,
    "hidden": lambda t: t * 1.0,
    "turned": lambda t: (t * 1.0).t().contiguous().t() if t.dim() == 2 else (t * 1.0),
    "part": lambda t: torch.cat([t, t])[: len(t)],
    "every other": lambda t: torch.stack([t, -t], 1).flatten(0, 1)[::2],
    "detached": lambda t: t.detach(),
}


@dataclass(frozen=True)
class Call:
    """A program and a use of it.

    kinds:      of the inputs, by name; see ``KINDS``
    same:       inputs that are another one's tensor: (name, whose)
    weights:    of the outputs in the score; 0 for one that nobody looks at
    wanted:     the inputs whose gradients are asked for; those of parameters are asked for in any case
    write:      ("input", name) or ("output", number): written to in place after the call
    twice:      the gradients of a second backward pass are added to those of the first
    second:     derivatives of the gradients, too
    vectorised: gradients for three directions at once
    """

    text: str
    kinds: tuple[tuple[str, str], ...]
    same: tuple[tuple[str, str], ...]
    weights: tuple[float, ...]
    wanted: tuple[str, ...]
    write: tuple[str, Any] | None
    twice: bool
    second: bool
    vectorised: bool

    def layer(self, backend: str) -> gdsl.Layer:
        """With float64 parameters, always the same."""
        torch.manual_seed(0)
        return gdsl.compile(self.text, d=WIDTH, o=WIDTH, backend=backend).double()


# ------------------------------------------------------------------------------------------- writing


@st.composite
def calls(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Call:
    """Programs of a few statements, and uses of them."""
    wide, text = ["x", "z", "p"], []

    def some(names: Sequence[str]) -> str:
        return str(draw(st.sampled_from(names)))

    for k in range(draw(st.integers(1, 4))):
        a, b = some(wide), some(wide)
        statement = draw(st.sampled_from(STATEMENTS)).format(v=f"v{k}", a=a, b=b, f=some(["tanh", "sin", "sigmoid"]))
        text.append(statement)
        wide.append(f"v{k}")
    results = [some(wide) for _ in range(draw(st.integers(1, 3)))]
    if draw(st.booleans()):
        results.append(f"{some(wide[3:])} @ m")
    kinds = tuple((name, some(list(KINDS))) for name in INPUTS)
    same = tuple(pair for pair in [("z", "x")] if draw(st.booleans()))
    made = dict(kinds)
    hidden = [("input", name) for name in made if made[dict(same).get(name, name)] == "hidden"]
    writes = [None, *hidden, *(("output", k) for k in range(len(results)))]
    weights = tuple(draw(st.sampled_from([1.0, 0.0, 10.0])) for _ in results)
    asked = [name for name, kind in kinds if kind != "detached"]
    wanted = tuple(name for name in asked if draw(st.booleans())) or tuple(asked[:1])
    flags = [draw(st.booleans()) for _ in range(3)]
    return Call(
        f"layer C(d, o) {{ {HEAD} {' '.join(text)} return {', '.join(results)} }}",
        kinds, same, weights, wanted, draw(st.sampled_from(writes)), *flags,
    )  # fmt: skip


# {a} and {b} are node values [d] or the parameter p; a rule makes {v}, a node value [d].
STATEMENTS = (
    "{v} = {f}({a}) + 0 * x",
    "{v} = {a} * {b} + 0.1 * x",
    "{v} = {a} - u * {b}",
    "aggregate {v} = sum(w * (x + {a})[j])",
    "aggregate {v} = mean((x * {a})[j] + (z - {b})[i])",
    "aggregate {v} = sum({f}((x + {a})[j] + (z * {b})[i]))",
    "s{v} = softmax((x + {a})[j] * (z + {b})[i]) aggregate {v} = sum(s{v} * (z * {a})[j])",
)


# ------------------------------------------------------------------------------------------- running


def plain(made: gdsl.Layer) -> Callable[..., tuple[Tensor, ...]]:
    """The layer by plain torch expressions and torch's own autograd, on copies of what it is given."""

    def function(**values: Any) -> tuple[Tensor, ...]:
        typed = typed_of(made, training=False, present=frozenset(), free={})
        state = {d.name: parts.tensor_of(made, d.name) for d in typed.of_role("param")}
        given = {name: value.clone() for name, value in {**state, **values}.items() if isinstance(value, Tensor)}
        nodes = [node for _, node in typed.outputs]
        loads = {n: given[n.attrs.name] for n in walk(nodes) if n.op == "load"}
        frame = Frame(values["graph"], torch.float64, torch.device("cpu"))
        return tuple(o.clone() for o in reference.run(nodes, loads, frame))

    return function


def outcome(call: Call, function: Callable[..., Any], parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """Everything that a caller sees, by name. Raises torch's error where a backward pass reads what was written to."""
    leaves = {
        name: torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(k)).requires_grad_()
        for k, (name, shape) in enumerate(INPUTS.items())
    }
    given = {name: KINDS[kind](leaves[name]) for name, kind in call.kinds}
    given |= {name: given[whose] for name, whose in call.same}
    results = function(**given, graph=gdsl.Graph(EDGES, NODES))
    outputs = list(results) if isinstance(results, tuple) else [results]
    found = {f"output {k}": o.detach().clone() for k, o in enumerate(outputs)}
    found |= {f"output {k} has a derivative": torch.tensor(float(o.requires_grad)) for k, o in enumerate(outputs)}
    if call.write is not None:
        kind, which = call.write
        (given if kind == "input" else outputs)[which].mul_(1.5).add_(0.25)  # type: ignore[index]
        found |= {f"output {k} after the write": o.detach().clone() for k, o in enumerate(outputs)}
    wanted = {f"by {name}": leaves[name] for name in call.wanted}
    wanted |= {f"by parameter {k}": p for k, p in enumerate(parameters)}
    parts = [w * (_weights(o, 0.7) * o).sum() for w, o in zip(call.weights, outputs, strict=True) if w]
    score = sum(part for part in parts if part.requires_grad)
    if isinstance(score, Tensor):
        found |= _derivatives(call, score, wanted)
    return found


def _derivatives(call: Call, score: Tensor, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names, at = list(wanted), list(wanted.values())
    again = call.second or call.vectorised or call.twice
    first = torch.autograd.grad(score, at, create_graph=call.second, retain_graph=again, allow_unused=True)
    found = {name: _dense(g, x) for name, g, x in zip(names, first, at, strict=True)}
    if call.second:
        parts = [(_weights(g, 1.3) * g).sum() for g in first if g is not None and g.requires_grad]
        curved = sum(part for part in parts)
        second = (
            torch.autograd.grad(curved, at, retain_graph=again, allow_unused=True)
            if isinstance(curved, Tensor) and curved.requires_grad
            else [None] * len(at)
        )
        found |= {f"twice {name}": _dense(g, x) for name, g, x in zip(names, second, at, strict=True)}
    if call.vectorised:
        many = torch.autograd.grad(
            score, at, torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), is_grads_batched=True,
            retain_graph=True, allow_unused=True,
        )  # fmt: skip
        found |= {f"three times {n}": _dense(g, x.expand(3, *x.shape)) for n, g, x in zip(names, many, at, strict=True)}
    if call.twice:
        found |= _accumulated(score, wanted)
    return found


def _accumulated(score: Tensor, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of two backward passes, and whether a write to one of them is seen by the others."""
    for x in wanted.values():
        x.grad = None
    score.backward(retain_graph=True, inputs=list(wanted.values()))
    score.backward(inputs=list(wanted.values()))
    with torch.no_grad():
        for k, x in enumerate(wanted.values()):
            if x.grad is not None:
                x.grad.mul_(1.0 + k)
    found = {f"added up {name}": _dense(x.grad, x).clone() for name, x in wanted.items()}
    for x in wanted.values():
        x.grad = None
    return found


def _dense(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like).detach() if gradient is None else gradient.detach()


def _weights(like: Tensor, pitch: float) -> Tensor:
    """Different for every element, so that no mistake cancels in the sum."""
    return torch.cos(pitch * torch.arange(like.numel(), dtype=like.dtype) + pitch).reshape(like.shape)
