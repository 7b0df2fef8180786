"""Layers as their papers write them, each beside plain torch: the texts of published.gdsl.

    python examples/published.py              how far values and derivatives lie apart, and how long a step takes
    python examples/published.py --short      a small graph, few steps
    python examples/published.py --layers NBFNet GAT

The graph is a handful of molecule-like clouds of atoms with an edge wherever two are near.
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import published_torch as plain
import torch
from torch import Tensor, nn
from tqdm import tqdm

import gdsl

TEXT = (Path(__file__).parent / "published.gdsl").read_text(encoding="utf-8")
KINDS = 3  # of edges
QUERIES = 2
CUTOFF = 3.0


@dataclass(frozen=True)
class Published:
    """A layer of the text: its name there, the same in plain torch, arguments besides `d` and `k`, batch norms."""

    layer: str
    plain: Callable[..., plain.Found]
    arguments: dict[str, Any] = field(default_factory=dict)
    norms: tuple[str, ...] = ()

    def make(self, d: int, k: int, **options: Any) -> gdsl.Layer:
        """The layer on nodes of d and edges of k features."""
        torch.manual_seed(0)
        wanted = gdsl.define(TEXT, layer=self.layer)
        sizes = {n: v for n, v in (("d", d), ("k", k)) if n in inspect.signature(wanted).parameters}
        norms = {name: nn.BatchNorm1d(d) for name in self.norms}
        return wanted(**sizes, **self.arguments, **norms, **options)


PUBLISHED = {
    "EGNN": Published("EGNN", plain.egnn),
    "PaiNN": Published("PaiNN", plain.painn),
    "GatedGCN": Published("GatedGCN", plain.gated_gcn, norms=("norm_nodes", "norm_edges")),
    "CompGCN, sub": Published("CompGCN", plain.comp_gcn(torch.sub), {"R": KINDS}),
    "CompGCN, mult": Published("CompGCN", plain.comp_gcn(torch.mul), {"R": KINDS, "composition": "mult"}),
    "TGAT": Published("TGAT", plain.tgat),
    "GRIT": Published("GRIT", plain.grit),
    "NBFNet": Published("NBFNet", plain.nbfnet, {"R": KINDS}),
    "SGFormer": Published("SGFormer", plain.sgformer),
    "GAT": Published("GAT", plain.gat),
    "DMPNN": Published("DMPNN", plain.dmpnn),
    "TGN": Published("TGN", plain.tgn),
    "GMoE": Published("GMoE", plain.gmoe),
    "HGP-SL": Published("HGPSL", plain.hgp_sl),
    "SparseTransformer": Published("SparseTransformer", plain.sparse_transformer),
    "SetAttention": Published("SetAttention", plain.set_attention),
    "MoNet": Published("MoNet", plain.monet),
    "DimeNet": Published("DimeNet", plain.dimenet, plain.waves_of(*plain.WAVES)),
    "DimeNet++": Published("DimeNetPlusPlus", plain.dimenet_plus_plus, plain.waves_of(*plain.WAVES)),
    "Exphormer": Published("Exphormer", plain.exphormer, {"R": KINDS}),
}


# Molecules -------------------------------------------------------------------------------------------------


def molecules(count: int, atoms: int, d: int, k: int, *, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """What the layers take, by name: `edges` [2, E], `batch` [N], and features of nodes, edges and of everything."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    p = 1.2 * normal(count, atoms, 3)
    near = (torch.cdist(p, p) + 9 * torch.eye(atoms) < CUTOFF).nonzero()
    edges = near[:, 1:].T + near[:, 0] * atoms
    edges = edges[:, torch.randperm(edges.shape[1], generator=generator)]
    nodes = count * atoms
    return {
        "edges": edges,
        "batch": torch.arange(count).repeat_interleave(atoms),
        "h": normal(nodes, d),
        "p": p.reshape(nodes, 3),
        "v": normal(nodes, 3, d),
        "e": normal(edges.shape[1], k),
        "f": normal(edges.shape[1], d),
        "age": normal(edges.shape[1]).abs(),
        "w": normal(edges.shape[1]).abs(),
        "forth": normal(KINDS, d),
        "back": normal(KINDS, d),
        "x": normal(nodes, QUERIES, d),
        "start": normal(nodes, QUERIES, d),
        "asked": normal(QUERIES, d),
        "rel": torch.randint(KINDS, (edges.shape[1],), generator=generator),
    }


# Both ways ---------------------------------------------------------------------------------------------------


def call(made: gdsl.Layer, inputs: dict[str, Tensor]) -> plain.Found:
    """What the layer gives, as a tuple."""
    given: dict[str, Any] = {i.name: inputs[i.name] for i in made.signature.inputs}
    if made.signature.batched or made.signature.builds_graph:
        given |= {"batch": inputs["batch"], "num_graphs": int(inputs["batch"][-1]) + 1}
    if not made.signature.builds_graph:
        given["graph"] = inputs["edges"]
    found = made(**given)
    return found if isinstance(found, tuple) else (found,)


def score(values: Sequence[Tensor]) -> Tensor:
    """A number of which every element of every value has another share."""
    return torch.stack([(v * torch.cos(torch.arange(v.numel(), dtype=v.dtype).view_as(v))).sum() for v in values]).sum()


def derivatives(values: Sequence[Tensor], leaves: Sequence[Tensor], *, orders: int) -> list[Sequence[Tensor]]:
    """The values, their derivatives by the leaves, and those of the derivatives."""
    found = [values]
    for order in range(orders):
        more = order + 1 < orders
        found.append(torch.autograd.grad(score(found[-1]), leaves, create_graph=more, materialize_grads=True))
    return found


def apart(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference, relative where numbers are large."""
    return max(((a - b).abs() / (1 + b.abs())).max().item() for a, b in zip(found, expected, strict=True))


def compared(one: Published, made: gdsl.Layer, inputs: dict[str, Tensor], *, orders: int = 2) -> list[float]:
    """How far values and each order of derivatives lie from those of plain torch."""
    inputs = {n: v.clone().requires_grad_(v.is_floating_point()) for n, v in inputs.items()}
    leaves = [*made.parameters(), *(inputs[i.name] for i in made.signature.inputs if inputs[i.name].requires_grad)]
    found = derivatives(call(made, inputs), leaves, orders=orders)
    expected = derivatives(one.plain(made, **inputs), leaves, orders=orders)
    return [apart(a, b) for a, b in zip(found, expected, strict=True)]


def step_times(one: Published, made: gdsl.Layer, inputs: dict[str, Tensor], repeats: int) -> list[float]:
    """Milliseconds of a forward and a backward pass, of the layer and of plain torch, in turns: the medians."""
    leaves = list(made.parameters())
    ways = [lambda: call(made, inputs), lambda: one.plain(made, **inputs)]
    taken: list[list[float]] = [[], []]
    for _ in range(repeats):
        for way, times in zip(ways, taken, strict=True):
            start = time.perf_counter()
            torch.autograd.grad(score(way()), leaves, materialize_grads=True)
            times.append(1000 * (time.perf_counter() - start))
    return [statistics.median(t[1:]) for t in taken]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--layers", nargs="+", choices=PUBLISHED, default=list(PUBLISHED), metavar="NAME")
    parser.add_argument("--short", action="store_true", help="a small graph, few steps")
    options = parser.parse_args(argv)
    count, atoms, d, repeats = (2, 6, 8, 3) if options.short else (100, 20, 32, 21)
    rows = []
    for name in tqdm(options.layers, desc="layers"):
        one = PUBLISHED[name]
        gaps = compared(one, one.make(5, 3).double(), molecules(2, 6, 5, 3))
        times = step_times(one, one.make(d, 8), molecules(count, atoms, d, 8, dtype=torch.float32), repeats)
        rows.append(f"| {name} | {' | '.join(f'{g:.0e}' for g in gaps)} | {' | '.join(f'{t:.1f}' for t in times)} |")
    print("\n| layer | values | derivatives | second derivatives | gdsl, ms a step | plain torch, ms a step |")
    print("|---|---:|---:|---:|---:|---:|", *rows, sep="\n")


if __name__ == "__main__":
    main()
