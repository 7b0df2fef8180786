"""Layers on several graphs, each beside the same in torch and torch_geometric: the texts of several_graphs.gdsl.

    python examples/several_graphs.py            how far values and derivatives lie apart, and how long a step takes
    python examples/several_graphs.py --short    small graphs, few steps
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from published import apart, derivatives, score
from torch import Tensor
from torch.utils.benchmark import Timer
from torch_geometric.nn import GINEConv, HGTConv
from torch_geometric.nn.models.schnet import CFConv
from torch_geometric.utils import scatter, softmax

import gdsl

TEXT = (Path(__file__).parent / "several_graphs.gdsl").read_text(encoding="utf-8")
Values = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """A layer of the text, the same in torch on the layer's parameters, and what both take: values and graphs."""

    layer: str
    plain: Callable[[Any, Values, Values], tuple[Tensor, ...]]
    given: Callable[[int, torch.dtype], tuple[Values, Values]]
    arguments: dict[str, int]

    def make(self) -> gdsl.Layer:
        torch.manual_seed(0)
        return gdsl.define(TEXT, layer=self.layer)(**self.arguments)


def edges(sources: int, targets: int, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(n, (count,), generator=generator) for n in (sources, targets)])


def normal(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# -- Exphormer ------------------------------------------------------------------------------------------------


def exphormer_on(nodes: int, dtype: torch.dtype) -> tuple[Values, Values]:
    graphs = {"local": edges(nodes, nodes, 4 * nodes, 1), "expander": edges(nodes, nodes, 3 * nodes, 2)}
    return {"h": normal(nodes, 8, dtype=dtype), "e": normal(4 * nodes, 4, dtype=dtype, seed=1)}, graphs


def exphormer(made: Any, x: Values, graphs: Values) -> tuple[Tensor, ...]:
    h, (j, i) = x["h"], torch.cat([graphs["local"], graphs["expander"]], 1)
    f = torch.cat([x["e"], made.far.expand(graphs["expander"].shape[1], -1)])
    q, k, v = (lin(h).view(len(h), 2, 3) for lin in (made.query, made.key, made.value))
    alpha = softmax((q[i] * k[j] * made.edges(f).view(len(f), 2, 3)).sum(2) / 3**0.5, i, num_nodes=len(h))
    return (h + made.out(scatter(alpha[:, :, None] * v[j], i, dim_size=len(h)).flatten(1)),)


# -- HGT ------------------------------------------------------------------------------------------------------

KINDS = {"writes": ("author", "paper"), "cites": ("paper", "paper"), "written": ("paper", "author")}


def hgt_on(nodes: int, dtype: torch.dtype) -> tuple[Values, Values]:
    counts = {"paper": nodes, "author": max(nodes // 2, 1)}
    graphs = {name: edges(counts[a], counts[b], 3 * nodes, k) for k, (name, (a, b)) in enumerate(KINDS.items())}
    return {"p": normal(nodes, 8, dtype=dtype), "a": normal(counts["author"], 8, dtype=dtype, seed=1)}, graphs


def hgt(made: Any, x: Values, graphs: Values) -> tuple[Tensor, ...]:
    """torch_geometric's, with the parameters of the text."""
    kinds = [(a, name, b) for name, (a, b) in KINDS.items()]
    conv = HGTConv(8, 8, (["paper", "author"], kinds), heads=2).to(made.prior.dtype)
    state: dict[str, Tensor] = {}
    for place, nodes in enumerate(("paper", "author")):
        for what in ("weight", "bias"):
            parts = [getattr(getattr(made, f"{part}_{nodes}"), what) for part in "kqv"]
            state[f"kqv_lin.lins.{nodes}.{what}"] = torch.cat(parts)
            state[f"out_lin.lins.{nodes}.{what}"] = getattr(getattr(made, f"out_{nodes}"), what)
        state[f"skip.{nodes}"] = made.skip[place : place + 1]
    state["k_rel.weight"] = made.attention.transpose(0, 1).flatten(0, 1)  # by heads, then kinds
    state["v_rel.weight"] = made.sending.transpose(0, 1).flatten(0, 1)
    state |= {f"p_rel.{'__'.join(kind)}": made.prior[k : k + 1] for k, kind in enumerate(kinds)}
    given = ({"paper": x["p"], "author": x["a"]}, {kind: graphs[kind[1]] for kind in kinds})
    found = torch.func.functional_call(conv, state, given)
    return found["paper"], found["author"]


# -- A molecule -----------------------------------------------------------------------------------------------


def molecule_on(nodes: int, dtype: torch.dtype) -> tuple[Values, Values]:
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(nodes, 3, generator=generator, dtype=torch.float64) * (0.6 * nodes) ** (1 / 3) * 2
    near = (torch.cdist(p, p) + 9 * torch.eye(nodes) < 3.0).nonzero().T
    bonds = torch.stack([torch.arange(nodes - 1), torch.arange(1, nodes)])
    bonds = torch.cat([bonds, bonds.flip(0)], 1)
    values = {"h": normal(nodes, 8, dtype=dtype), "p": p.to(dtype), "e": normal(bonds.shape[1], 4, dtype=dtype, seed=1)}
    return values, {"bonds": bonds, "near": near}


def molecule(made: Any, x: Values, graphs: Values) -> tuple[Tensor, ...]:
    """GINEConv and SchNet's CFConv of torch_geometric, with the modules of the text."""
    gine = GINEConv(torch.nn.Linear(8, 8), edge_dim=4)  # which draws its modules anew when it is made
    gine.nn, gine.lin = made.phi, made.bond
    schnet = CFConv(8, 8, 8, made.filter, cutoff=3.0)
    schnet.lin1, schnet.lin2 = made.inside, made.outside
    j, i = graphs["near"]
    r = (x["p"][j] - x["p"][i]).norm(dim=1)
    waves = torch.exp(-((r[:, None] - made.centers) ** 2))
    return (gine(x["h"], graphs["bonds"], x["e"]) + schnet(x["h"], graphs["near"], r, waves),)


CASES = {
    "Exphormer": Case("Exphormer", exphormer, exphormer_on, {"d": 8, "k": 4}),
    "HGT": Case("HGT", hgt, hgt_on, {"d": 8, "width": 4}),
    "Molecule": Case("Molecule", molecule, molecule_on, {"d": 8, "k": 4}),
}


# -- Both ways ------------------------------------------------------------------------------------------------


def call(made: gdsl.Layer, values: Values, graphs: Values) -> tuple[Tensor, ...]:
    found = made(**values, **graphs)
    return found if isinstance(found, tuple) else (found,)


def compared(case: Case, made: gdsl.Layer, nodes: int, *, orders: int = 2) -> list[float]:
    """How far values and each order of derivatives lie from those of torch, in float64."""
    values, graphs = case.given(nodes, torch.float64)
    values = {name: v.requires_grad_() for name, v in values.items()}
    leaves = [*made.parameters(), *values.values()]
    found = derivatives(call(made, values, graphs), leaves, orders=orders)
    expected = derivatives(case.plain(made, values, graphs), leaves, orders=orders)
    return [apart(a, b) for a, b in zip(found, expected, strict=True)]


def times(case: Case, made: gdsl.Layer, nodes: int, seconds: float) -> list[float]:
    """Milliseconds of a forward and a backward pass, of the layer and of torch: the medians."""
    values, graphs = case.given(nodes, torch.float32)
    leaves = list(made.parameters())
    ways = [lambda: call(made, values, graphs), lambda: case.plain(made, values, graphs)]
    steps = [lambda way=way: torch.autograd.grad(score(way()), leaves, materialize_grads=True) for way in ways]
    timers = [Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads()) for step in steps]
    return [1000 * timer.blocked_autorange(min_run_time=seconds).median for timer in timers]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--short", action="store_true", help="small graphs, few steps")
    options = parser.parse_args(argv)
    nodes, seconds = (20, 0.01) if options.short else (2000, 2.0)
    print("| layer | values | derivatives | second derivatives | gdsl, ms a step | torch_geometric, ms a step |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, case in CASES.items():
        gaps = compared(case, case.make().double(), 9)
        assert all(math.isfinite(gap) for gap in gaps)
        row = [*(f"{gap:.0e}" for gap in gaps), *(f"{t:.1f}" for t in times(case, case.make(), nodes, seconds))]
        print(f"| {name} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
