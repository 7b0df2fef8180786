"""Layers of a user's own, written at random from a small grammar of Python, on gdsl's base class and torch_geometric's.

Each is the text of a class: attributes, buffers, parts, blocks without gradients, writes in place, lists, branches,
 numbers read out of tensors, softmax over the edges, and what changes between calls. The same text runs
on both base classes for several calls in float64. The text is in the message of a failure.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gdsl.nn
from gdsl.nn.softmax import softmax

NODES, EDGES, SIZE = 5, 11, 3
CALLS = 3

UNARY = (
    "torch.tanh({0})", "{0}.sigmoid()", "F.elu({0})", "({0}).relu()", "F.silu({0})", "F.gelu({0})", "-{0}", "{0} * {n}",
    "{0} + {n}", "{n} - {0}", "{0} / {p}", "({0}).clamp({n}, 2.5)", "F.leaky_relu({0}, {p})", "({0}).abs() + {p}",
    "F.softplus({0}, {p})", "torch.exp(-({0}).square())", "({0}) * ({0} > {n})", "torch.where({0} > {n}, {0}, {n})",
    "self.lin({0})", "self.mlp({0})", "self.norm({0})", "({0}) @ self.w", "({0}) * self.gain", "({0}) + self.shift",
    "F.softmax({0}, dim=-1)", "({0}).softmax(1)", "F.normalize({0}, dim=1)", "F.layer_norm({0}, ({0}).shape[-1:])",
    "({0}) * ({0}).sum(-1, keepdim=True)", "({0}) - ({0}).mean(dim=1, keepdim=True)", "self.helper({0})", "cut({0})",
    "({0}) * ({0}).norm(dim=-1, keepdim=True)", "({0}).detach()", "({0}).clone()", "torch.sin({0})",
    "self.norm_of({0})",
    "({0}).view(-1, 1, 3).transpose(1, 2).flatten(1)", "torch.cat([({0})[:, 1:], ({0})[:, :1]], dim=-1)",
    "torch.cat(({0}).chunk(3, dim=-1)[::-1], -1)", "({0})[:, [2, 0, 1]]", "({0}).flip(1)", "({0}).cumsum(0)",
    "({0}).masked_fill({0} < {n}, {n})", "({0}) * ({0}).size(0) / 7", "({0}) - ({0}).max()", "Flip.apply({0})",
    "soft({0}, index, num_nodes=size_i)", "({0}) * soft(({0}).sum(-1), index, ptr, size_i).unsqueeze(-1)",
    "({0}) * index.view(-1, 1) / 4", "({0}) * self.scale", "({0}) * type(self).kind", "({0}) / FACTS['factor']",
    "({0}).float().double()", "({0}).to({0}.dtype)", "({0}) * self.temperature", "({0}) / self.temperature.item()",
    "({0}) * float(self.temperature)", "({0}) + torch.arange(3.0)", "({0}) * ({0}).new_ones(3)", "({0}) * w",
    "({0}) * torch.linspace(0.1, 1, ({0}).shape[0])[:, None]", "self.keep({0})",
    "({0}) * (2 if ({0}).requires_grad else 3)",
    "torch.zeros_like({0}) + {0}", "({0}).squeeze(-1)", "({0}).contiguous()", "F.dropout({0}, 0.5, False)",
)  # fmt: skip

BINARY = (
    "{0} + {1}", "{0} - {1}", "({0}) * ({1})", "({0}) / (({1}).abs() + 1)", "torch.maximum({0}, {1})",
    "torch.where({0} > {1}, {0}, {1})", "self.two(torch.cat([{0}, {1}], dim=-1))", "torch.add({0}, {1}, alpha={n})",
    "({0}) * (({0}) * ({1})).sum(-1, keepdim=True)", "({0}) * ({1} == {0})", "torch.atan2({0}, {1})",
    "cut({0}) * ({1})",
    "torch.stack([{0}, {1}], -1).sum(-1)", "({0}).lerp({1}, 0.3)", "torch.minimum({0}, {1})",
)  # fmt: skip

# Statements over names; {v} is written, {a} is read.
STATEMENTS = (
    "with torch.no_grad():\n    {v} = {e}",
    "with torch.enable_grad():\n    {v} = {e}",
    "torch.set_grad_enabled(False)\n{v} = {e}\ntorch.set_grad_enabled(self.graded)",
    "{v} = {e}\n{v} += {n}",
    "{v} = {e}\n{v} *= {a}",
    "{v} = {e}\n{v}.mul_({n}).add_({a})",
    "{v} = {e}\nF.relu({v}, inplace=True)",
    "{v} = {e}\nself.act({v})",
    "{v} = {e}\nother = {v}\nother -= {n}",
    "{v} = {e}\npart = {v}[:, :2]\npart *= {n}",
    "{v} = {e}\n{v}[:, 1] = {n}",
    "before = {a}\n{v} = before * 1\n{v}.clamp_(-1, 1)\n{v} = {v} + before",
    "if self.count % 2:\n    {v} = {e}\nelse:\n    {v} = {f}",
    "if self.temperature > 1:\n    {v} = {e}\nelse:\n    {v} = {f}",
    "if self.training:\n    {v} = {e}\nelse:\n    {v} = {f}",
    "if {a}.sum() > 0:\n    {v} = {e}\nelse:\n    {v} = {f}",
    "if {a}.shape[0] > 8 and {a}.dim() == 2:\n    {v} = {e}\nelse:\n    {v} = {f}",
    "{v} = {a}\nfor k in range(2):\n    {v} = {v} * {n} + {e}",
    "parts = [{e}]\nparts.append({f})\n{v} = sum(parts)",
    "self.kept.append({a})\n{v} = {e}",
    "self.last = {e}\n{v} = self.last * {n}",
    "self.table['a'] = ({a}, [{e}])\n{v} = self.table['a'][1][0]",
    "self.count += 1\n{v} = {e}",
    "self.calls += 1\n{v} = {e} / self.calls",
    "{v} = {e}\nself.shadow = {v}.detach()",
    "{v} = {e}\nself.running.mul_(0.9).add_({v}.detach().mean(0), alpha=0.1)",
    "{v} = ({e}) * self.running\nself.running.mul_(0.5)",
    "{v} = {e}\nif self.count > 1:\n    {v} = {v} + self.kept[-1] if self.kept else {v}",
    "try:\n    {v} = ({e})[:, 7]\nexcept IndexError:\n    {v} = {f}",
    "{v} = (lambda t: t * {n} + {a})({e})",
    "FACTS['factor'] += 0.5\n{v} = {e}",
)

CHANGES = (
    "layer.scale = {n}", "type(layer).kind = {n}", "layer.temperature.fill_({p})", "layer.eval()", "layer.train()",
    "layer.lin.weight.data.mul_({p})", "layer.count += 1", "FACTS['factor'] = {p}", "layer.kept.clear()", "pass",
    "layer.gain = nn.Parameter(torch.full((1, 3), {p}, dtype=torch.float64))", "layer.norm_of = torch.tanh",
    "layer.shift = nn.Parameter(torch.tensor({p}, dtype=torch.float64))", "layer.act = nn.LeakyReLU({p}, inplace=True)",
)  # fmt: skip

CLASS = """
class {name}(base):
    kind = 1.5

    def __init__(self):
        super().__init__(aggr={aggr!r})
        self.lin, self.two = nn.Linear(3, 3), nn.Linear(6, 3)
        self.mlp = nn.Sequential(nn.Linear(3, 4), nn.ELU(), nn.Linear(4, 3))
        self.norm = nn.BatchNorm1d(3)
        self.act = nn.ReLU(inplace=True)
        self.w, self.gain, self.shift = (nn.Parameter(torch.randn(*s)) for s in ((3, 3), (3,), (1,)))
        self.register_buffer("temperature", torch.tensor(2.0))
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("running", torch.ones(3))
        self.kept, self.table, self.scale, self.count, self.last, self.shadow = [], {{}}, 0.7, 0, None, None
        self.norm_of, self.graded = torch.sin, True

    def forward(self, x, edge_index, w):
        self.graded = torch.is_grad_enabled()
        return self.propagate(edge_index, x=x, w=w)

    def helper(self, t):
        return torch.tanh(t) * self.scale

    def keep(self, t):
        self.last = t
        return t

    def message(self, x_i, x_j, w, index, ptr, size_i):
{body}
"""


class Flip(torch.autograd.Function):
    """A gradient that is not the function's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return -2 * grad * ctx.saved_tensors[0]


@torch.no_grad()
def cut(t: Tensor) -> Tensor:
    return torch.sigmoid(t)


@dataclasses.dataclass(frozen=True)
class Written:
    """A class and what is done to a layer of it before each call."""

    text: str
    name: str
    changes: tuple[tuple[str, str], ...]


class Writer:
    """Writes one class, from a seed."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.names = ["x_i", "x_j"]
        self.seed = seed

    def filled(self, text: str, **more: str) -> str:
        for mark, values in (("{n}", (-1.5, 0.5, 2, 1, 0.1)), ("{p}", (0.5, 2.0, 1, 3.0))):
            while mark in text:
                text = text.replace(mark, str(self.random.choice(values)), 1)
        return re.sub(r"\{(\w)\}", lambda m: more.get(m[1], m[0]), text)

    def expression(self, depth: int) -> str:
        if depth == 0:
            return self.random.choice(self.names)
        if self.random.random() < 0.65:
            return "(" + self.filled(self.random.choice(UNARY).replace("{0}", self.expression(depth - 1))) + ")"
        one, other = self.expression(depth - 1), self.expression(depth - 1)
        return "(" + self.filled(self.random.choice(BINARY).replace("{0}", one).replace("{1}", other)) + ")"

    def statement(self, k: int) -> str:
        name = f"h{k}"
        parts = {"v": name, "a": self.random.choice(self.names)}
        parts |= {"e": self.expression(self.random.randint(1, 2)), "f": self.expression(1)}
        plain = self.random.random() < 0.4
        text = f"{name} = {parts['e']}" if plain else self.filled(self.random.choice(STATEMENTS), **parts)
        self.names.append(name)
        return text

    def written(self) -> Written:
        count = self.random.randint(1, 4)
        statements = [self.statement(k) for k in range(count)]
        # The last term differs from edge to edge: how a tie of the largest shares its gradient is another matter.
        result = self.filled("return {v} * {n} + {e} + w * x_j.detach()", v=f"h{count - 1}", e=self.expression(1))
        body = "\n".join(["        " + line for s in (*statements, result) for line in s.split("\n")])
        aggr = self.random.choice(["sum", "mean", "max", "sum", ["sum", "mean"], "std", "softmax"])
        changes = tuple(
            (self.filled(self.random.choice(CHANGES)), self.random.choice(["grad", "grad", "grad", "no_grad"]))
            for _ in range(CALLS)
        )
        name = f"Written{self.seed}"
        return Written(CLASS.format(name=name, aggr=aggr, body=body), name, changes)


def outcome(written: Written, base: Any, soft: Callable[..., Tensor], backend: str | None) -> list[Any]:
    """What each call gives, its gradients, and what the layer holds at the end; or the class of an error."""
    facts = {"factor": 2.0}
    scope = {"base": base, "torch": torch, "nn": nn, "F": F, "Flip": Flip, "cut": cut, "soft": soft, "FACTS": facts}
    exec(written.text, scope)
    torch.manual_seed(3)
    layer = scope[written.name]().double()
    if backend is not None:
        layer.backend = backend
    g = torch.Generator().manual_seed(1)
    edges = torch.randint(NODES, (2, EDGES), generator=g)
    found: list[Any] = []
    try:
        for k, (change, mode) in enumerate(written.changes):
            if k:
                exec(change, scope | {"layer": layer})
            x = torch.randn(NODES, SIZE, generator=g, dtype=torch.float64).requires_grad_()
            w = torch.rand(EDGES, 1, generator=g, dtype=torch.float64).requires_grad_()
            edges = torch.randint(NODES, (2, EDGES - k % 2), generator=g) if k else edges
            with torch.set_grad_enabled(mode == "grad"):
                y = layer(x, edges, w[: edges.shape[1]])
            found.append(y.detach())
            if y.requires_grad:
                layer.zero_grad()
                (y * torch.arange(1.0, y.numel() + 1).view(y.shape)).sum().backward(retain_graph=True)
                found += [x.grad, w.grad, *[p.grad for p in layer.parameters()]]
            found.append(y.requires_grad)
        held = [*layer.kept, layer.last, layer.shadow, *layer.table.get("a", ((), [()]))[1]]
        found += [h.detach() if isinstance(h, Tensor) else h for h in held]
        found += [type(h) is Tensor and h.requires_grad for h in held]
        found += [*layer.buffers(), layer.count, facts["factor"]]
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        found.append(type(error))
    found.append(getattr(layer, "how", ""))
    return found


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        close = one.dtype == other.dtype and one.shape == other.shape
        return close and torch.allclose(one, other, rtol=1e-7, atol=1e-7, equal_nan=True)
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        # A gradient that is zero everywhere, and none.
        value = one if isinstance(one, Tensor) else other
        return (one is None or other is None) and not value.any()
    return bool(one == other)


def compare(seed: int, backend: str = "torch") -> str:
    """How the last call of a written class ran. Raises AssertionError, with the class, where anything differs."""
    import torch_geometric.nn
    from torch_geometric.utils import softmax as their_softmax

    written = Writer(seed).written()
    expected = outcome(written, torch_geometric.nn.MessagePassing, their_softmax, None)
    found = outcome(written, gdsl.nn.MessagePassing, softmax, backend)
    how = str(found[-1])
    shown = f"seed {seed}, {how}\n{written.text}\n{written.changes}"
    found, expected = found[:-1], expected[:-1]
    if isinstance(expected[-1], type):
        # torch refuses to differentiate through what was written to: what is computed anew may be differentiated.
        expected = expected[:-1]
        found = found[: len(expected)]
    assert len(found) == len(expected), f"{shown}\n{found[-1]}"
    for k, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert same(one, other), f"{shown}\n{k}: {one}\ninstead of\n{other}"
    return how
